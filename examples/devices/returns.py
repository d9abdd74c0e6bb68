"""When do interrupted phones answer? What a late window can bring, for choosing that of the ladder.

    python examples/devices/returns.py

The phones of ``ladder.toml`` with seeds that the ladder does not use: 10,800 tasks, as they go in
the simulation when nobody cuts them off. Nothing is trained, so it takes seconds, and the shares
are exact to 0.2 points, where eight rounds of the ladder with four seeds leave 0.7.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from measure import write_profiles

import anabranch as ab
from anabranch.fleet.admission import admit
from anabranch.fleet.cost import TaskCost
from anabranch.fleet.devices import SimulatedFleet
from anabranch.fleet.devices.profiles import read_profiles
from anabranch.fleet.history import FleetHistory

HERE = Path(__file__).parent
SEEDS, ROUNDS, CLIENTS = range(200, 206), 60, 600
WINDOWS = range(5)
DOWN, UP, EXAMPLES = 2.0e6, 7.0e4, 100.0
"""Bytes of a task as the ladder has them with the codecs, and pictures of a phone."""


def answers(seed: int, folder: Path) -> np.ndarray:
    """Seconds from being asked to the answer; inf where none ever comes."""
    plan = ab.load_plan(HERE / "ladder.toml")
    assert plan.devices is not None
    assert isinstance(plan.rounds.cohort, int)
    assert plan.rounds.deadline is not None
    table = write_profiles(
        folder / f"{seed}.csv", CLIENTS, seed, gflops=(8.0, 1.24), up_mbps=(1.5, 1.0)
    )
    names = tuple(f"client-{number:03d}" for number in range(CLIENTS))
    behaviour = plan.devices.behaviour.replace(resumable=True)
    fleet = SimulatedFleet.drawn(read_profiles(table, names), behaviour, seed)
    flops = plan.devices.flops_per_example or 0.0
    cost = TaskCost(DOWN, UP, flops, examples=EXAMPLES, batch_size=plan.local.batch_size)
    rules = plan.admission.replace(by_time=True, adapt=True)
    rng = np.random.default_rng(seed)
    found = []
    for number in range(ROUNDS):
        now = plan.rounds.deadline * number
        view = fleet.view(now)
        history = FleetHistory.empty(CLIENTS)
        work = admit(rules, view, history, cost, plan.rounds.deadline).work
        there = np.flatnonzero(view.available & (work > 0))
        rows = rng.choice(there, plan.rounds.cohort, replace=False)
        count = len(rows)
        flops_each = flops * EXAMPLES * work[rows]
        begun = fleet.begin(rows, now, number + 1, flops_each, np.full(count, DOWN))
        found.append(fleet.finish(begun, np.full(count, UP)).ended - now)
    return np.concatenate(found)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        seconds = np.concatenate([answers(seed, Path(folder)) for seed in SEEDS])
    print(f"{len(seconds)} tasks; never heard of again: {100 * np.isinf(seconds).mean():.1f} %")
    print("| late window, rounds | answered in time, % |")
    print("|---|---|")
    for window in WINDOWS:
        share = (seconds <= 300.0 * (1 + window)).mean()
        print(f"| {window} | {100 * share:.1f} |")


if __name__ == "__main__":
    main()
