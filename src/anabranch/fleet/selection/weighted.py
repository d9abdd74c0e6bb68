"""Weighted selection: clients with more examples are asked more often."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from anabranch.fleet.selection.base import Draw, Known, Selection, Selector
from anabranch.fleet.selection.codes import Code, Reason
from anabranch.fleet.selection.drawing import members, weighted_draw
from anabranch.fleet.view import Column, FleetView

__all__ = ["Weighted", "announced_examples"]


class Weighted(Selector):
    """One client after the other, without replacement, by its number of training examples.

    Together with an equal weight in the mean it is the second scheme of Li et al. ("On the
    Convergence of FedAvg on Non-IID Data", ICLR 2020). A client that announced no number counts as
    the mean of the others.
    """

    kind: ClassVar[str] = "weighted"

    power: float = Field(default=1.0, gt=0, le=4)
    """Exponent of the number of examples; below 1 small clients are asked more often."""

    def select(
        self, view: FleetView, wanted: int, draw: Draw, known: Known | None = None
    ) -> Selection:
        """``wanted`` of the eligible by examples."""
        codes = self.codes(view, known or Known.nothing(len(view)))
        eligible = members(codes == Code.NOT_DRAWN)
        weights = announced_examples(view)[eligible] ** self.power
        return Selection.of(codes, [(weighted_draw(weights, eligible, wanted, draw), Reason.DRAWN)])


def announced_examples(view: FleetView) -> Column:
    """Training examples of each client; the mean of the announced ones where none is."""
    known = np.isfinite(view.examples)
    mean = float(view.examples[known].mean()) if known.any() else 1.0
    return np.where(known, view.examples, mean)
