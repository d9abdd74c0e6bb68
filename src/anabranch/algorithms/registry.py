"""Algorithms by name, as a plan's table ``[algorithm]`` gives them."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from types import MappingProxyType

from pydantic import ValidationError

from anabranch.algorithms.base import Algorithm
from anabranch.algorithms.fedavg import FedAvg
from anabranch.algorithms.fedavgm import FedAvgM
from anabranch.algorithms.feddyn import FedDyn
from anabranch.algorithms.fedexp import FedExP
from anabranch.algorithms.fednova import FedNova
from anabranch.algorithms.fedopt import FedAdagrad, FedAdam, FedYogi
from anabranch.algorithms.fedprox import FedProx
from anabranch.algorithms.scaffold import Scaffold
from anabranch.errors import AnabranchError
from anabranch.named import load_named

__all__ = ["ALGORITHMS", "algorithm_class", "algorithm_named"]

ALGORITHMS: Mapping[str, type[Algorithm]] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            FedAvg,
            FedProx,
            Scaffold,
            FedNova,
            FedAvgM,
            FedAdagrad,
            FedAdam,
            FedYogi,
            FedDyn,
            FedExP,
        )
    }
)
"""The built-in algorithms."""


def algorithm_class(name: str) -> type[Algorithm]:
    """The class that a plan names: a built-in algorithm or ``module:Class``.

    Raises:
        AnabranchError: AB-420 when no built-in has this name or the class is not an `Algorithm`,
            AB-421 when ``module:Class`` cannot be imported.

    >>> algorithm_class("fedprox").__name__
    'FedProx'
    """
    if name in ALGORITHMS:
        return ALGORITHMS[name]
    if ":" in name:
        found = load_named(name)
        if isinstance(found, type) and issubclass(found, Algorithm):
            return found
        raise AnabranchError(
            "AB-420",
            f"{name!r} is not a subclass of anabranch.algorithms.Algorithm.",
            fix="name a class that derives from Algorithm, as 'module:Class'.",
        )
    close = _closest(name.lower(), ALGORITHMS)
    raise AnabranchError(
        "AB-420",
        f"there is no algorithm {name!r}." + (f" Did you mean {close!r}?" if close else ""),
        fix=f"use one of {', '.join(ALGORITHMS)}, or 'module:Class' for your own.",
    )


def algorithm_named(name: str, parameters: Mapping[str, object]) -> Algorithm:
    """The algorithm of a plan.

    Args:
        name: a built-in name or ``module:Class``.
        parameters: the algorithm's fields; left out ones take their defaults.

    Raises:
        AnabranchError: AB-420 and AB-421 as `algorithm_class`, AB-422 when a parameter is unknown
            or its value is outside its range.

    >>> algorithm_named("fedprox", {"mu": 0.1})
    FedProx(server_learning_rate=1.0, mu=0.1)
    """
    kind = algorithm_class(name)
    try:
        return kind.model_validate(dict(parameters))
    except ValidationError as error:
        problems = "; ".join(
            _problem(kind, ".".join(map(str, detail["loc"])), detail["type"], detail["msg"])
            for detail in error.errors()
        )
        raise AnabranchError(
            "AB-422",
            f"algorithm {name!r}: {problems}.",
            fix=f"its parameters are {', '.join(kind.model_fields)}; "
            "'anabranch plan schema' prints their units and ranges.",
        ) from error


def _problem(kind: type[Algorithm], field: str, sort: str, message: str) -> str:
    if sort == "extra_forbidden":
        close = _closest(field, kind.model_fields)
        return f"there is no parameter {field!r}" + (f" (did you mean {close!r}?)" if close else "")
    return f"{field!r}: {message[0].lower()}{message[1:]}" if field else message


def _closest(wrong: str, known: Mapping[str, object]) -> str:
    return next(iter(get_close_matches(wrong, known, n=1, cutoff=0.5)), "")
