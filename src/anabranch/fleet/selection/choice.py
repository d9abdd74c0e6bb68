"""Power of choice: of some candidates, those with the largest loss."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from pydantic import Field

from anabranch.fleet.selection.base import Draw, Known, Selection
from anabranch.fleet.selection.codes import Code, Reason
from anabranch.fleet.selection.drawing import members, smallest, weighted_draw, without
from anabranch.fleet.selection.fairness import Floored
from anabranch.fleet.selection.weighted import announced_examples
from anabranch.fleet.view import FleetView

__all__ = ["PowerOfChoice"]


class PowerOfChoice(Floored):
    """Draw candidates by their examples and ask those with the largest loss.

    Cho, Wang, Joshi, "Towards Understanding Biased Client Selection in Federated Learning",
    AISTATS 2022 (pi_cpow-d with the losses of earlier rounds, so that nobody is asked twice).
    A client whose loss is not known comes first. Losses are what clients claim: one that claims
    more is asked more.
    """

    kind: ClassVar[str] = "power-of-choice"

    candidates: float = Field(
        default=2.0, ge=1, json_schema_extra={"unit": "factor on the clients asked"}
    )
    """Candidates, as a multiple of the clients asked; 1 is weighted selection."""

    @property
    def reads_losses(self) -> bool:
        """Always."""
        return True

    def select(
        self, view: FleetView, wanted: int, draw: Draw, known: Known | None = None
    ) -> Selection:
        """The ``wanted`` candidates with the largest loss."""
        known = known or Known.nothing(len(view))
        codes = self.codes(view, known)
        eligible = members(codes == Code.NOT_DRAWN)
        due = self.due(eligible, known.history, known.round, wanted, draw)
        left, free = wanted - len(due), without(eligible, due)
        size = math.ceil(left * self.candidates)
        candidates = weighted_draw(announced_examples(view)[free], free, size, draw)
        loss = known.history.loss[candidates].astype(np.float64)
        chosen = smallest(np.where(np.isnan(loss), -np.inf, -loss), candidates, left)
        return Selection.of(codes, [(due, Reason.FLOOR), (chosen, Reason.LOSS)])
