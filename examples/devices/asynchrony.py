"""Virtual time to 80 %: waiting for all, over-selection, and FedBuff, on the same phones.

    python examples/devices/asynchrony.py --seeds 3

A policy has reached the target when three evaluations in a row have it as their mean.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path

from measure import Measured, mean, measured, spread, write_profiles

import anabranch as ab

HERE = Path(__file__).parent
POLICIES: dict[str, dict[str, object]] = {
    "wait for all 30": {"rounds.count": 12},
    "ask 40, take the first 30": {"rounds.count": 60, "rounds.over_selection": 1.33},
    "FedBuff (K = 10, 40 open)": {
        "rounds.cohort": None,
        "rounds.asynchronous": {"buffer": 10, "concurrency": 40, "max_staleness": 20},
        "rounds.count": 140,
    },
}


def one(changes: dict[str, object], seed: int, folder: Path, until: float = math.inf) -> Measured:
    """One policy with one seed, to its last round or ``until`` an accuracy."""
    profiles = write_profiles(
        folder / f"devices-{seed}.csv",
        200,
        seed,
        gflops=(8.0, 0.9),  # and 0.4 that the planner does not know: about 1 together
        up_mbps=(0.2, 0.0),
        down_ratio=1.8,
    )
    plan = ab.load_plan(HERE / "asynchrony.toml")
    own = {"seed": seed, "devices.profiles": str(profiles)}
    return measured(plan, folder, {**own, **changes}, until)


def row(name: str, runs: list[Measured], target: float) -> str:
    """One line of the table."""
    times = [run.reached(target) for run in runs]
    early = spread([run.reached(0.75) for run in runs], 0)
    tasks = spread(
        [_until(time, run.tasks_until) for time, run in zip(times, runs, strict=True)], 0
    )
    ups = spread(
        [_until(time, run.uploads_until) for time, run in zip(times, runs, strict=True)], 0
    )
    last = spread([100 * mean([a for _, a in run.curve[-5:]]) for run in runs])
    until = spread([run.curve[-1][0] for run in runs], 0)
    return f"| {name} | {early} | {spread(times, 0)} | {tasks} | {ups} | {last} at {until} s |"


def _until(time: float, count: Callable[[float], int]) -> float:
    return math.nan if math.isnan(time) else float(count(time))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--target", type=float, default=0.8)
    parser.add_argument("--json", type=Path, default=None, help="also write the numbers here")
    given = parser.parse_args()
    print("| policy | s to 75 % | s to target | tasks until then | merged | last accuracy % |")
    print("|---|---|---|---|---|---|")
    found: dict[str, list[tuple[tuple[float, float], ...]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, changes in POLICIES.items():
            runs = [one(changes, seed, Path(folder)) for seed in range(given.seeds)]
            found[name] = [run.curve for run in runs]
            print(row(name, runs, given.target), flush=True)
    if given.json:
        given.json.write_text(json.dumps(found) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
