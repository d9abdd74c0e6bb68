"""Five targets at once on simulated phones: run the plans, note what was measured.

    python examples/global-south/pooled.py            # first: the targets, from pooled training
    python examples/global-south/run.py private whole --seeds 3
    python examples/global-south/run.py --table       # the table of docs/examples.md

Every run is kept in a store of its own (`anabranch report --store` draws it): a seed draws other
people, and the ledger of a store lets the same people's epsilon be spent only once. `results.json`
keeps the figures. The exit code is 3 when a run misses a limit of its plan.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pooled import FOUND, find_models

import anabranch as ab
from anabranch.coordinator.store import Store
from anabranch.coordinator.tally import gini
from anabranch.observe.reading import read_run
from anabranch.observe.view import RunView
from anabranch.plan import changed

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
PLANS = ("private", "whole")
Figures = dict[str, float]


@dataclass(frozen=True)
class Row:
    """One line of the table: what it says, the figure's name, a factor, digits."""

    words: str
    name: str
    factor: float = 1.0
    digits: int = 1


ROWS = (
    Row("rounds to the target", "rounds_to_target", digits=0),
    Row("accuracy after the last round, %", "accuracy", 100),
    Row("largest update, kB", "largest_update", 1e-3),
    Row("largest download, kB", "largest_download", 1e-3, 0),
    Row("participation, % of the admitted tasks", "participation", 100),
    Row("mean completeness, %", "completeness", 100),
    Row("Gini coefficient of merged updates", "gini", digits=2),
    Row("admitted, % of the phones that were there", "admitted", 100),
    Row("largest share of a battery, %", "largest_share", 100, 2),
    Row("median share of a battery, %", "median_share", 100, 3),
    Row("epsilon a client (delta 1e-5)", "epsilon", digits=2),
    Row("virtual hours", "virtual_hours"),
)


def figures(view: RunView, epsilon: float, clients: int) -> Figures:
    """What a run showed, from the records of its rounds."""
    tasks = [task for r in view.rounds for task in r.tasks]
    merged = [task for task in tasks if task.fate.startswith("merged")]
    checks = {check.name: check.measured for check in view.limits}
    shares = sorted(t.trace.share for t in tasks if not math.isnan(t.trace.share))
    virtual = view.rounds[-1].virtual or math.nan
    choices = [r.choices for r in view.rounds]
    return {
        "rounds": float(len(view.rounds)),
        "rounds_to_target": _number(checks.get("rounds_to_target")),
        "accuracy": _last(view),
        "largest_update": _number(checks.get("max_update_bytes")),
        "largest_download": float(max(task.trace.bytes_down for task in tasks)),
        "participation": len(merged) / len(tasks),
        "completeness": _number(checks.get("min_completeness")),
        "gini": _gini([task.client for task in merged], clients),
        "admitted": _admitted(choices),
        "tasks": float(len(tasks)),
        "largest_share": shares[-1],
        "median_share": shares[len(shares) // 2],
        "epsilon": epsilon,
        "virtual_hours": virtual / 3600,
        "met": float(all(check.met for check in view.limits)),
    }


def _gini(names: Sequence[str], clients: int) -> float:
    counts = np.zeros(clients)
    found = sorted(Counter(names).values())
    counts[: len(found)] = found
    return gini(counts)


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _last(view: RunView) -> float:
    measured = [r.evaluation.metrics for r in view.rounds if r.evaluation is not None]
    return float(measured[-1]["accuracy"])


def _admitted(choices: Sequence[Mapping[str, int]]) -> float:
    """Of the phones that were there, and had not given all that they may, the share let through."""
    away = {"not available", "has an open task", "has taken part as often as it may"}
    through = {"selected", "eligible, not drawn"}
    there = sum(n for c in choices for words, n in c.items() if words not in away)
    return sum(n for c in choices for words, n in c.items() if words in through) / there


def one(name: str, seed: int, store: Path) -> Figures:
    """Run a plan with one seed."""
    plan = changed(ab.load_plan(HERE / f"{name}.toml"), {"seed": seed})
    target = json.loads(FOUND.read_text(encoding="utf-8"))[name]["target"]
    if plan.stop.target != target:
        raise SystemExit(f"{name}.toml aims at {plan.stop.target}, pooled.json says {target}")
    run = ab.run_plan(plan, store=store)
    with Store.open(store) as opened:
        view = read_run(opened, run.id)
    for check in view.limits:
        word = "met" if check.met else "MISSED"
        print(f"  {word} {check.name}: {check.wanted}, measured {check.measured} {check.beside}")
    epsilon = plan.privacy.epsilon if plan.privacy is not None else math.nan
    return figures(view, epsilon, int(getattr(plan.data.partition, "clients", view.clients)))


def table(results: Mapping[str, Figures]) -> str:
    """Mean and range over the seeds of each plan, as Markdown."""
    runs = {n: [f for key, f in results.items() if key.startswith(f"{n}/")] for n in PLANS}
    runs = {name: found for name, found in runs.items() if found}
    heads = [f"{name}.toml, {len(found)} seeds" for name, found in runs.items()]
    lines = [f"| | {' | '.join(heads)} |", "|---" * (len(runs) + 1) + "|"]
    for row in ROWS:
        cells = [_cell([f.get(row.name, math.nan) for f in found], row) for found in runs.values()]
        lines.append(f"| {row.words} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(values: Sequence[float], row: Row) -> str:
    known = [row.factor * value for value in values if not math.isnan(value)]
    if not known:
        return "–"
    texts = [f"{value:,.{row.digits}f}" for value in (sum(known) / len(known), *known)]
    missed = "" if len(known) == len(values) else f", {len(values) - len(known)} not reached"
    low, high = f"{min(known):,.{row.digits}f}", f"{max(known):,.{row.digits}f}"
    return texts[0] + (f" ({low} to {high})" if low != high else "") + missed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("plans", nargs="*", choices=[[], *PLANS], help="private, whole, or both")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--store", type=Path, default=Path("runs"), help="folder of the stores")
    parser.add_argument("--table", action="store_true", help="print the table and stop")
    given = parser.parse_args()
    results: dict[str, Figures] = {}
    if RESULTS.exists():
        results = json.loads(RESULTS.read_text(encoding="utf-8"))
    if given.table:
        print(table(results))
        return 0
    find_models()
    names, met = given.plans or PLANS, True
    seeds = range(given.first, given.first + given.seeds)
    for name, seed in ((name, seed) for name in names for seed in seeds):
        print(f"{name}, seed {seed}", flush=True)
        found = one(name, seed, given.store / f"{name}-{seed}")
        met = met and bool(found["met"])
        if RESULTS.exists():  # another process may have added runs
            results = json.loads(RESULTS.read_text(encoding="utf-8"))
        known = {key: round(n, 6) for key, n in found.items() if not math.isnan(n)}
        results[f"{name}/{seed}"] = known
        text = json.dumps(dict(sorted(results.items())), indent=1)
        RESULTS.write_text(text + "\n", encoding="utf-8")
    print(table(results))
    return 0 if met else 3


if __name__ == "__main__":
    sys.exit(main())
