"""`anabranch verify`: did every update count exactly once, in one history? From the client's files.

What is proved, if the coordinator's key is the pinned one and its signatures cannot be forged:

- each update that was told to be merged is among those of exactly one round, with the bytes that
  the client sent;
- none that was told to be dropped is;
- the rounds that the client was shown are one chain, never rolled back.

What is not proved by one client alone: that others were shown the same chain (compare heads), and
that the model follows from the updates (an auditor with the updates at hand recomputes it).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from anabranch.client.log import Entry
from anabranch.client.task import Fate, TaskKind
from anabranch.errors import AnabranchError
from anabranch.fleet.receipts import Head, Receipt

__all__ = ["Contribution", "Proof", "Verdict", "contributions", "prove", "same_history"]

ASKED, SENT, FATE = "asked", "sent", "fate"
_TRAIN = TaskKind.TRAIN.value
_MERGED = (Fate.MERGED.value, Fate.MERGED_LATE.value)


class Verdict(StrEnum):
    """What became of one update, as far as it can be proved."""

    COUNTED = "counted once"
    UNUSED = "not used, as told"
    OPEN = "not told yet"
    UNPROVED = "told to be merged, without a receipt"
    WRONG = "the receipt does not hold"
    OTHER = "no update of the model"


@dataclass(frozen=True, slots=True)
class Contribution:
    """One update that left.

    Attributes:
        run: id of the run.
        round: the round it was made for.
        task: the task.
        upload: SHA-256 of its bytes.
        bytes: their number.
        at: seconds since 1970 by the client's clock.
        fate: what the coordinator told; empty so far.
        kind: what was asked: ``train``; only such answers become part of a model.
    """

    run: str
    round: int
    task: str
    upload: str
    bytes: int
    at: int
    fate: str = ""
    kind: str = _TRAIN


@dataclass(frozen=True, slots=True)
class Proof:
    """The verdict on one contribution, with the reason where it is bad."""

    contribution: Contribution
    verdict: Verdict
    reason: str = ""

    @property
    def holds(self) -> bool:
        """Whether nothing speaks against the coordinator."""
        return self.verdict not in (Verdict.UNPROVED, Verdict.WRONG)


def contributions(entries: Iterable[Entry]) -> tuple[Contribution, ...]:
    """Every update that left, in order, with its fate; an upload that was repeated is one."""
    found: dict[str, Contribution] = {}
    kinds: dict[str, str] = {}
    for entry in entries:
        task = str(entry.details.get("task", ""))
        if entry.what == ASKED:
            kinds[task] = str(entry.details.get("kind", _TRAIN))
        elif entry.what == SENT:
            found[task] = Contribution(
                run=str(entry.details.get("run", "")),
                round=_number(entry, "round"),
                task=task,
                upload=str(entry.details.get("upload", "")),
                bytes=_number(entry, "bytes"),
                at=entry.at,
                kind=kinds.get(task, _TRAIN),
            )
        elif entry.what == FATE and task in found:
            found[task] = replace(found[task], fate=str(entry.details.get("fate", "")))
    return tuple(found.values())


def _number(entry: Entry, key: str) -> int:
    value = entry.details.get(key)
    return value if isinstance(value, int) else 0


def prove(
    sent: Iterable[Contribution],
    receipts: Mapping[str, Sequence[Receipt]],
    name: str,
    coordinator: bytes,
    heads: Mapping[tuple[str, int], Head],
) -> tuple[Proof, ...]:
    """A verdict on every contribution.

    Args:
        sent: from the client's log.
        receipts: every one that the client was given, by task.
        name: of the client.
        coordinator: the pinned public key.
        heads: of every round that the client was shown, by run and round.
    """
    return tuple(_one(part, receipts.get(part.task, ()), name, coordinator, heads) for part in sent)


def _one(
    part: Contribution,
    receipts: Sequence[Receipt],
    name: str,
    coordinator: bytes,
    heads: Mapping[tuple[str, int], Head],
) -> Proof:
    if not receipts and part.kind != _TRAIN:
        return Proof(part, Verdict.OTHER)
    if not receipts:
        if part.fate in _MERGED:
            return Proof(part, Verdict.UNPROVED)
        return Proof(part, Verdict.UNUSED if part.fate else Verdict.OPEN)
    receipt = receipts[0]
    if len(receipts) > 1:
        rounds = ", ".join(str(found.head.head.round) for found in receipts)
        return Proof(part, Verdict.WRONG, f"it has several receipts (rounds {rounds})")
    try:
        head = receipt.verified(coordinator)
    except AnabranchError as error:
        return Proof(part, Verdict.WRONG, error.message)
    leaf = receipt.leaf
    if (leaf.client, leaf.task, leaf.upload) != (name, part.task, part.upload):
        return Proof(part, Verdict.WRONG, "it is about another update than the one that was sent")
    if head.run != part.run:
        return Proof(part, Verdict.WRONG, f"it is of run {head.run!r}")
    if heads.get((head.run, head.round), head) != head:
        return Proof(part, Verdict.WRONG, f"round {head.round} was shown with another head before")
    if part.fate and part.fate not in _MERGED:
        return Proof(part, Verdict.WRONG, f"it was told to be {part.fate!r}, and it was used")
    return Proof(part, Verdict.COUNTED)


def same_history(ours: Iterable[Head], theirs: Iterable[Head]) -> tuple[Head, ...]:
    """Our heads that another client was shown differently; none when the histories agree."""
    other = {(head.run, head.round): head for head in theirs}
    return tuple(head for head in ours if other.get((head.run, head.round), head) != head)
