"""Virtual time to 80 %: waiting for all, over-selection, and FedBuff, on the same phones.

    python examples/devices/asynchrony.py --seeds 3

A policy has reached the target when three evaluations in a row have it as their mean; a run ends
there. The settings were chosen by ``tune.py``, on other pictures and seeds.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path

from measure import Measured, measured, spread, write_profiles

import anabranch as ab

HERE = Path(__file__).parent
SERVER: dict[str, object] = {"algorithm.server_learning_rate": 1.5}


def _over(asked: int, taken: int, rounds: int) -> dict[str, object]:
    own = {"rounds.cohort": taken, "rounds.over_selection": asked / taken, "rounds.count": rounds}
    return {**SERVER, **own}


POLICIES: dict[str, dict[str, object]] = {
    "FedBuff (K = 5, 40 open)": {
        "rounds.cohort": None,
        "rounds.asynchronous": {"buffer": 5, "concurrency": 40, "max_staleness": 20},
        "rounds.deadline": 300.0,
        "rounds.count": 480,
    },
    "ask 40, take the first 30": _over(40, 30, 80),
    "ask 80, take the first 60": _over(80, 60, 50),
    "ask 80, take the first 40": _over(80, 40, 60),
    "wait for all 30": {**SERVER, "rounds.count": 12},
}
"""As `tune.py` chose them: 80 asked are better than 40 where three of four are taken, and half of
them best of all."""


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
    pairs = list(zip(times, runs, strict=True))
    tasks = spread([_until(time, run.tasks_until) for time, run in pairs], 0)
    merged = spread([_until(time, run.uploads_until) for time, run in pairs], 0)
    return f"| {name} | {early} | {spread(times, 0)} | {tasks} | {merged} |"


def _until(time: float, count: Callable[[float], int]) -> float:
    return math.nan if math.isnan(time) else float(count(time))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--target", type=float, default=0.8)
    parser.add_argument("--json", type=Path, default=None, help="also write the numbers here")
    given = parser.parse_args()
    print("| policy | s to 75 % | s to target | tasks until then | merged |")
    print("|---|---|---|---|---|")
    found: dict[str, list[tuple[tuple[float, float], ...]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, changes in POLICIES.items():
            seeds = range(given.seeds)
            runs = [one(changes, seed, Path(folder), given.target) for seed in seeds]
            found[name] = [run.curve for run in runs]
            print(row(name, runs, given.target), flush=True)
    if given.json:
        given.json.write_text(json.dumps(found) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
