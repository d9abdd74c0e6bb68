"""Four real hospitals: what does each of them get from learning together?

    python examples/heart/run.py --seeds 10

The plan is the one that `anabranch demo` runs. Every seed is another split of the patients (two
thirds for training, stratified by diagnosis, inside each hospital). Differences are paired: the
same split, the same initial model. Intervals are 95 % bootstrap intervals of the mean over seeds.
The settings were chosen on seeds 100-114 and fixed before seeds 0-9 were run.

Rows: *federated* (FedAvg), *personalised* (the federated model after some more steps at home),
*local only*, *pooled* (one model on everybody's patients), *without them* (FedAvg of the three
other hospitals, measured on all patients of the fourth; feature scaling still saw its training
rows).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np

import anabranch as ab
from anabranch.aggregation import Accumulator, FoldPlan
from anabranch.algorithms import Correction
from anabranch.api import Run
from anabranch.data import Examples, Federation, leave_one_client_out, load_federation
from anabranch.learners import LocalTraining, TrainingJob
from anabranch.learners.metrics import MetricSet
from anabranch.observe.intervals import bootstrap_mean
from anabranch.plan import Plan, changed, parse_plan

PERSONAL = LocalTraining(steps=10, batch_size=0, learning_rate=0.2)
ROWS = ("federated", "personalised", "local only", "pooled", "without them")
Table = dict[str, dict[str, list[float]]]


def auc(run: Run, vector: np.ndarray, data: Examples) -> float:
    """Area under the ROC curve of one model on some patients."""
    metrics = MetricSet.of(2)
    sums = Accumulator(FoldPlan(metrics.sections(), capacity=1))
    sums.add(metrics.measure(run.learner.predict(vector, data.x), data.y), "hospital")
    return metrics.summary(sums.total())["auc"]


def personalised(run: Run, data: Examples, client: str) -> np.ndarray:
    """The federated model after a few more steps at home."""
    rng = np.random.default_rng(0)  # a full batch has no order: nothing is drawn from it
    job = TrainingJob(PERSONAL, PERSONAL.learning_rate, Correction(), rng, 0, client)
    return run.learner.train(run.vector, data, job).end


def one(plan: Plan, store: Path, table: Table) -> None:
    """Add one seed's AUCs to the table."""
    federation = load_federation(plan.data, plan.seed).federation
    run = ab.run_plan(plan, store=store)
    baselines = {baseline.name: baseline.clients for baseline in run.baselines}
    alone = changed(plan, {"evaluation.baselines": []})
    for name, others, everything in leave_one_client_out(federation):
        client = federation.names.index(name)
        assert federation.test is not None
        train, test = federation.train.of(client), federation.test.of(client)
        found = {
            "federated": run.clients[name]["auc"],
            "personalised": auc(run, personalised(run, train, name), test),
            "local only": baselines["local_only"][name]["auc"],
            "pooled": baselines["pooled"][name]["auc"],
            "without them": without(alone, others, everything, store),
        }
        for row, value in found.items():
            table[row].setdefault(name, []).append(value)


def without(plan: Plan, others: Federation, everything: Examples, store: Path) -> float:
    """AUC at a hospital that took no part."""
    run = ab.run_plan(plan, federation=others, store=store)
    return auc(run, run.vector, everything)


def cell(values: Sequence[float], signed: bool = False) -> str:
    estimate = bootstrap_mean(values)
    sign = "+" if signed else ""
    return f"{estimate.mean:{sign}.3f} [{estimate.low:{sign}.3f}, {estimate.high:{sign}.3f}]"


def print_table(table: Table) -> None:
    hospitals = list(table["federated"])
    print(f"{'AUC':24}" + "".join(f"{name:>26}" for name in [*hospitals, "mean"]))
    for row in ROWS:
        print(f"{row:24}" + "".join(f"{cell(v):>26}" for v in with_mean(table[row])))
    for row in ("local only", "pooled"):
        gains = [
            [ours - other for ours, other in zip(ours_all, other_all, strict=True)]
            for ours_all, other_all in zip(
                with_mean(table["federated"]), with_mean(table[row]), strict=True
            )
        ]
        print(f"{'federated - ' + row:24}" + "".join(f"{cell(g, True):>26}" for g in gains))


def with_mean(row: dict[str, list[float]]) -> list[list[float]]:
    """The hospitals' values and, seed by seed, their mean."""
    columns = list(row.values())
    return [*columns, [float(np.mean(values)) for values in zip(*columns, strict=True)]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--store", type=Path, default=Path("runs"))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    text = (files("anabranch.plan") / "examples" / "silo.toml").read_text(encoding="utf-8")
    plan = changed(parse_plan(text), {"evaluation.baselines": ["local-only", "pooled"]})
    table: Table = {row: {} for row in ROWS}
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        one(changed(plan, {"seed": seed, "evaluation.every": 0}), arguments.store, table)
    print_table(table)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
