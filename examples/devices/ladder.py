"""Participation, one measure after the other: which of the admitted tasks count?

    python examples/devices/ladder.py --seeds 3

Every row keeps what the rows above it have. Participation is merged updates over tasks given out,
late ones of the window included; completeness is the mean fraction of the planned local work in
them. The devices' real speeds and bandwidths are hidden from admission.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from measure import Measured, measured, spread, write_profiles

import anabranch as ab

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
    # Three of four tasks keep to their time above, nine of ten here; chosen on seeds 100 and 101.
    "+ a wider margin (90 % quantile)": {"admission.time_quantile": 0.9},
}


def one(changes: dict[str, object], seed: int, folder: Path) -> Measured:
    """One row of one seed."""
    profiles = write_profiles(
        folder / f"devices-{seed}.csv", 600, seed, gflops=(8.0, 1.24), up_mbps=(1.5, 1.0)
    )
    plan = ab.load_plan(HERE / "ladder.toml")
    return measured(plan, folder, {"seed": seed, "devices.profiles": str(profiles), **changes})


def row(name: str, runs: list[Measured]) -> str:
    """One line of the table."""
    tallies = [run.tally for run in runs]
    participation = spread([100 * (t.participation or 0) for t in tallies])
    completeness = spread([100 * (t.completeness or 0) for t in tallies])
    admitted = spread([100 * run.admitted for run in runs])
    uneven = spread([t.unevenness or 0 for t in tallies], 2)
    longest = spread([_percentile(run) for run in runs], 0)
    return f"| {name} | {participation} | {completeness} | {admitted} | {uneven} | {longest} |"


def _percentile(run: Measured) -> float:
    """95th percentile of the seconds of merged tasks."""
    merged = sorted(t.trace.seconds for t in run.tasks if t.fate.startswith("merged"))
    return merged[int(0.95 * (len(merged) - 1))] if merged else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="rows that are left out")
    parser.add_argument("--json", type=Path, default=None, help="also write the numbers here")
    given = parser.parse_args()
    print("| measures | participation % | completeness % | admitted % | Gini | p95 s |")
    print("|---|---|---|---|---|---|")
    changes: dict[str, object] = {}
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, more) in enumerate(LADDER.items()):
            changes |= more
            if number < given.first:
                continue
            runs = [one(changes, seed, Path(folder)) for seed in range(given.seeds)]
            found[name] = [run.tally.participation or 0.0 for run in runs]
            print(row(name, runs), flush=True)
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
