"""Algorithms by name, and messages that help."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.algorithms import ALGORITHMS, FedAvg, FedYogi, algorithm_named, elementwise
from anabranch.errors import AnabranchError
from anabranch.named import load_named


class Half(FedAvg):
    """A user's own."""

    name = "half"
    share: float = 0.5


@dataclass
class NotAnAlgorithm:
    """A class of another kind."""


def test_built_in_algorithms() -> None:
    assert len(ALGORITHMS) == 10
    for name, kind in ALGORITHMS.items():
        assert kind.name == name
        assert algorithm_named(name, {}) == kind()


def test_parameters() -> None:
    assert algorithm_named("fedyogi", {"tau": 0.1}) == FedYogi(tau=0.1)


def test_a_users_own() -> None:
    assert algorithm_named(f"{__name__}:Half", {"share": 0.25}) == Half(share=0.25)


@pytest.mark.parametrize(
    ("name", "parameters", "code", "says"),
    [
        ("fedporx", {}, "AB-420", "Did you mean 'fedprox'?"),
        ("FedAvg", {}, "AB-420", "Did you mean 'fedavg'?"),
        ("zzz", {}, "AB-420", "use one of fedavg,"),
        (f"{__name__}:NotAnAlgorithm", {}, "AB-420", "not a subclass"),
        (f"{__name__}:Missing", {}, "AB-421", "has no 'Missing'"),
        ("no_such_module_here:A", {}, "AB-421", "importing 'no_such_module_here' failed"),
        ("a:", {}, "AB-421", "form"),
        ("fedprox", {"muu": 1}, "AB-422", "there is no parameter 'muu' (did you mean 'mu'?)"),
        ("fedprox", {"mu": -1}, "AB-422", "'mu': input should be greater than or equal to 0"),
        ("fedprox", {"mu": float("nan")}, "AB-422", "finite"),
        ("feddyn", {"alpha": "much"}, "AB-422", "valid number"),
    ],
)
def test_refusals(name: str, parameters: dict[str, object], code: str, says: str) -> None:
    with pytest.raises(AnabranchError) as raised:
        algorithm_named(name, parameters)
    assert raised.value.code == code
    assert says in str(raised.value)


def test_named_objects() -> None:
    assert load_named("os.path:join") is load_named("os:path.join")
    with pytest.raises(AnabranchError, match="AB-421"):
        load_named("os.path.join")


@given(st.integers(0, 300), st.integers(1, 64))
def test_elementwise_does_not_depend_on_the_chunk(size: int, chunk: int) -> None:
    a = np.linspace(-3, 3, size, dtype=np.float32)
    b = np.linspace(1, 2, size)
    whole = elementwise(lambda x, y: (x * y, x - y), a, b)
    parts = elementwise(lambda x, y: (x * y, x - y), a, b, chunk=chunk)
    assert all(np.array_equal(x, y) for x, y in zip(whole, parts, strict=True))
    assert all(x.dtype == np.float32 and len(x) == size for x in parts)
