"""What does differential privacy cost? Accuracy for several epsilons, beside a run without it.

    python examples/private/run.py            # every cell that is not in results.json yet
    python examples/private/run.py ftrl       # cells whose name contains a word
    python examples/private/run.py --picture  # draw the guide's curve from results.json
    python examples/private/run.py --table    # print the guide's table from results.json

The settings are those of ``tuning.json``, which ``tune.py`` chose on pictures that belong to no
client and to no test. A cell takes ten seconds of processor time; those with noise from the clients
run secure aggregation among 100 simulated clients for 100 rounds, and take eight to eleven minutes.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from study import CLIENTS, DELTA, Partition, Settings, federation, outcome, plan_of, schools

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
PICTURE = HERE.parents[1] / "docs" / "guide" / "private-curve.svg"
EPSILONS = (0.5, 1.0, 2.0, 4.0, 8.0)
PARTITIONS: tuple[Partition, ...] = ("iid", "dirichlet")

TUNING = HERE / "tuning.json"
# Not tuned: one pass, and a clip norm of one, a point of the grade.
SCHOOLS = Settings(learning_rate=0.3, epochs=1, clip=1.0)
SCHOOL_COHORT = 19


@cache
def tuned(partition: Partition, kind: str) -> Settings:
    """What ``tune.py`` chose on public pictures; at epsilon 1 with correlated noise for all noise.

    With label skew the search with fresh noise and coins ended at the same settings.
    """
    name = "ftrl" if kind else "none"
    return Settings(**json.loads(TUNING.read_text())[f"{partition}/{name}"]["settings"])


def cells() -> Iterator[tuple[str, Callable[[], float]]]:
    """Every run by name; another seed is another partition, other draws and other noise."""
    for partition in PARTITIONS:
        for seed in (0, 1, 2):
            end = f"/seed {seed}" if seed else ""
            yield f"{partition}/none{end}", pictures(partition, seed=seed)
            yield f"{partition}/ftrl/1{end}", pictures(partition, "ftrl", seed=seed)
            yield f"{partition}/poisson/1{end}", pictures(partition, "poisson", seed=seed)
            yield f"{partition}/distributed/1{end}", pictures(partition, "distributed", seed=seed)
        for epsilon in EPSILONS:
            yield f"{partition}/ftrl/{epsilon:g}", pictures(partition, "ftrl", epsilon=epsilon)
    yield "schools/none", grades("")
    for epsilon in EPSILONS:
        yield f"schools/ftrl/{epsilon:g}", grades("ftrl", epsilon)
    for seed in (1, 2):
        yield f"schools/ftrl/0.5/seed {seed}", grades("ftrl", 0.5, seed)
        yield f"schools/ftrl/1/seed {seed}", grades("ftrl", 1.0, seed)


def pictures(
    partition: Partition, kind: str = "", epsilon: float = 1.0, seed: int = 0
) -> Callable[[], float]:
    def work() -> float:
        plan = plan_of(tuned(partition, kind), seed=seed, kind=kind, epsilon=epsilon)
        return outcome(federation(partition, seed), plan)

    return work


def grades(kind: str, epsilon: float = 1.0, seed: int = 0) -> Callable[[], float]:
    def work() -> float:
        plan = plan_of(
            SCHOOLS,
            seed=seed,
            kind=kind,
            epsilon=epsilon,
            cohort=SCHOOL_COHORT,
            model="linear",
            metric="rmse",
        )
        return outcome(schools(), plan)

    return work


def load() -> dict[str, float]:
    return dict(json.loads(RESULTS.read_text())) if RESULTS.exists() else {}


def of_seeds(results: dict[str, float], name: str) -> list[float]:
    """A cell and its repetitions with other seeds."""
    names = (name, f"{name}/seed 1", f"{name}/seed 2")
    return [results[one] for one in names if one in results]


def table(results: dict[str, float]) -> str:
    """The guide's table: means in percent, their share of the runs without, and how many runs."""
    lines = ["| | " + " | ".join(("without", *(f"{e:g}" for e in EPSILONS))) + " |"]
    lines.append("|" + "---|" * (len(EPSILONS) + 2))
    for partition in PARTITIONS:
        plain = of_seeds(results, f"{partition}/none")
        base = sum(plain) / len(plain) if plain else float("nan")
        for kind in ("ftrl", "poisson", "distributed"):
            cells = [f"{100 * base:.1f} [{len(plain)}]" if kind == "ftrl" else ""]
            for epsilon in EPSILONS:
                found = of_seeds(results, f"{partition}/{kind}/{epsilon:g}")
                mean = sum(found) / len(found) if found else 0.0
                text = f"{100 * mean:.1f} ({100 * mean / base:.1f} %) [{len(found)}]"
                cells.append(text if found else "")
            lines.append(f"| {partition}, {kind} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def picture(results: dict[str, float]) -> None:
    """Accuracy over epsilon for both partitions, with the line to beat and 95 % of it."""
    figure, axes = plt.subplots(figsize=(6.4, 4.0))
    for partition, colour in zip(PARTITIONS, ("#1b6ca8", "#c1571a"), strict=True):
        names = {e: f"{partition}/ftrl/{e:g}" for e in EPSILONS}
        curve = [(e, results[name]) for e, name in names.items() if name in results]
        axes.plot(*zip(*curve, strict=True), "o-", color=colour, label=f"{partition}: DP-FTRL")
        for kind, mark in (("poisson", "s"), ("distributed", "^")):
            value = results.get(f"{partition}/{kind}/1")
            if value is not None:
                axes.plot(1.0, value, mark, color=colour, mfc="none", label=f"{partition}: {kind}")
        plain = results.get(f"{partition}/none", float("nan"))
        axes.axhline(plain, color=colour, lw=1, ls="--", label=f"{partition}: without privacy")
        axes.axhline(0.95 * plain, color=colour, lw=0.6, ls=":")
    axes.set_xscale("log", base=2)
    axes.set_xticks(EPSILONS, [f"{e:g}" for e in EPSILONS])
    axes.set_xlabel(f"epsilon (client-level, delta {DELTA:g}, {CLIENTS:,} invented clients)")
    axes.set_ylabel("accuracy on 10,000 test pictures")
    axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(PICTURE, metadata={"Date": None})


def main(words: list[str]) -> None:
    results = load()
    if "--picture" in words:
        picture(results)
        return
    if "--table" in words:
        print(table(results))
        return
    for name, work in cells():
        if name in results or (words and not any(word in name for word in words)):
            continue
        started = time.perf_counter()
        value = work()
        results = {**load(), name: round(value, 5)}  # other processes may have added cells
        RESULTS.write_text(json.dumps(dict(sorted(results.items())), indent=1) + "\n")
        print(f"{name}: {value:.4f} in {time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
