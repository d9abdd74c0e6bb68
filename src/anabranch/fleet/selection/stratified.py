"""Stratified selection: each class of devices, region or network gets its share of a round."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from anabranch.fleet.selection.base import Draw, Known, Selection, Selector
from anabranch.fleet.selection.codes import Code, Reason
from anabranch.fleet.selection.drawing import members, systematic
from anabranch.fleet.view import Codes, Column, FleetView

__all__ = ["Stratified", "stratum_codes"]


class Stratified(Selector):
    """Systematic sampling over eligible clients in the order of their class.

    With proportional shares every eligible client has the same chance, and no class has more than
    one client more or less than its share; with equal shares every class has the same number of
    clients, as far as it has so many.
    """

    kind: ClassVar[str] = "stratified"

    by: Literal["class", "region", "network"] = "class"
    """What a stratum is: the class of the device, its region, or the network in use."""
    shares: Literal["proportional", "equal"] = "proportional"
    """Whether strata count by their eligible clients, or all alike."""

    def select(
        self, view: FleetView, wanted: int, draw: Draw, known: Known | None = None
    ) -> Selection:
        """``wanted`` clients, spread over the strata."""
        codes = self.codes(view, known or Known.nothing(len(view)))
        eligible = members(codes == Code.NOT_DRAWN)
        if wanted >= len(eligible):
            return Selection.of(codes, [(eligible, Reason.EVERYONE)])
        stratum = stratum_codes(view, self.by)[eligible].astype(np.int64)
        order = np.lexsort((draw.random(len(eligible)), stratum))
        sizes = np.bincount(stratum)
        quotas = sizes * (wanted / len(eligible))
        if self.shares == "equal":
            quotas = _equal(sizes, wanted)
        chances = quotas[stratum[order]] / sizes[stratum[order]]
        chosen = systematic(chances, eligible[order], draw)
        return Selection.of(codes, [(chosen, Reason.SHARE)])


def stratum_codes(view: FleetView, by: Literal["class", "region", "network"]) -> Codes:
    """The column of strata."""
    return {"class": view.device, "region": view.region, "network": view.network}[by]


def _equal(sizes: NDArray[np.int64], wanted: int) -> Column:
    """Equal quotas, none above its stratum; what a small one cannot take goes to the others."""
    quotas = np.zeros(len(sizes))
    open_ = sizes > 0
    left = float(wanted)
    while left > 1e-9 and open_.any():
        share = left / int(open_.sum())
        added = np.where(open_, np.minimum(sizes - quotas, share), 0.0)
        quotas += added
        left -= float(added.sum())
        open_ &= sizes - quotas > 1e-9
    return quotas
