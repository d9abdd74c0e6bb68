"""`make bench`: Anabranch's simulator beside the plain PyTorch script and the tuned loop.

python -m benchmarks.simulation                      everything, about ten minutes
python -m benchmarks.simulation --items A,D --turns 3
"""

from __future__ import annotations

import argparse
import importlib.util
import sys

from benchmarks import harness, report
from benchmarks.harness import Contestant, Measurement
from benchmarks.items import ITEMS, Item

__all__ = ["contestants", "main"]

ENGINE = "_engine"
"""Ending of the label of an engine measured without the round loop and its store."""

ENGINES = {
    "A": ("generic", "closed_form"),
    "B": ("generic", "closed_form"),
    "C": ("generic", "bf16"),
    "D": ("generic", "closed_form"),
}
LONGER = {"A": 10, "B": 5, "D": 10}
"""The store commits about once a second, which the rounds of a short run would never see."""

TARGETS = {
    ("A", "generic", "plain"): 5.0,
    ("B", "generic", "plain"): 3.0,
    ("D", "generic", "plain"): 5.5,
    ("C", "generic", "tuned"): 1.3,
    ("C", "bf16", "tuned"): 2.0,
    ("A", "closed_form", "plain"): 9.0,
    ("B", "closed_form", "plain"): 3.6,
    ("D", "closed_form", "plain"): 10.0,
}
"""What the project asks of itself, as ratios (median) to the plain script or the tuned loop."""


def contestants(item: Item, engines: bool = True) -> list[Contestant]:
    """Who does ``item``: the two scripts, then each engine with and without the round loop."""
    scripts = [Contestant(name, name, threads=item.threads) for name in ("plain", "tuned")]
    if not engines:
        return scripts
    whole = [Contestant(name, name, longer=LONGER.get(item.name, 1)) for name in ENGINES[item.name]]
    alone = [Contestant(name, name + ENGINE, engine_only=True) for name in ENGINES[item.name]]
    return [*scripts, *whole, *alone]


def entries(found: dict[str, Measurement], item: Item, peaks: dict[str, float]) -> report.Figures:
    """The item's entry in the results: the engine's own figures stand inside the contestant's."""
    flat = report.figures(item, found, peaks)
    print(report.table(item, flat), end="\n\n", flush=True)
    answer: report.Figures = {"gflop_a_round": round(report.gigaflop(item), 4)}
    for label in ("plain", "tuned", "generic", "closed_form", "bf16"):
        entry = flat.get(label)
        alone = flat.get(label + ENGINE)
        answer[label] = entry | {"engine_only": alone} if entry and alone else entry
    return answer


def missed(items: dict[str, report.Figures]) -> list[str]:
    """Lines for targets and equalities that were not reached."""
    lines = []
    for (name, label, base), wanted in TARGETS.items():
        entry = items.get(name, {}).get(label)
        if not isinstance(entry, dict):
            continue
        ratio = entry.get(f"ratio_to_{base}")
        if not isinstance(ratio, float) or ratio < wanted:
            lines.append(f"  {name} {label}: {ratio} x {base}, wanted {wanted}")
    for name, item in items.items():
        for label, entry in item.items():
            if isinstance(entry, dict) and entry.get("within_target") is False:
                lines.append(
                    f"  {name} {label}: parameters differ by {entry['max_abs_difference']}"
                )
    return lines


def main() -> int:
    """Measure, print, write `results/simulation.json`; 1 when a contestant gave no figure."""
    parser = argparse.ArgumentParser(description="Simulator against plain PyTorch")
    parser.add_argument("--items", default="A,B,C,D", help="comma-separated (default: all)")
    parser.add_argument("--turns", type=int, default=5, help="turns of each contestant (default 5)")
    parser.add_argument("--scripts-only", action="store_true", help="only the two PyTorch scripts")
    options = parser.parse_args()
    engines = not options.scripts_only and importlib.util.find_spec("anabranch") is not None
    machine, peaks = harness.machine(), harness.peaks()
    print(f"{machine['cpu']}, {machine['cores']} cores; GEMM peak, GFLOP/s: {peaks}\n", flush=True)
    items: dict[str, report.Figures] = {}
    for name in options.items.split(","):
        item = ITEMS[name]
        found = harness.side_by_side(item, contestants(item, engines), options.turns)
        items[name] = entries(found, item, peaks)
    _warn(machine)
    complete = engines and set(items) == set(ITEMS)
    folder = harness.RESULTS if complete else harness.CACHE  # parts do not replace the whole
    path = folder / "simulation.json"
    report.write(path, {"machine": machine | {"gemm_gflops": peaks}, "items": items})
    lines = missed(items)
    print("Targets missed:\n" + "\n".join(lines) if lines else "Every target measured was reached.")
    print(f"Written: {path.relative_to(harness.ROOT)}")
    return int(any("error" in e for i in items.values() for e in i.values() if isinstance(e, dict)))


def _warn(machine: dict[str, object]) -> None:
    """Say so when other work was running before the measurement."""
    load = machine["load_average"]
    if isinstance(load, float) and load > 0.5:
        print(f"Provisional: the load average was {load} before the start; measure when idle.\n")


if __name__ == "__main__":
    sys.exit(main())
