"""Uniform selection: every set of eligible clients of the wanted size is equally likely."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from anabranch.fleet.selection.base import Draw, Indices, Known, Selection, Selector
from anabranch.fleet.selection.codes import Code, Reason
from anabranch.fleet.selection.drawing import members
from anabranch.fleet.view import FleetView

__all__ = ["Uniform", "select_uniform"]


def select_uniform(clients: int, count: int, draw: Draw) -> tuple[int, ...]:
    """``count`` distinct client numbers, each subset equally likely, in ascending order.

    Without replacement, so it carries no privacy-amplification claim.

    >>> select_uniform(4, 4, np.random.default_rng(0))
    (0, 1, 2, 3)
    """
    return tuple(_uniform(clients, count, draw).tolist())


def _uniform(clients: int, count: int, draw: Draw) -> Indices:
    if count >= clients:
        return np.arange(clients, dtype=np.int64)
    return np.sort(draw.choice(clients, count, False, shuffle=False))


class Uniform(Selector):
    """Eligible clients with equal chances, without replacement.

    The default: it favours nobody, and no client can raise its chance by what it reports.
    """

    kind: ClassVar[str] = "uniform"

    def select(
        self, view: FleetView, wanted: int, draw: Draw, known: Known | None = None
    ) -> Selection:
        """``wanted`` of the eligible, or all of them."""
        codes = self.codes(view, known or Known.nothing(len(view)))
        eligible = members(codes == Code.NOT_DRAWN)
        chosen = eligible[_uniform(len(eligible), wanted, draw)]
        reason = Reason.EVERYONE if wanted >= len(eligible) else Reason.DRAWN
        return Selection.of(codes, [(chosen, reason)])
