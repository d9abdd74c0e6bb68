"""Participation, one measure after the other: which of the admitted tasks count?

    python examples/devices/ladder.py --seeds 3

Every row keeps what the rows above it have. Participation is merged updates over tasks given out,
late ones of the window included; completeness is the mean fraction of the planned local work in
them. The tasks of eight rounds count; a run with a late window goes on for as many rounds as the
window has, so that every one of them has its whole time. The devices' real speeds and bandwidths
are hidden from admission.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from measure import Measured, measured, spread, write_profiles

import anabranch as ab
from anabranch.plan import changed

HERE = Path(__file__).parent
LADDER: dict[str, dict[str, object]] = {
    "float32, fixed work": {},
    "+ smaller updates (ECQ up, delta down)": {
        "updates.stages": [{"kind": "ecq"}],
        "updates.downlink": {"kind": "delta"},
    },
    "+ work that fits the deadline": {"admission.by_time": True, "admission.adapt": True},
    "+ checkpoints, resumable transfers": {"devices.behaviour.resumable": True},
    "+ late window of one round": {"rounds.late_window": 1},
    # Chosen with returns.py, on other seeds.
    "+ late window of three rounds, training may end early": {
        "rounds.late_window": 3,
        "admission.stop_early": True,
    },
}
ROUNDS = 8
"""Rounds whose tasks count."""


def one(changes: dict[str, object], seed: int, folder: Path) -> Measured:
    """One row of one seed."""
    profiles = write_profiles(
        folder / f"devices-{seed}.csv", 600, seed, gflops=(8.0, 1.24), up_mbps=(1.5, 1.0)
    )
    plan = changed(ab.load_plan(HERE / "ladder.toml"), changes)
    rounds = ROUNDS + plan.rounds.late_window
    run = measured(
        plan, folder, {"seed": seed, "devices.profiles": str(profiles), "rounds.count": rounds}
    )
    return run.first_rounds(ROUNDS)


def row(name: str, runs: list[Measured]) -> str:
    """One line of the table."""
    participation = spread([100 * run.participation for run in runs])
    completeness = spread([100 * run.completeness for run in runs])
    admitted = spread([100 * run.admitted for run in runs])
    uneven = spread([run.tally.unevenness or 0 for run in runs], 2)
    longest = spread([_percentile(run) for run in runs], 0)
    return f"| {name} | {participation} | {completeness} | {admitted} | {uneven} | {longest} |"


def _percentile(run: Measured) -> float:
    """95th percentile of the seconds of merged tasks."""
    merged = sorted(t.trace.seconds for t in run.tasks if t.fate.startswith("merged"))
    return merged[int(0.95 * (len(merged) - 1))] if merged else float("nan")


def _rows(first: int) -> Iterator[tuple[str, dict[str, object]]]:
    changes: dict[str, object] = {}
    for number, (name, more) in enumerate(LADDER.items()):
        changes = changes | more
        if number >= first:
            yield name, changes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="rows that are left out")
    parser.add_argument("--json", type=Path, default=None, help="also write the numbers here")
    given = parser.parse_args()
    print("| measures | participation % | completeness % | admitted % | Gini | p95 s |")
    print("|---|---|---|---|---|---|")
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, changes in _rows(given.first):
            runs = [one(changes, seed, Path(folder)) for seed in range(given.seeds)]
            found[name] = [run.participation for run in runs]
            print(row(name, runs), flush=True)
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
