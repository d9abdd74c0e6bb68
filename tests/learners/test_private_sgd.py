"""DP-SGD inside a site: single gradients against autograd, sensitivity exactly, noise by size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from anabranch.algorithms.base import Correction
from anabranch.data.federation import Examples, Ragged
from anabranch.errors import AnabranchError
from anabranch.learners.base import TrainingJob
from anabranch.learners.build import build_learner
from anabranch.learners.losses import Loss
from anabranch.learners.numpy_learner import NumpyLearner
from anabranch.learners.plan import ModelPlan
from anabranch.learners.private_sgd import PrivateSteps, _unit_gradients, _Units
from anabranch.learners.torch_learner import TorchLearner
from anabranch.learners.training import LocalTraining
from anabranch.privacy.mechanisms.lattice import UnitLattice
from anabranch.privacy.noise import SecretStream
from anabranch.updates.layout import Layout

KEY = bytes(range(32))


def steps(**changes: object) -> PrivateSteps:
    values: dict[str, object] = {
        "clip": 1.0, "multiplier": 1.0, "batch": 4.0, "rate": 0.5, "steps": 3, "max_examples": 1,
        "stream": lambda: SecretStream.keyed(KEY, "test"),
    }  # fmt: skip
    return PrivateSteps(**{**values, **changes})  # type: ignore[arg-type]  # of the declared types


def job(private: PrivateSteps, **training: object) -> TrainingJob:
    local = LocalTraining(learning_rate=0.1, **training)
    return TrainingJob(local, 0.1, Correction(), None, 1, "va", private=private)


def data(n: int = 12, seed: int = 0, subjects: object = None) -> Examples:
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(n, 4)).astype(np.float32)
    return Examples(x, draw.integers(0, 3, n), subjects)  # type: ignore[arg-type]  # as given


def learners() -> list[NumpyLearner]:
    mlp = ModelPlan(name="mlp", parameters={"hidden": [5]})
    return [
        build_learner(ModelPlan(name="logistic"), "numpy", input_shape=(4,), classes=3),
        build_learner(mlp, "numpy", input_shape=(4,), classes=3),
    ]


class Small(nn.Module):
    """Convolution, then a dense layer, with one channel count that is not 1."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 2)
        self.head = nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.conv(x)).flatten(1))


def torch_learner(module: type[nn.Module], shape: tuple[int, ...]) -> TorchLearner:
    return TorchLearner(module, ModelPlan(name="own:Module"), Loss("cross-entropy", 3), shape)


@pytest.mark.parametrize("model", ["logistic", "mlp"])
def test_single_gradients_by_hand_are_those_of_autograd(model: str) -> None:
    plan = ModelPlan(name=model, parameters={"hidden": [5]} if model == "mlp" else {})
    by_torch = build_learner(plan, "torch", input_shape=(4,), classes=3, engine="eager")
    by_hand = build_learner(plan, "torch", input_shape=(4,), classes=3, engine="closed-form")
    w, examples = by_torch.initial(3), data()
    left = by_torch._singles().gradients(w, examples.x, examples.y)
    right = by_hand._singles().gradients(w, examples.x, examples.y)
    assert left.shape == right.shape == (12, by_torch.layout.size)
    np.testing.assert_allclose(left, right, atol=2e-6)


def test_convolutions_stand_where_the_layout_has_them() -> None:
    learner = torch_learner(Small, (2, 3, 3))
    draw = np.random.default_rng(1)
    x, y = draw.normal(size=(6, 2, 3, 3)).astype(np.float32), draw.integers(0, 3, 6)
    w = learner.initial(0)
    single = learner._singles().gradients(w, x, y)
    plain = TrainingJob(LocalTraining(batch_size=0), 1.0, Correction(), None, 1, "va")
    whole = w - learner.train(w, Examples(x, y), plain).end
    np.testing.assert_allclose(single.mean(0), whole, atol=1e-5)


def test_without_clipping_and_noise_to_speak_of_a_step_is_the_gradient_step() -> None:
    for learner in learners():
        examples, w = data(), learner.initial(1)
        private = steps(clip=1e3, multiplier=1e-4, batch=12.0, rate=1.0, steps=1)
        near = learner.train(w, examples, job(private)).end
        plain = TrainingJob(
            LocalTraining(learning_rate=0.1, batch_size=0), 0.1, Correction(), None, 1, "va"
        )
        np.testing.assert_allclose(near, learner.train(w, examples, plain).end, atol=0.05)


