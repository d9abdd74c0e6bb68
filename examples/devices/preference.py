"""Which phones to ask: time and joules to 80 %, dropouts, evenness.

python examples/devices/preference.py --seeds 3
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path

from measure import Measured, mean, measured, spread

import anabranch as ab

HERE = Path(__file__).parent
SELECTORS: dict[str, dict[str, object]] = {
    "uniform": {"kind": "uniform"},
    "Oort": {"kind": "oort"},
    "battery and network": {"kind": "utility", "floor": None},
    "battery and network, floor 20": {"kind": "utility", "floor": 20},
}


def row(name: str, runs: list[Measured], target: float) -> str:
    """One line of the table."""
    times = [run.reached(target) for run in runs]
    joules = [
        math.nan if math.isnan(time) else run.joules_until(time) / 1000.0
        for run, time in zip(runs, times, strict=True)
    ]
    lost = f"{spread([100 * run.lost for run in runs])}, {spread([100 * run.late for run in runs])}"
    uneven = spread([run.tally.unevenness or 0 for run in runs], 2)
    last = spread([100 * mean([a for _, a in run.curve[-5:]]) for run in runs])
    return f"| {name} | {spread(times, 0)} | {spread(joules)} | {lost} | {uneven} | {last} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--target", type=float, default=0.8)
    given = parser.parse_args()
    plan = ab.load_plan(HERE / "preference.toml")
    print("| selector | s to target | kJ to target | lost %, cut off % | Gini | last % |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, selector in SELECTORS.items():
            runs = [
                measured(plan, Path(folder), {"seed": seed, "selection": selector})
                for seed in range(given.seeds)
            ]
            print(row(name, runs, given.target), flush=True)


if __name__ == "__main__":
    main()
