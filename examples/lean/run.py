"""What goes up and down, and what it costs in accuracy: the plan here beside float32 both ways.

    python -m examples.lean.run --rounds 100

From the root of the repository. A run of 100 rounds takes about four minutes on one core;
``python -m benchmarks.accuracy`` compares more codecs over three seeds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import anabranch as ab
from anabranch.plan import changed

PLAN = Path(__file__).parent / "plan.toml"
PLANS: dict[str, dict[str, object]] = {
    "float32 up and down": {"updates": {}},
    "ecq up, differences down": {},
}


def main() -> None:
    """Run both plans and print a line for each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--store", type=Path, default=Path("runs"))
    asked = parser.parse_args()
    print(f"{'':26}{'accuracy':>9}{'largest update':>16}{'MB up':>9}{'MB down':>9}")
    for name, changes in PLANS.items():
        plan = changed(ab.load_plan(PLAN), changes)
        plan = changed(plan, {"rounds.count": asked.rounds, "seed": asked.seed})
        run = ab.run_plan(plan, store=asked.store)
        history = [stored for stored in run.history if stored.round]
        largest = max(max(stored.client_columns["bytes_up"]) for stored in history)
        print(
            f"{name:26}{100 * run.metrics['accuracy']:8.2f}%{largest:16,}"
            f"{sum(stored.bytes_up for stored in history) / 1e6:9.1f}"
            f"{sum(stored.bytes_down for stored in history) / 1e6:9.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
