"""What a desk keeps of each piece of work, and what it says of answers that nobody waits for."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from anabranch.client.task import TaskKind
from anabranch.coordinator.runtime import Fate, Outcome, Work
from anabranch.errors import AnabranchError
from anabranch.runtimes.http.messages import TaskOffer
from anabranch.runtimes.http.server.downloads import Downloads
from anabranch.runtimes.http.server.muster import Muster

__all__ = ["OpenTask", "Piece", "RunFacts", "another", "dropped", "not_open"]


@dataclass(frozen=True)
class RunFacts:
    """What clients are told of a run with each task.

    Attributes:
        run: its id; empty where there is only one.
        names: client identifiers, in the order of client numbers.
        contract: digest of the contract, a download; empty where both ends were given it.
        equipment: digest of what the contract leaves open, a download; or empty.
        muster: who may be given work; None gives it to everybody.
    """

    run: str
    names: tuple[str, ...]
    contract: str = ""
    equipment: str = ""
    muster: Muster | None = None


@dataclass
class Piece:
    """One piece of work: who still has to answer, and what was taken."""

    work: Work
    offer: TaskOffer
    downloads: Downloads
    limit: int
    expires: float
    waiting: set[int] = field(default_factory=set)
    offered: dict[int, float] = field(default_factory=dict)
    taken: dict[int, str] = field(default_factory=dict)
    coming: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OpenTask:
    """A piece of work as `anabranch status` shows it.

    Attributes:
        task: its name.
        kind: what is asked.
        round: the model version.
        waiting: clients that have not answered.
        offered: those of them that fetched the task.
        answered: how many have.
        seconds: until everybody left counts as lost.
    """

    task: str
    kind: TaskKind
    round: int
    waiting: tuple[str, ...]
    offered: tuple[str, ...]
    answered: int
    seconds: float


def not_open(task: str) -> AnabranchError:
    """AB-713: an answer that nobody waits for."""
    return AnabranchError(
        "AB-713",
        f"task {task} is not open for this client.",
        fix="nothing: the client asks for its next task.",
        kept="The answer was dropped.",
    )


def another(task: str) -> AnabranchError:
    """AB-716: the first answer counts."""
    return AnabranchError(
        "AB-716",
        f"another answer of this client to task {task} was taken before.",
        fix="send each task's answer once; repeat the same bytes after a lost reply.",
        kept="The first answer counts.",
    )


def dropped(outcome: Outcome) -> Outcome:
    """An answer that came, but that nobody will merge, was too late."""
    return replace(outcome, fate=Fate.TOO_LATE) if outcome.fate is Fate.MERGED else outcome
