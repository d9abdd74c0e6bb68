"""Watching runs: events while they work; progress, reports, comparisons and exports from the store.

This room reads and never steers. Heavy libraries (rich, matplotlib, jinja2) are imported where they
are used, so that importing the room costs nothing.
"""

from anabranch.observe.events import (
    ClientTrouble,
    EvaluationDone,
    Event,
    LimitCheck,
    Listener,
    RoundCommitted,
    RunEnded,
    RunStarted,
)

__all__ = [
    "ClientTrouble",
    "EvaluationDone",
    "Event",
    "LimitCheck",
    "Listener",
    "RoundCommitted",
    "RunEnded",
    "RunStarted",
]