def test_the_same_key_gives_the_same_end_and_another_key_another() -> None:
    learner = learners()[0]
    w = learner.initial(1)
    one = learner.train(w, data(), job(steps())).end
    two = learner.train(w, data(), job(steps())).end
    other = steps(stream=lambda: SecretStream.keyed(KEY, "other"))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, learner.train(w, data(), job(other)).end)


def test_noise_has_the_planned_deviation() -> None:
    """Examples that no coin picks: a step is noise alone, of deviation rate * z * C / B."""
    learner = learners()[1]
    w = learner.initial(1)
    private = steps(clip=2.0, multiplier=3.0, batch=5.0, rate=0.0, steps=400)
    moved = (learner.train(w, data(), job(private)).end - w) / (0.1 * 2.0 * 3.0 / 5.0)
    count = len(w) * 400
    assert np.mean(moved**2) / 400 == pytest.approx(1.0, abs=6 * np.sqrt(2 / count) * 20)


def test_nothing_but_the_end_depends_on_the_data() -> None:
    learner = learners()[0]
    several = [data(9, 1), data(12, 2)]
    results = [learner.train(learner.initial(1), one, job(steps())) for one in several]
    facts = [(r.steps, r.step_size_sum, r.loss_sum, r.examples_seen) for r in results]
    assert facts[0] == facts[1] == (3, pytest.approx(0.3), 0.0, 0)


class Recorded:
    """Gradients that a test chooses; one coordinate of the model for each."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows
        base = build_learner(ModelPlan(name="linear"), "numpy", input_shape=(2,), classes=0)
        self.layout: Layout = base.layout

    def gradients(self, w: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return self.rows[np.asarray(x)[:, 0].astype(int)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(*[st.floats(width=32) for _ in range(3)]),
        min_size=1,
        max_size=8,
    ),
    st.data(),
)
def test_one_unit_more_moves_the_sum_by_at_most_the_clip_norm(
    rows: list[tuple[float, ...]], draw: st.DataObject
) -> None:
    """Neighbouring sums, exactly, before the noise: subjects with several examples too."""
    single = np.array(rows, np.float32)
    subjects = np.array(
        draw.draw(st.lists(st.integers(0, 3), min_size=len(rows), max_size=len(rows)))
    )
    lattice = UnitLattice(3)
    source, index = Recorded(single), np.arange(len(rows), dtype=np.float32)[:, None]
    whole = Examples(index, np.zeros(len(rows)), subjects)

    def clipped_sum(examples: Examples) -> np.ndarray:
        units = _Units.of(examples, 2)
        found = _unit_gradients(source, np.zeros(3), examples, units, np.arange(len(units)))
        return sum((lattice.rounded(g, 0.5) for rows in found for g in rows), np.zeros(3))

    left = clipped_sum(whole)
    for person in np.unique(subjects):
        keep = subjects != person
        if not keep.any():
            continue
        without = Examples(whole.x[keep], whole.y[keep], subjects[keep])
        moved = left - clipped_sum(without)
        assert float(moved @ moved) <= float(lattice.steps) ** 2


def test_contributions_of_a_subject_are_bounded() -> None:
    subjects = np.array([7, 3, 7, 7, 3])
    units = _Units.of(Examples(np.zeros((5, 1)), np.zeros(5), subjects), 2)
    assert units.rows.tolist() == [1, 4, 0, 2]
    assert units.starts.tolist() == [0, 2, 4]
    single = _Units.of(Examples(np.zeros((3, 1)), np.zeros(3)), 5)
    assert single.rows.tolist() == [0, 1, 2]


def test_subjects_follow_their_rows() -> None:
    parts = [data(3, subjects=np.array([1, 1, 2])), data(2, subjects=np.array([5, 6]))]
    ragged = Ragged.stack(parts)
    second = ragged.of(1).subjects
    assert second is not None
    assert second.tolist() == [5, 6]
    assert Ragged.stack([data(3), data(2)]).of(0).subjects is None


def test_batch_normalisation_is_refused() -> None:
    class Normed(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))

    plan = ModelPlan(name="own:Module", normalisation="local")
    learner = TorchLearner(Normed, plan, Loss("cross-entropy", 3), (4,))
    with pytest.raises(AnabranchError, match="AB-980"):
        learner.train(learner.initial(0), data(), job(steps()))
