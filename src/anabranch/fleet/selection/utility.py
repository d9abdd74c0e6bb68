r"""Battery- and network-aware selection with a fairness floor and regional balance."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from pydantic import Field

from anabranch.fleet.selection.base import Draw, Indices, Known, Selection
from anabranch.fleet.selection.codes import Code, Reason
from anabranch.fleet.selection.drawing import members, smallest, weighted_draw, without
from anabranch.fleet.selection.fairness import Floored
from anabranch.fleet.view import Column, FleetView

__all__ = ["DeviceUtility"]


class DeviceUtility(Floored):
    r"""Prefer devices that answer in time and can afford it.

    The weight of a client is a product::

        loss^a * min(1, (T / t)^slowness) * b(battery) * min(1, J / j)^energy * unmetered * r

    with t and j its predicted seconds and joules, T the ``pace`` quantile of t and J the median of
    j among the eligible, r the probability that its task is merged, and b(battery) 1 on a charger,
    0 below ``least_battery``, linear between. A share ``exploration`` of each round is drawn with
    equal chances among the eligible, and the floor comes first.
    """

    kind: ClassVar[str] = "utility"

    floor: int | None = Field(default=50, ge=1, json_schema_extra={"unit": "rounds"})
    """Every eligible client is asked at least once in so many rounds."""
    exploration: float = Field(default=0.2, ge=0, le=1)
    """Share of the cohort drawn with equal chances."""
    least_battery: float = Field(
        default=0.3, ge=0, lt=1, json_schema_extra={"unit": "level 0 to 1"}
    )
    """Devices that are not charging are not asked at or below this level."""
    slowness: float = Field(default=2.0, ge=0, le=10)
    """Exponent of the penalty on predicted times above T; 0 ignores time."""
    pace: float = Field(default=0.5, gt=0, le=1)
    """Quantile of the predicted times that T is."""
    energy: float = Field(default=1.0, ge=0, le=10)
    """Exponent of the penalty on energy above the median; 0 ignores energy."""
    metered: float = Field(default=0.5, ge=0, le=1)
    """Factor on the weight of clients on a metered connection; 1 ignores it."""
    loss: float = Field(default=0.0, ge=0, le=4)
    """Exponent a of the last loss; 0, the default, reads no losses."""
    regions: float = Field(default=0.5, ge=0, le=1)
    """Smallest part of its share of eligible clients that each region gets in a round; 0 ignores
    regions."""

    @property
    def reads_losses(self) -> bool:
        """Only with an exponent of the loss."""
        return self.loss > 0

    def select(
        self, view: FleetView, wanted: int, draw: Draw, known: Known | None = None
    ) -> Selection:
        """The floor, then each region's least share and the rest by weight, then exploration."""
        known = known or Known.nothing(len(view))
        codes = self.codes(view, known)
        afford = self.battery(view)
        codes[(codes == Code.NOT_DRAWN) & (afford <= 0)] = Code.LOW_BATTERY
        eligible = members(codes == Code.NOT_DRAWN)
        due = self.due(eligible, known.history, known.round, wanted, draw)
        free, left = without(eligible, due), wanted - len(due)
        explored = math.floor(left * self.exploration + 0.5)
        weights = np.zeros(len(view))
        weights[eligible] = self.weights(view, known, eligible)
        preferred = self._preferred(view, weights, free, left - explored, draw)
        free = without(free, preferred)
        found = smallest(draw.random(len(free)), free, left - len(preferred))
        parts = [(due, Reason.FLOOR), (preferred, Reason.UTILITY), (found, Reason.EXPLORED)]
        return Selection.of(codes, parts)

    def _preferred(
        self, view: FleetView, weights: Column, free: Indices, count: int, draw: Draw
    ) -> Indices:
        if count <= 0 or not len(free):
            return free[:0]
        chosen = free[:0]
        region = view.region[free].astype(np.int64)
        sizes = np.bincount(region)
        quotas = np.floor(self.regions * count * sizes / len(free)).astype(np.int64)
        for code in np.flatnonzero(quotas if len(sizes) > 1 else sizes[:0]):
            there = free[region == code]
            part = weighted_draw(weights[there], there, int(quotas[code]), draw)
            chosen = np.union1d(chosen, part)
        rest = without(free, chosen)
        more = weighted_draw(weights[rest], rest, count - len(chosen), draw)
        picked: Indices = np.union1d(chosen, more)
        return picked

    def battery(self, view: FleetView) -> Column:
        """b of every client; a level that was not reported counts as half of what is allowed."""
        least = self.least_battery
        level = np.where(np.isnan(view.battery), (1 + least) / 2, view.battery)
        return np.where(view.charging, 1.0, np.clip((level - least) / (1 - least), 0.0, 1.0))

    def weights(self, view: FleetView, known: Known, eligible: Indices) -> Column:
        """The weight of each eligible client; factors of which nothing is known are 1."""
        weight = self.battery(view)[eligible] * known.history.reliability()[eligible]
        weight = weight * np.where(view.metered[eligible], self.metered, 1.0)
        weight = weight * _saving(known.seconds[eligible], self.pace, self.slowness)
        weight = weight * _saving(known.joules[eligible], 0.5, self.energy)
        if self.loss:
            loss = known.history.loss[eligible].astype(np.float64)
            seen = np.isfinite(loss)
            weight = weight * np.where(seen, loss, loss[seen].max(initial=1.0)) ** self.loss
        return np.asarray(weight)


def _saving(cost: Column, quantile: float, power: float) -> Column:
    """min(1, Q / cost)^power with Q a quantile of the known costs; 1 where nothing is known."""
    known = np.isfinite(cost) & (cost > 0)
    if not known.any() or not power:
        return np.ones(len(cost))
    reference = float(np.quantile(cost[known], quantile))
    safe = np.where(known, cost, reference)
    return np.asarray(np.minimum(1.0, reference / safe) ** power)
