"""Four ways to be non-IID, four algorithms: the shape of NIID-Bench (Li et al. 2022) in small.

    python examples/niid_shapes/run.py

Ten clients share Fashion-MNIST and all take part in every round; the model is an MLP 784-200-10,
two local epochs, batch 64, 30 rounds. What to look for: with IID data the algorithms agree; label
skew costs everybody; with one label a client plain averaging falls far behind.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import anabranch as ab
from anabranch.plan import changed

HERE = Path(__file__).parent
PARTITIONS: dict[str, dict[str, object]] = {
    "IID": {"kind": "iid", "clients": 10},
    "Dirichlet(0.5)": {"kind": "dirichlet", "clients": 10, "alpha": 0.5},
    "2 labels": {"kind": "labels", "clients": 10, "k": 2},
    "1 label": {"kind": "labels", "clients": 10, "k": 1},
}
ALGORITHMS: dict[str, dict[str, object]] = {
    "FedAvg": {"name": "fedavg"},
    "FedProx 0.01": {"name": "fedprox", "mu": 0.01},
    "SCAFFOLD": {"name": "scaffold"},
    "FedNova": {"name": "fednova"},
}


def accuracy(partition: str, algorithm: str, seed: int, rounds: int, store: Path) -> float:
    """Per cent of the test pictures after the last round."""
    plan = changed(
        ab.load_plan(HERE / "plan.toml"),
        {
            "data.partition": PARTITIONS[partition],
            "algorithm": ALGORITHMS[algorithm],
            "seed": seed,
            "rounds.count": rounds,
        },
    )
    return 100 * ab.run_plan(plan, store=store).metrics["accuracy"]


def cell(values: list[float]) -> str:
    """Mean and standard error."""
    mean = sum(values) / len(values)
    if len(values) == 1:
        return f"{mean:6.1f}       "
    spread = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values))
    return f"{mean:6.1f} +- {spread:3.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--store", type=Path, default=Path("runs"))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found: dict[str, dict[str, list[float]]] = {}
    print(f"{'':16}" + "".join(f"{name:>15}" for name in ALGORITHMS))
    for partition in PARTITIONS:
        found[partition] = {
            algorithm: [
                accuracy(partition, algorithm, seed, arguments.rounds, arguments.store)
                for seed in range(arguments.seeds)
            ]
            for algorithm in ALGORITHMS
        }
        cells = "".join(f"{cell(values):>15}" for values in found[partition].values())
        print(f"{partition:16}{cells}", flush=True)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
