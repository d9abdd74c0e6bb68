"""Less local work is told as step counts, so FedNova and SCAFFOLD stay what their papers say."""

from __future__ import annotations

import numpy as np
import pytest
from small_federation import program_of, rows

from anabranch.client import Task, TaskKind, execute
from anabranch.data import Examples
from anabranch.plan import Plan
from anabranch.updates import Update, Vector

RATE = 0.05


def trained(
    algorithm: dict[str, object], fraction: float, client: int = 3
) -> tuple[Update, Vector]:
    """The update of the client with 20 examples: five steps an epoch, two epochs."""
    plan = Plan.model_validate(
        {
            "data": {"source": "arrays"},
            "model": {"name": "linear"},
            "algorithm": algorithm,
            "local": {"epochs": 2, "batch_size": 4, "learning_rate": RATE, "shuffle": False},
        }
    )
    program = program_of(plan)
    x, y = rows()[client]
    data = Examples(x.astype(np.float32), y.astype(np.float32))
    state = program.algorithm.init(program.base[: program.dim].copy())
    broadcast = program.algorithm.broadcast(state)
    task = Task(TaskKind.TRAIN, 1, client, f"c{client}", 1, "", fraction)
    reply = execute(program, task, broadcast, None, data)
    return reply.update, program.base[: program.dim]


@pytest.mark.parametrize(("fraction", "steps"), [(1.0, 10), (0.5, 5), (0.29, 2), (0.001, 1)])
def test_fednova_divides_by_the_steps_that_were_taken(fraction: float, steps: int) -> None:
    plain, _ = trained({"name": "fedavg"}, fraction)
    normalised, _ = trained({"name": "fednova"}, fraction)
    assert plain.scalars["steps"] == steps
    assert normalised.scalars["coefficient"] == steps
    expected = plain.vectors["delta"] / np.float32(steps)
    np.testing.assert_allclose(normalised.vectors["delta"], expected, rtol=1e-6)


@pytest.mark.parametrize(("fraction", "steps"), [(1.0, 10), (0.3, 3)])
def test_scaffold_learns_the_mean_gradient_of_the_steps_that_were_taken(
    fraction: float, steps: int
) -> None:
    update, _ = trained({"name": "scaffold"}, fraction)
    # Both variates start at zero: the change is -delta / (steps * rate), the mean gradient.
    expected = -update.vectors["delta"] / (steps * RATE)
    np.testing.assert_allclose(update.vectors["control"], expected, rtol=1e-5)


def test_less_work_is_a_prefix_of_the_whole() -> None:
    whole, start = trained({"name": "fedavg"}, 1.0)
    part, _ = trained({"name": "fedavg"}, 0.5)
    assert part.scalars["train_examples"] <= whole.scalars["train_examples"]
    assert not np.array_equal(part.vectors["delta"], whole.vectors["delta"])
    assert len(part.vectors["delta"]) == len(start)
