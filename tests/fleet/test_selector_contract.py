"""Every built-in selector keeps the selectors' contract."""

from __future__ import annotations

import pytest

from anabranch.fleet.selection import (
    SELECTORS,
    DeviceUtility,
    Oort,
    Poisson,
    PowerOfChoice,
    Selector,
    Stratified,
    Uniform,
    Weighted,
)
from anabranch.testing.selection import SelectorContract


class TestUniform(SelectorContract):
    def selector(self) -> Selector:
        return Uniform()


class TestWeighted(SelectorContract):
    def selector(self) -> Selector:
        return Weighted(power=0.5)


class TestPoisson(SelectorContract):
    def selector(self) -> Selector:
        return Poisson()


class TestPowerOfChoice(SelectorContract):
    def selector(self) -> Selector:
        return PowerOfChoice(floor=12)


class TestOort(SelectorContract):
    def selector(self) -> Selector:
        return Oort(floor=16)


class TestTightOort(SelectorContract):
    """60 clients, 8 a round: in 8 rounds nearly every task belongs to the floor."""

    def selector(self) -> Selector:
        return Oort(floor=8, exploration=0.0, least_exploration=0.0)


class TestDeviceUtility(SelectorContract):
    def selector(self) -> Selector:
        return DeviceUtility(floor=10, least_battery=0.0)


class TestLossUtility(SelectorContract):
    def selector(self) -> Selector:
        return DeviceUtility(floor=None, loss=1.0, regions=1.0, exploration=0.0)

    fills = False  # low batteries are not asked


class TestStratified(SelectorContract):
    def selector(self) -> Selector:
        return Stratified()


class TestEqualRegions(SelectorContract):
    def selector(self) -> Selector:
        return Stratified(by="region", shares="equal")


def test_every_built_in_selector_is_registered_under_its_kind() -> None:
    assert {name: kind.kind for name, kind in SELECTORS.items()} == {n: n for n in SELECTORS}
    assert len(SELECTORS) == 7
    assert [n for n, kind in SELECTORS.items() if kind.amplifies] == ["poisson"]


@pytest.mark.parametrize("kind", sorted(SELECTORS))
def test_losses_are_read_by_those_that_say_so(kind: str) -> None:
    assert SELECTORS[kind]().reads_losses == (kind in {"oort", "power-of-choice"})
