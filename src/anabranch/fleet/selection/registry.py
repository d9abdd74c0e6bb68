"""Selectors by name, as a plan's table ``[selection]`` gives them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from anabranch.fleet.selection.base import Selector
from anabranch.fleet.selection.choice import PowerOfChoice
from anabranch.fleet.selection.oort import Oort
from anabranch.fleet.selection.poisson import Poisson
from anabranch.fleet.selection.stratified import Stratified
from anabranch.fleet.selection.uniform import Uniform
from anabranch.fleet.selection.utility import DeviceUtility
from anabranch.fleet.selection.weighted import Weighted

__all__ = ["SELECTORS"]

SELECTORS: Mapping[str, type[Selector]] = MappingProxyType(
    {
        kind.kind: kind
        for kind in (Uniform, Weighted, Poisson, PowerOfChoice, Oort, DeviceUtility, Stratified)
    }
)
"""The built-in selectors by the ``kind`` that a plan writes."""
