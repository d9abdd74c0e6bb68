"""Federations and runs of the study on what differential privacy costs: ``run.py`` says which.

Fashion-MNIST's 60,000 training pictures are split once: 50,000 belong to 10,000 invented clients,
5 each; 10,000 are public. Every setting, of runs with privacy and of those without, was chosen on
the public pictures (dealt out to 10,000 clients as well, so that noise and signal are as in the
real run; ``tune.py``), never on the clients' or the test pictures. The 10,000 test pictures are the
coordinator's hold-out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np

import anabranch as ab
from anabranch.data.federation import Examples, Federation
from anabranch.data.partition import IID, EqualDirichlet
from anabranch.data.sources.fashion import FashionMNIST
from anabranch.data.sources.rdata import read_columns
from anabranch.plan import plan_from
from anabranch.randomness import generator

__all__ = ["CLIENTS", "COHORT", "DELTA", "ROUNDS", "Settings", "federation", "outcome", "schools"]

CLIENTS, COHORT, ROUNDS, DELTA = 10_000, 100, 100, 1e-5
PUBLIC, CHECKED = 10_000, 2_000

Partition = Literal["iid", "dirichlet"]
People = Literal["clients", "public"]


@dataclass(frozen=True)
class Settings:
    """Everything that is tuned.

    Attributes:
        learning_rate: of local SGD.
        epochs: local passes over a client's five pictures, which are one batch.
        server: learning rate of the server, with momentum ``beta``.
        beta: 0 is plain averaging.
        clip: L2 norm of an update; None without privacy.
        schedule: of the server's rate: "constant", or "cosine", which falls to nothing: the last
            rounds, whose noise no later round can repair, then make the smallest steps.
    """

    learning_rate: float
    epochs: int = 1
    server: float = 1.0
    beta: float = 0.0
    clip: float | None = None
    schedule: str = "constant"


@lru_cache(maxsize=1)
def _pictures() -> tuple[Examples, Examples, Examples]:
    """The clients' pictures, the public ones, and the test pictures; features from 0 to 1."""
    pool = FashionMNIST().load(0)
    assert pool.holdout is not None
    x = np.asarray(pool.x, np.float32) * np.float32(pool.scale)
    order = generator(0, "public pictures").permutation(len(x))
    public, private = order[:PUBLIC], order[PUBLIC:]
    held = np.asarray(pool.holdout.x, np.float32) * np.float32(pool.scale)
    return (
        Examples(x[private], pool.y[private]),
        Examples(x[public], pool.y[public]),
        Examples(held, pool.holdout.y),
    )


@lru_cache(maxsize=4)
def federation(partition: Partition, seed: int, people: People = "clients") -> Federation:
    """10,000 clients: of the real run, or made of the public pictures for tuning."""
    clients, public, test = _pictures()
    if people == "public":
        # Each of 8,000 pictures is dealt out about six times; the other 2,000 are the hold-out.
        drawn = generator(seed, "tuning").integers(PUBLIC - CHECKED, size=len(clients))
        test = Examples(public.x[-CHECKED:], public.y[-CHECKED:])
        clients = Examples(public.x[drawn], public.y[drawn])
    rule = IID if partition == "iid" else partial(EqualDirichlet, alpha=0.3)
    made = rule(clients=CLIENTS, min_examples=1)
    owners = made.owners(np.asarray(clients.y), generator(seed, "partition"))
    order = np.argsort(owners, kind="stable")
    bounds = np.searchsorted(owners[order], np.arange(CLIENTS + 1))
    parts = {
        f"client-{i:05d}": (clients.x[rows], clients.y[rows])
        for i in range(CLIENTS)
        if len(rows := order[bounds[i] : bounds[i + 1]])
    }
    return replace(Federation.from_arrays(parts, holdout=(test.x, test.y)), classes=10)


@lru_cache(maxsize=1)
def schools() -> Federation:
    """Natural clients: pupils' chemistry grades in 2,410 English schools.

    A fifth of the schools is public and serves as the hold-out; the columns are scaled by their
    declared ranges, not by statistics of the schools.
    """
    names = ("school", "score", "gender", "age", "gcsescore")
    columns, _ = read_columns("mlmRev", "Chem97", "chem97", names)
    x = np.column_stack(
        [
            np.asarray(columns["gender"] == "M", np.float32) - 0.5,
            np.asarray(columns["age"], np.float32) / 12,
            np.asarray(columns["gcsescore"], np.float32) / 4 - 1.5,
        ]
    ).astype(np.float32)
    y = np.asarray(columns["score"], np.float32)
    keys = np.asarray(columns["school"], str)
    order = generator(0, "public schools").permutation(np.unique(keys))
    public = np.isin(keys, order[: len(order) // 5])
    parts = {str(key): (x[keys == key], y[keys == key]) for key in order[len(order) // 5 :]}
    return Federation.from_arrays(parts, holdout=(x[public], y[public]))


def mechanism(kind: str, clip: float) -> Mapping[str, object]:
    """The table ``[privacy.mechanism]``."""
    fixed = {"kind": "fixed", "norm": clip}
    if kind == "ftrl":
        return {"kind": "ftrl", "clip": fixed, "participations": 1}
    if kind == "poisson":
        return {"kind": "gaussian", "clip": fixed, "sampling": "poisson"}
    # Five colluding clients of a hundred and five dropouts are provided for.
    shares = {"corrupt_share": 0.05, "dropout_share": 0.05}
    return {"kind": "distributed", "clip": fixed, "sampling": "poisson", **shares}


def plan_of(
    settings: Settings,
    *,
    seed: int,
    kind: str = "",
    epsilon: float = 1.0,
    cohort: int = COHORT,
    model: str = "logistic",
    metric: str = "accuracy",
) -> ab.Plan:
    """The plan of one run; ``kind`` names the mechanism, empty for none."""
    rounds: dict[str, object] = {
        "count": ROUNDS,
        "cohort": cohort,
        "server_schedule": {"kind": settings.schedule},
    }
    table: dict[str, object] = {
        "name": "private",
        "seed": seed,
        "data": {"source": "arrays"},
        "model": {"name": model},
        "local": {
            "learning_rate": settings.learning_rate,
            "epochs": settings.epochs,
            "batch_size": 64,
        },
        "algorithm": {
            "name": "fedavgm",
            "beta": settings.beta,
            "server_learning_rate": settings.server * (1 - settings.beta),
        },
        "aggregation": {"weighting": {"kind": "uniform"}},
        "rounds": rounds,
        "evaluation": {"on": "holdout", "every": 0},
        "stop": {"metric": metric},
        "runtime": {"kind": "inline", "workers": 1},
    }
    if kind:
        assert settings.clip is not None
        table["privacy"] = {
            "epsilon": epsilon,
            "delta": DELTA,
            "population": "study",
            "mechanism": mechanism(kind, settings.clip),
        }
    if kind in ("poisson", "distributed"):
        table["selection"] = {"kind": "poisson"}
        rounds["quorum"] = 1
    if kind == "distributed":
        table["secure_aggregation"] = {"corrupt_share": 0.05, "dropout_share": 0.05}
    return plan_from(table)


def outcome(data: Federation, plan: ab.Plan) -> float:
    """The watched metric on the hold-out after the last round."""
    with TemporaryDirectory() as folder:
        run = ab.run_plan(plan, federation=data, store=Path(folder))
    return run.metrics[plan.stop.metric]
