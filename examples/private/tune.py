"""Choose the settings of the study on pictures that belong to no client: writes ``tuning.json``.

    python examples/private/tune.py               # every grid
    python examples/private/tune.py dirichlet     # grids whose name contains a word

The 10,000 public pictures alone are used: 8,000 are dealt out to 10,000 invented clients, 2,000 are
the hold-out. Runs without privacy and runs with it go through the same search: every setting of a
grid with one seed, then the best four with three other seeds; the best mean over the three wins.
The test pictures and the clients' pictures play no part, so nothing here is a release.

Thousands of rounds are needed, so the arithmetic of a round is done for the whole cohort at once,
with noise from NumPy. That is enough to choose by; the runs that are published are Anabranch's.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from study import CLIENTS, COHORT, DELTA, ROUNDS, Partition, Settings, federation

from anabranch.privacy.accounting import calibrate, exact_noise
from anabranch.privacy.accounting.ftrl import sqrt_coefficients
from anabranch.privacy.events import GaussianEvent, PoissonSampling, Relation

TUNING = Path(__file__).parent / "tuning.json"
KINDS = ("none", "ftrl", "poisson")
PARTITIONS: tuple[Partition, ...] = ("iid", "dirichlet")
FINALISTS, SEEDS = 4, (1, 2, 3)

Floats = NDArray[np.float32]


def grid(kind: str) -> Iterator[Settings]:
    """The settings that are tried; the same for both partitions."""
    schedules = ("constant", "cosine")
    if kind == "none":
        rates, epochs, betas = (0.1, 0.3, 1.0), (5, 20), (0.0, 0.9)
        for rate, count, beta, schedule in itertools.product(rates, epochs, betas, schedules):
            yield Settings(rate, count, beta=beta, schedule=schedule)
        return
    # Clip times server rate sets the noise; with so small a clip most updates are shortened.
    clip, rates, servers = 0.1, (0.03, 0.1, 0.3), (6.0, 12.0, 24.0)
    for rate, server, schedule in itertools.product(rates, servers, schedules):
        yield Settings(rate, 5, server, clip=clip, schedule=schedule)


@lru_cache(maxsize=2)
def people(partition: Partition, seed: int) -> tuple[Floats, NDArray[np.int64], Floats, NDArray]:
    """Pictures and labels by client (10,000 x 5), and the public hold-out."""
    made = federation(partition, seed, "public")
    x = np.asarray(made.train.x, np.float32).reshape(CLIENTS, -1, made.train.x.shape[1])
    y = np.asarray(made.train.y, np.int64).reshape(CLIENTS, -1)
    if not (made.train.counts == x.shape[1]).all() or made.holdout is None:
        raise ValueError("the clients have different numbers of pictures")
    return x, y, np.asarray(made.holdout.x, np.float32), np.asarray(made.holdout.y)


@lru_cache(maxsize=4)
def deviations(kind: str, epsilon: float) -> float:
    """Standard deviation of a round's independent noise, in clip norms."""
    if kind == "ftrl":
        return exact_noise(epsilon, DELTA) * float(np.linalg.norm(sqrt_coefficients(ROUNDS)))
    sampling = PoissonSampling(COHORT / CLIENTS)
    event = GaussianEvent(1.0, sampling=sampling, rounds=ROUNDS, relation=Relation.ADD_OR_REMOVE)
    return calibrate(event, epsilon, DELTA).noise_multiplier


def noises(kind: str, dim: int, random: np.random.Generator, epsilon: float) -> Floats:
    """What is added to the sum of each round, in clip norms."""
    if kind == "none":
        return np.zeros((ROUNDS, dim), np.float32)
    drawn = random.standard_normal((ROUNDS, dim), np.float32) * np.float32(
        deviations(kind, epsilon)
    )
    if kind == "ftrl":
        coefficients = sqrt_coefficients(ROUNDS).astype(np.float32)
        for row in range(1, ROUNDS):
            drawn[row] -= coefficients[row:0:-1] @ drawn[:row]
    return drawn


