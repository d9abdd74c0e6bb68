"""Federated algorithms: frozen values with pure functions, one file each, paper in the docstring.

`ALGORITHMS` names those that are built in; `algorithm_named` makes one from a plan's table, also
one of your own as ``module:Class``.
"""

from anabranch.algorithms.base import (
    Algorithm,
    Broadcast,
    ClientMemory,
    Correction,
    LocalWork,
    Requirement,
    RoundContext,
    SectionValues,
    ServerState,
    elementwise,
)
from anabranch.algorithms.fedavg import FedAvg
from anabranch.algorithms.fedavgm import FedAvgM
from anabranch.algorithms.feddyn import FedDyn
from anabranch.algorithms.fedexp import FedExP
from anabranch.algorithms.fednova import FedNova
from anabranch.algorithms.fedopt import FedAdagrad, FedAdam, FedYogi
from anabranch.algorithms.fedprox import FedProx
from anabranch.algorithms.registry import ALGORITHMS, algorithm_class, algorithm_named
from anabranch.algorithms.scaffold import Scaffold

__all__ = [
    "ALGORITHMS",
    "Algorithm",
    "Broadcast",
    "ClientMemory",
    "Correction",
    "FedAdagrad",
    "FedAdam",
    "FedAvg",
    "FedAvgM",
    "FedDyn",
    "FedExP",
    "FedNova",
    "FedProx",
    "FedYogi",
    "LocalWork",
    "Requirement",
    "RoundContext",
    "Scaffold",
    "SectionValues",
    "ServerState",
    "algorithm_class",
    "algorithm_named",
    "elementwise",
]
