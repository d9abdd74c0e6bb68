"""The fairness floor: every eligible client is asked at least once in so many rounds."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from anabranch.fleet.history import FleetHistory
from anabranch.fleet.selection.base import Draw, Indices, Selector
from anabranch.fleet.selection.drawing import smallest

__all__ = ["Floored", "due_now"]


class Floored(Selector):
    """A selector that prefers some clients, and forgets none.

    Clients that may not be asked (separation, participation caps, admission) are not eligible, so
    the floor yields to what protects people and devices.
    """

    floor: int | None = Field(default=None, ge=1, json_schema_extra={"unit": "rounds"})
    """Every eligible client is asked at least once in so many rounds. It can hold when the cohort
    times these rounds reaches the fleet; twice that leaves half of the cohort to the preference."""

    @property
    def floor_rounds(self) -> int | None:
        """Rounds within which every eligible client is asked at least once."""
        return self.floor

    def due(
        self, eligible: Indices, history: FleetHistory, round_: int, wanted: int, draw: Draw
    ) -> Indices:
        """Those whom the floor asks now."""
        if self.floor is None:
            return eligible[:0]
        return due_now(eligible, history, round_, self.floor, wanted, draw)


def due_now(
    eligible: Indices, history: FleetHistory, round_: int, floor: int, wanted: int, draw: Draw
) -> Indices:
    """The fewest clients that must be asked now so that all can still be asked in time.

    A client asked last in round l must be asked again by round l + floor. With ``wanted`` tasks a
    round all deadlines can be kept exactly when, for every k, at most ``wanted * (k + 1)`` clients
    are due within the next k rounds (earliest deadline first); what exceeds ``wanted * k`` is due
    now. Among equal deadlines chance decides.

    Args:
        eligible: clients that may be asked.
        history: when each was asked last.
        round_: the current round, from 1.
        floor: rounds within which each is asked once.
        wanted: tasks of this round.
        draw: where chance comes from.
    """
    slack = np.clip(history.last_asked[eligible].astype(np.int64) + floor - round_, 0, floor)
    due_within = np.cumsum(np.bincount(slack, minlength=floor + 1))
    excess = due_within - wanted * np.arange(floor + 1)
    count = int(np.clip(excess.max(initial=0), 0, wanted))
    if count == 0:
        return eligible[:0]
    return smallest(slack + draw.random(len(eligible)), eligible, count)
