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
    STATISTICS = "statistics"  # sums that preprocessing is fitted on, before the first round
    EXCHANGE = "exchange"  # one message of an interactive stage; the reply is a letter
    MASK = "mask"  # the update that the client holds, behind the masks of the letter's sum


class Fate(StrEnum):
    """What became of a client's part in a round."""

    MERGED = "merged"
    MERGED_LATE = "merged late"  # into a later model version, by the staleness rule
    REFUSED = "refused"  # the update was not acceptable; the detail says why
    FAILED = "failed"  # an exception at the client: class and text
    LOST = "lost"  # the client or its worker disappeared
    TOO_LATE = "too late"  # no answer before the deadline
    DECLINED = "declined"  # the client's own policy says no

    @property
    def counts(self) -> bool:
        """Whether the update is part of the model, so that the client's memory is promoted."""
        return self in (Fate.MERGED, Fate.MERGED_LATE)


@dataclass(frozen=True, slots=True)
class Task:
    """One question to one client.

    Attributes:
        kind: what is asked.
        round: the model version being made (train) or evaluated.
        client: number of the client in the fleet (or of the shard, for a hold-out task).
        name: the client's identifier; generators derive from it.
        draw: the other number from which generators derive; the round in synchronous runs.
        task: names the piece of work; empty where nothing outlives the call.
        fraction: share of the planned local steps that is asked.
        max_bytes: most bytes of the encoded update, where the coordinator says so; else the
            client's program does.
        seconds: that are left for the whole task, where the coordinator says so: a client whose
            contract lets it end early goes by it.
    """

    kind: TaskKind
    round: int
    client: int
    name: str
    draw: int
    task: str = ""
    fraction: float = 1.0
    max_bytes: int | None = None
    seconds: float | None = None


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