def cohorts(kind: str, random: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Who takes part: independent coins, or everybody in turn."""
    order = random.permutation(CLIENTS)
    for number in range(ROUNDS):
        if kind == "poisson":
            yield np.flatnonzero(random.random(CLIENTS) < COHORT / CLIENTS)
        elif kind == "ftrl":
            yield order[number * COHORT : (number + 1) * COHORT]
        else:
            yield random.choice(CLIENTS, COHORT, replace=False)


def local_updates(w: Floats, x: Floats, y: Floats, settings: Settings) -> Floats:
    """What each client of a cohort changes: gradient steps on its one batch; (clients, dim)."""
    own = np.repeat(w[None], len(x), axis=0)
    for _ in range(settings.epochs):
        scores = x @ own
        scores -= scores.max(axis=2, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=2, keepdims=True)
        scores -= y
        own -= (settings.learning_rate / x.shape[1]) * (x.transpose(0, 2, 1) @ scores)
    return (own - w).reshape(len(x), -1)


def accuracy(
    partition: Partition, kind: str, settings: Settings, seed: int, epsilon: float = 1.0
) -> float:
    """On the public hold-out, after the last round."""
    x, y, held, labels = people(partition, seed)
    ones = np.ones((*x.shape[:2], 1), np.float32)
    random = np.random.default_rng(seed)
    w = np.zeros((x.shape[2] + 1, 10), np.float32)
    noise = noises(kind, w.size, random, epsilon)
    momentum = np.zeros(w.size, np.float32)
    for number, chosen in enumerate(cohorts(kind, random)):
        inputs = np.concatenate([x[chosen], ones[chosen]], axis=2)
        deltas = local_updates(w, inputs, np.eye(10, dtype=np.float32)[y[chosen]], settings)
        if settings.clip is not None:
            norms = np.linalg.norm(deltas, axis=1, keepdims=True)
            deltas *= np.minimum(1, settings.clip / np.maximum(norms, 1e-12))
        total = deltas.sum(axis=0) + np.float32(settings.clip or 0) * noise[number]
        momentum = settings.beta * momentum + total / COHORT
        cosine = 0.5 * (1 + math.cos(math.pi * number / (ROUNDS - 1)))
        factor = cosine if settings.schedule == "cosine" else 1.0
        step = settings.server * (1 - settings.beta) * factor
        w = w + np.float32(step) * momentum.reshape(w.shape)
    return float((np.argmax(held @ w[:-1] + w[-1], axis=1) == labels).mean())


def search(partition: Partition, kind: str) -> dict[str, object]:
    """The best setting of a grid, with what it was chosen by."""
    tried = list(grid(kind))
    first = {one: accuracy(partition, kind, one, 0) for one in tried}
    best = sorted(tried, key=lambda one: -first[one])[:FINALISTS]
    scores: dict[Settings, list[float]] = {one: [] for one in best}
    for seed in SEEDS:
        for one in best:
            scores[one].append(accuracy(partition, kind, one, seed))
    means = {one: float(np.mean(found)) for one, found in scores.items()}
    chosen = max(best, key=lambda one: means[one])
    print(sorted((value, str(one)) for one, value in first.items()), means, flush=True)
    return {
        "settings": asdict(chosen),
        "public_accuracy": round(means[chosen], 4),
        "by_seed": [round(value, 4) for value in scores[chosen]],
        "runner_up": round(sorted(means.values())[-2], 4),
        "tried": len(tried),
    }


def main(words: list[str]) -> None:
    found = dict(json.loads(TUNING.read_text())) if TUNING.exists() else {}
    for partition, kind in itertools.product(PARTITIONS, KINDS):
        name = f"{partition}/{kind}"
        if words and not any(word in name for word in words):
            continue
        result = search(partition, kind)
        found = {**(json.loads(TUNING.read_text()) if TUNING.exists() else {}), name: result}
        TUNING.write_text(json.dumps(dict(sorted(found.items())), indent=1) + "\n")
        print(name, result, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
