"""Poisson selection: an independent coin for each enrolled client."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from anabranch.fleet.selection.base import Draw, Known, Selection, Selector
from anabranch.fleet.selection.codes import Code, Reason
from anabranch.fleet.selection.drawing import members, smallest
from anabranch.fleet.view import FleetView

__all__ = ["Poisson", "largest_cohort"]


def largest_cohort(wanted: int) -> int:
    """``m + 6 sqrt(m)``, rounded up: the cap that costs a privacy claim next to nothing.

    >>> largest_cohort(100)
    160
    """
    return math.ceil(wanted + 6 * math.sqrt(wanted))


class Poisson(Selector):
    """Every enrolled client is drawn by its own coin of probability ``cohort / fleet``.

    The selector of privacy claims that use amplification: coins are independent, of enrolled and
    not of reachable clients, and nothing that a client reports changes them. A drawn client that
    is not there, or that admission refuses, is a dropout. Cohorts above ``m + 6 sqrt(m)`` are cut
    to it by chance, as the accountant's truncated event has it. The draw must be secret
    (`anabranch.fleet.selection.SecretDraw`); whoever learns the coins is inside the trust boundary.
    """

    kind: ClassVar[str] = "poisson"
    amplifies: ClassVar[bool] = True

    def select(
        self, view: FleetView, wanted: int, draw: Draw, known: Known | None = None
    ) -> Selection:
        """The clients whose coin fell on one: ``wanted`` on average."""
        clients = len(view)
        codes = self.codes(view, known or Known.nothing(clients))
        coins = draw.random(clients)
        drawn = members(coins < min(1.0, wanted / max(clients, 1)))
        # The second draw happens always, so that the coins of one round use one number each.
        order = draw.random(clients)
        kept = smallest(order[drawn], drawn, largest_cohort(wanted))
        cut = np.setdiff1d(drawn, kept, assume_unique=True)
        codes[cut[codes[cut] == Code.NOT_DRAWN]] = Code.OVER_CAP
        return Selection.of(codes, [(kept[codes[kept] == Code.NOT_DRAWN], Reason.COIN)])
