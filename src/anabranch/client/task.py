"""What a client is asked, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from anabranch.updates.sections import Update, Vector

__all__ = ["Fate", "Reply", "Task", "TaskKind"]


class TaskKind(StrEnum):
    """What a task asks for."""

    TRAIN = "train"  # local training; the reply is an update of the algorithm's sections
    EVALUATE = "evaluate"  # metric sums of the model on the client's test examples
    HOLDOUT = "holdout"  # metric sums on one shard of the coordinator's own hold-out examples


class Fate(StrEnum):
    """What became of a client's part in a round."""

    MERGED = "merged"
    REFUSED = "refused"  # the update was not acceptable; the detail says why
    FAILED = "failed"  # an exception at the client: class and text
    LOST = "lost"  # the client or its worker disappeared
    TOO_LATE = "too late"  # no answer before the deadline


@dataclass(frozen=True, slots=True)
class Task:
    """One question to one client.

    Attributes:
        kind: what is asked.
        round: the model version being made (train) or evaluated.
        client: number of the client in the fleet (or of the shard, for a hold-out task).
        name: the client's identifier; generators derive from it.
    """

    kind: TaskKind
    round: int
    client: int
    name: str


@dataclass(frozen=True, slots=True)
class Reply:
    """The client's answer.

    Attributes:
        update: values of the declared sections, encoded by the stages.
        memory: what the client keeps if the coordinator merges the update, as one flat vector;
            None when it keeps nothing. It is *pending* until its fate is known (design idea 8).
    """

    update: Update
    memory: Vector | None = None
