"""Battery caps against the hidden truth: how many tasks cost more than 5 % of a battery?

    python examples/devices/battery.py --seeds 3

The planner knows classes of devices; real power and speed lie a factor of about 0.5 to 3 from what
it believes, drift over hours, and differ from task to task. Intervals are Wilson's, of 95 %.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from measure import Measured, mean, measured, spread

import anabranch as ab

HERE = Path(__file__).parent
CAP = 0.05
EXACT: dict[str, object] = {
    "devices.behaviour.spread": 0.0,
    "devices.behaviour.drift": 0.0,
    "devices.behaviour.noise": 0.0,
    "devices.behaviour.report_noise": 0.0,
}
ROWS: dict[str, dict[str, object]] = {
    "no cap": {"admission.max_battery": None},
    "cap, 99 % quantile": {},
    "cap, perfect model": EXACT,
}
SMALL: dict[str, object] = {
    "model.parameters.hidden": [1500],  # 1.19 million parameters go up and down
    "devices.flops_per_example": 9.1e6,  # as many operations as the CNN of that size
    "local.batch_size": 100,
    "rounds.count": 5,
    "local.epochs": 1,
    "updates.stages": [{"kind": "ecq"}],
    "updates.downlink": {"kind": "delta"},
}


def later(run: Measured) -> list[float]:
    """Battery shares of tasks of devices that had two tasks in earlier rounds."""
    seen: Counter[str] = Counter()
    shares = []
    for task in run.tasks:
        if seen[task.client] >= 2 and not math.isnan(task.trace.share):
            shares.append(task.trace.share)
        seen[task.client] += task.fate.startswith("merged")
    return shares


def wilson(hits: int, count: int) -> tuple[float, float]:
    """Wilson's interval of 95 % for a share."""
    if not count:
        return math.nan, math.nan
    z, share = 1.96, hits / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + (z / count / 2) ** 2)
    return max(0.0, centre - half), min(1.0, centre + half)


def row(name: str, runs: Sequence[Measured]) -> str:
    """One line of the table."""
    everything = [t.trace.share for run in runs for t in run.tasks if not math.isnan(t.trace.share)]
    after = [share for run in runs for share in later(run)]
    above = sum(share > CAP for share in after)
    low, high = wilson(above, len(after))
    first = 100 * mean([float(share > CAP) for share in everything])
    shown = f"{100 * above / max(len(after), 1):.2f} [{100 * low:.2f}, {100 * high:.2f}]"
    median = 100 * statistics.median(everything)
    work = spread([100 * (run.tally.completeness or 0) for run in runs])
    last = spread([100 * run.curve[-1][1] for run in runs])
    return (
        f"| {name} | {first:.2f} | {shown} of {len(after)} | {100 * max(everything):.1f} | "
        f"{median:.2f} | {work} | {last} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    plan = ab.load_plan(HERE / "battery.toml")
    heads = ("", "all tasks above 5 %", "after two tasks", "largest", "median", "work", "accuracy")
    print(f"| {' | '.join(heads)} |   all in per cent")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, changes in {**ROWS, "1.2 M parameters, small work": SMALL}.items():
            runs = [
                measured(plan, Path(folder), {"seed": seed, **changes})
                for seed in range(given.seeds)
            ]
            print(row(name, runs), flush=True)


if __name__ == "__main__":
    main()
