"""What survives a kill: runs, rounds, states, client slots, releases and events, in one folder.

A round is a transaction: its blobs are written, synced and renamed first, then one SQL commit names
their hashes. SQLAlchemy (extra ``coordinator``) is imported when a store is opened, not before.
"""

from anabranch.coordinator.store.grouped import GroupedCommits, TwoPhase, Witness
from anabranch.coordinator.store.points import KILL_POINTS
from anabranch.coordinator.store.records import (
    Arrays,
    Column,
    Json,
    Latest,
    ReleaseEntry,
    RoundOutcome,
    RoundRecord,
    RoundSummary,
    RunRecord,
    RunStatus,
    StoredEvent,
    StoredRelease,
    StoredRound,
)
from anabranch.coordinator.store.session import RunSession
from anabranch.coordinator.store.store import Store

__all__ = [
    "KILL_POINTS",
    "Arrays",
    "Column",
    "GroupedCommits",
    "Json",
    "Latest",
    "RoundOutcome",
    "ReleaseEntry",
    "RoundRecord",
    "RoundSummary",
    "RunRecord",
    "RunSession",
    "RunStatus",
    "Store",
    "StoredEvent",
    "StoredRelease",
    "StoredRound",
    "TwoPhase",
    "Witness",
]
