"""Anabranch: a federated-learning coordinator. One plan, simulated or deployed.

>>> import anabranch as ab
>>> ab.FedProx(mu=0.01).mu
0.01
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anabranch.algorithms import (
        Algorithm,
        FedAdagrad,
        FedAdam,
        FedAvg,
        FedAvgM,
        FedDyn,
        FedExP,
        FedNova,
        FedProx,
        FedYogi,
        Scaffold,
    )
    from anabranch.api import Run, resume, run_plan, simulate
    from anabranch.coordinator.store import Store
    from anabranch.data import Federation
    from anabranch.errors import AnabranchError
    from anabranch.learners import SGD, Adam, LocalTraining
    from anabranch.learners.plan import ModelPlan
    from anabranch.plan import Plan, load_plan
    from anabranch.updates import Clip

_HOMES = {
    "anabranch.algorithms": (
        "Scaffold",
        "Algorithm",
        "FedAdagrad",
        "FedAdam",
        "FedAvg",
        "FedAvgM",
        "FedDyn",
        "FedExP",
        "FedNova",
        "FedProx",
        "FedYogi",
    ),
    "anabranch.api": ("Run", "resume", "run_plan", "simulate"),
    "anabranch.coordinator.store": ("Store",),
    "anabranch.data": ("Federation",),
    "anabranch.errors": ("AnabranchError",),
    "anabranch.learners": ("SGD", "Adam", "LocalTraining"),
    "anabranch.learners.plan": ("ModelPlan",),
    "anabranch.plan": ("Plan", "load_plan"),
    "anabranch.updates": ("Clip",),
}

__all__ = [
    "Scaffold",
    "SGD",
    "Adam",
    "Algorithm",
    "AnabranchError",
    "Clip",
    "FedAdagrad",
    "FedAdam",
    "FedAvg",
    "FedAvgM",
    "FedDyn",
    "FedExP",
    "FedNova",
    "FedProx",
    "FedYogi",
    "Federation",
    "LocalTraining",
    "ModelPlan",
    "Plan",
    "Run",
    "Store",
    "load_plan",
    "resume",
    "run_plan",
    "simulate",
]


def __getattr__(name: str) -> object:
    # Names are imported when they are first used, so that the command line starts quickly.
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module 'anabranch' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
