"""Why a client was selected, and why it was not."""

from __future__ import annotations

from enum import IntEnum, StrEnum

__all__ = ["Code", "Reason"]


class Reason(StrEnum):
    """Why a client was selected."""

    EVERYONE = "everyone was wanted"
    DRAWN = "drawn"
    COIN = "its own coin"
    FLOOR = "fairness floor"
    EXPLORED = "explored"
    UTILITY = "utility"
    LOSS = "large loss"
    SHARE = "share of its class"


class Code(IntEnum):
    """What became of a client in one selection; the column of a `Selection` holds one for each.

    Numbers are part of what a run stores: new ones are added at the end.
    """

    SELECTED = 0
    NOT_DRAWN = 1
    UNAVAILABLE = 2
    BUSY = 3
    SEPARATION = 4
    PARTICIPATIONS = 5
    LOW_BATTERY = 6
    NOT_CHARGING = 7
    METERED = 8
    QUIET_HOURS = 9
    DATA_BUDGET = 10
    TOO_SLOW = 11
    TOO_MUCH_ENERGY = 12
    MEMORY = 13
    OVER_CAP = 14

    @property
    def words(self) -> str:
        """For people.

        >>> Code.NOT_CHARGING.words
        'not charging'
        """
        return _WORDS[self]


_WORDS = {
    Code.SELECTED: "selected",
    Code.NOT_DRAWN: "eligible, not drawn",
    Code.UNAVAILABLE: "not available",
    Code.BUSY: "has an open task",
    Code.SEPARATION: "took part too recently",
    Code.PARTICIPATIONS: "has taken part as often as it may",
    Code.LOW_BATTERY: "battery too low",
    Code.NOT_CHARGING: "not charging",
    Code.METERED: "on a metered connection",
    Code.QUIET_HOURS: "outside the allowed hours of its day",
    Code.DATA_BUDGET: "no data budget left today",
    Code.TOO_SLOW: "cannot finish a step before the deadline",
    Code.TOO_MUCH_ENERGY: "a step would cost more energy than allowed",
    Code.MEMORY: "too little memory",
    Code.OVER_CAP: "drawn, but above the largest cohort",
}
