"""Every built-in algorithm passes the public contract suite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from anabranch.algorithms import (
    ALGORITHMS,
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
from anabranch.testing import AlgorithmContract


class TestFedAvg(AlgorithmContract):
    def algorithm(self) -> Algorithm:
        return FedAvg(server_learning_rate=0.7)


class TestFedProx(AlgorithmContract):
    def algorithm(self) -> Algorithm:
        return FedProx(mu=0.1)


class TestScaffold(AlgorithmContract):
    means: ClassVar[Mapping[str, str]] = {"control": "control"}

    def algorithm(self) -> Algorithm:
        return Scaffold()


class TestFedNova(AlgorithmContract):
    def algorithm(self) -> Algorithm:
        return FedNova(mu=0.01)


class TestFedAvgM(AlgorithmContract):
    def algorithm(self) -> Algorithm:
        return FedAvgM()


class TestFedAdagrad(AlgorithmContract):
    def algorithm(self) -> Algorithm:
        return FedAdagrad(beta1=0.5)


class TestFedAdam(AlgorithmContract):
    def algorithm(self) -> Algorithm:
        return FedAdam()


class TestFedYogi(AlgorithmContract):
    def algorithm(self) -> Algorithm:
        return FedYogi()


class TestFedDyn(AlgorithmContract):
    means: ClassVar[Mapping[str, str]] = {"gradient": "gradient"}

    def algorithm(self) -> Algorithm:
        return FedDyn()


class TestFedExP(AlgorithmContract):
    def algorithm(self) -> Algorithm:
        return FedExP()


def test_every_algorithm_is_here() -> None:
    tested = {
        suite().algorithm().name
        for suite in globals().values()
        if isinstance(suite, type)
        and issubclass(suite, AlgorithmContract)
        and suite.__module__ == __name__
    }
    assert tested == set(ALGORITHMS)
