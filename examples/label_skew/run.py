"""Which algorithm copes with label skew? Paired runs over several seeds, one table.

    python examples/label_skew/run.py --seeds 5

The settings of every algorithm were fixed before the reported seeds (0-4) were run. A score is the
mean accuracy of the last five rounds; the error is the standard error over seeds; the difference to
FedAvg is paired, because a seed fixes partition, cohorts, initial weights and batches for all.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import anabranch as ab
from anabranch.plan import changed

HERE = Path(__file__).parent
ALGORITHMS: dict[str, dict[str, object]] = {
    "FedAvg": {"name": "fedavg"},
    "FedProx 0.01": {"name": "fedprox", "mu": 0.01},
    "SCAFFOLD": {"name": "scaffold"},
    "FedNova": {"name": "fednova"},
    "FedAvgM": {"name": "fedavgm", "beta": 0.9, "server_learning_rate": 0.1},
    "FedAdagrad": {"name": "fedadagrad", "server_learning_rate": 0.03},
    "FedAdam": {"name": "fedadam", "server_learning_rate": 0.01},
    "FedYogi": {"name": "fedyogi", "server_learning_rate": 0.01},
    "FedDyn": {"name": "feddyn", "alpha": 0.1},
    "FedExP": {"name": "fedexp"},
}


@dataclass(frozen=True)
class Score:
    """One run: mean accuracy of the last five rounds, and the round that reached 80 %."""

    seed: int
    accuracy: float
    rounds_to_80: int | None
    seconds: float


def one(algorithm: Mapping[str, object], seed: int, rounds: int, store: Path) -> Score:
    """Run one algorithm with one seed."""
    plan = ab.load_plan(HERE / "plan.toml")
    plan = changed(plan, {"algorithm": algorithm, "seed": seed, "rounds.count": rounds})
    run = ab.run_plan(plan, store=store)
    curve = [r.metrics["accuracy"] for r in run.history if "accuracy" in r.metrics]
    return Score(seed, mean(curve[-5:]), first_of_five(curve, 0.8), run.seconds)


def first_of_five(curve: Sequence[float], target: float) -> int | None:
    """The first round whose mean with the four before it reaches ``target``."""
    for end in range(5, len(curve) + 1):
        if mean(curve[end - 5 : end]) >= target:
            return end
    return None


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def error(values: Sequence[float]) -> float:
    """Standard error of the mean."""
    centre = mean(values)
    if len(values) < 2:
        return math.nan
    variance = sum((value - centre) ** 2 for value in values) / (len(values) - 1)
    return math.sqrt(variance / len(values))


def row(name: str, scores: Sequence[Score], baseline: Sequence[Score]) -> str:
    values = [100 * score.accuracy for score in scores]
    gains = [100 * (s.accuracy - b.accuracy) for s, b in zip(scores, baseline, strict=True)]
    reached = [str(score.rounds_to_80 or "-") for score in scores]
    return (
        f"{name:14} {mean(values):6.2f} +- {error(values):4.2f}   "
        f"{mean(gains):+6.2f} +- {error(gains):4.2f}   {' '.join(f'{r:>3}' for r in reached)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--only", nargs="*", default=list(ALGORITHMS))
    parser.add_argument("--store", type=Path, default=Path("runs"))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    scores: dict[str, list[Score]] = {}
    print(f"{'algorithm':14} accuracy, last 5   against FedAvg     rounds to 80 % by seed")
    for name in arguments.only:
        settings = ALGORITHMS[name]
        scores[name] = [one(settings, s, arguments.rounds, arguments.store) for s in seeds]
        print(row(name, scores[name], scores[arguments.only[0]]), flush=True)
    if arguments.json is not None:
        found = {name: [asdict(score) for score in runs] for name, runs in scores.items()}
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
