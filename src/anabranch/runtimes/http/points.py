"""Every instant at which a deployed run is killed in a test: between an update's training, its
upload, its durable acknowledgement, the round's commit and the fate that the client hears of.

The store's own points (`anabranch.coordinator.store.KILL_POINTS`) are reached by the coordinator
too.
"""

from __future__ import annotations

from typing import Final

from anabranch.disk import file_points

__all__ = ["CLIENT_POINTS", "COORDINATOR_POINTS", "LARGE_UPLOAD_POINTS"]


def _written(what: str) -> tuple[str, ...]:
    return tuple(point for point in file_points(what) if ".mkdir." not in point)


COORDINATOR_POINTS: Final[tuple[str, ...]] = (
    *file_points("served"),  # who takes part in a run
    *_written("control"),
    *_written("equipment"),  # what sites told before the first round
    "spool.mkdir.before",
    "spool.mkdir.after",
    "upload.mkdir.before",
    "upload.mkdir.after",
    "spool.begin",
    "spool.commit.before",
    "spool.commit.after",
    "answer.arrived",  # whole and with its checksum, nowhere durable
    "answer.durable",
    "answer.counted",  # the client has not heard that it was
    "fates.hold.before",
    "fates.hold.after",
    "fates.durable",  # to be told if the commit that follows comes to be
    "fates.tell.before",  # after the commit
    "fates.tell.after",
)
"""Of a daemon, besides those of the store."""

LARGE_UPLOAD_POINTS: Final[tuple[str, ...]] = (
    "upload.write.before",
    "upload.write.after",
    "upload.sync.before",
    "upload.sync.after",
    "upload.rename.before",
    "upload.rename.after",
    "upload.directory.before",
    "upload.directory.after",
)
"""Of a daemon whose answers are too large for the spool's rows."""

CLIENT_POINTS: Final[tuple[str, ...]] = (
    "task.received",
    *file_points("memory"),  # trained; what the client would remember is being written
    "log.write.before",
    "log.write.after",
    "log.sync.before",  # what is about to leave
    "log.sync.after",
    "update.ready",
    "update.acknowledged",
    "fate.heard",
    "memory.settle.before",
    "memory.settle.after",
    "fate.applied",  # not yet confirmed
    *_written("vault"),
    "evidence.mkdir.before",
    "evidence.mkdir.after",
    "evidence.write.before",
    "evidence.write.after",
)
"""Of an enrolled client."""
