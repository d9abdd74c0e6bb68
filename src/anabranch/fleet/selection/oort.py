r"""Oort: clients whose loss is large and who are fast, with exploration."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from pydantic import Field

from anabranch.fleet.selection.base import Draw, Indices, Known, Selection
from anabranch.fleet.selection.codes import Code, Reason
from anabranch.fleet.selection.drawing import members, weighted_draw, without
from anabranch.fleet.selection.fairness import Floored
from anabranch.fleet.selection.weighted import announced_examples
from anabranch.fleet.view import Column, FleetView

__all__ = ["Oort"]


class Oort(Floored):
    r"""Utility of data times utility of the system (Lai et al., OSDI 2021, algorithm 1).

    Of the clients that reported a loss, exploit a share 1 - e by::

        U_i = |B_i| l_i  clipped at a quantile,  plus sqrt(0.1 ln R / L_i)
        U_i <- U_i (T / t_i)^penalty  when t_i > T

    with l_i the client's last mean loss (the paper has the root of the mean squared loss of single
    examples, which is not visible here), R the round, L_i the round it was last asked in, t_i its
    predicted time and T a quantile of predicted times, which takes the place of the paper's pacer.
    Of clients above 95 % of the utility of the last one needed, chance decides by utility. The
    share e explores clients that never reported, the faster the likelier; it falls from
    ``exploration`` by ``decay`` a round to ``least_exploration``.
    """

    kind: ClassVar[str] = "oort"

    exploration: float = Field(default=0.9, ge=0, le=1)
    """Share of the cohort that explores in round 1."""
    decay: float = Field(default=0.98, gt=0, le=1)
    """Factor on that share in each round."""
    least_exploration: float = Field(default=0.2, ge=0, le=1)
    """Share that always explores."""
    penalty: float = Field(default=2.0, ge=0, le=10)
    """Exponent of the penalty on clients slower than T."""
    pace: float = Field(default=0.8, gt=0, le=1)
    """Quantile of the predicted times that T is."""
    clip: float = Field(default=0.95, gt=0, le=1)
    """Quantile at which the utility of data is cut, so that no claim of a loss counts for more."""

    @property
    def reads_losses(self) -> bool:
        """Always."""
        return True

    def select(
        self, view: FleetView, wanted: int, draw: Draw, known: Known | None = None
    ) -> Selection:
        """Exploit and explore; what one part cannot fill goes to the other."""
        known = known or Known.nothing(len(view))
        codes = self.codes(view, known)
        eligible = members(codes == Code.NOT_DRAWN)
        due = self.due(eligible, known.history, known.round, wanted, draw)
        free, left = without(eligible, due), wanted - len(due)
        tried = ~np.isnan(known.history.loss[free])
        old, new = free[tried], free[~tried]
        share = max(self.least_exploration, self.exploration * self.decay ** (known.round - 1))
        explore = min(len(new), max(math.floor(left * share + 0.5), left - len(old)))
        best = self._exploited(old, left - explore, view, known, draw)
        fast = 1.0 / np.maximum(_known_seconds(known.seconds)[new], 1e-9)
        found = weighted_draw(fast, new, explore, draw)
        parts = [(due, Reason.FLOOR), (best, Reason.UTILITY), (found, Reason.EXPLORED)]
        return Selection.of(codes, parts)

    def _exploited(
        self, old: Indices, count: int, view: FleetView, known: Known, draw: Draw
    ) -> Indices:
        if count >= len(old) or count <= 0:
            return old[: max(count, 0)]
        utility = self.utilities(view, known)[old]
        cutoff = 0.95 * float(np.partition(utility, len(old) - count)[len(old) - count])
        enough = utility >= cutoff
        return weighted_draw(utility[enough], old[enough], count, draw)

    def utilities(self, view: FleetView, known: Known) -> Column:
        """U of every client; NaN for those that never reported a loss."""
        history = known.history
        data = announced_examples(view) * history.loss.astype(np.float64)
        reported = np.isfinite(data)
        if not reported.any():
            return data
        data = np.minimum(data, np.quantile(data[reported], self.clip))
        top = float(data[reported].max())
        data = data / top if top > 0 else data
        last = np.maximum(history.last_asked, 1)
        data = data + np.sqrt(0.1 * math.log(max(known.round, 1)) / last)
        seconds = _known_seconds(known.seconds)
        preferred = float(np.quantile(seconds, self.pace))
        slow = np.minimum(1.0, preferred / np.maximum(seconds, 1e-9)) ** self.penalty
        return np.asarray(data * slow)


def _known_seconds(seconds: Column) -> Column:
    """Predicted seconds; the median where nothing is known, 1 when nothing is known of anybody."""
    known = np.isfinite(seconds)
    middle = float(np.median(seconds[known])) if known.any() else 1.0
    return np.where(known, seconds, middle)
