"""The heads of one run: what its rounds did, signed, durable with each round, shown after it.

A round's head and the uploads under it are an event of the round's record, so they become durable
in the round's own transaction, and a coordinator that is killed shows the same head again. Clients
are given heads and receipts only of committed rounds (`anabranch.fleet.receipts`).

Any thread may ask; the run's thread writes.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final, TypeAlias

import numpy as np

from anabranch.coordinator.store import Arrays, Json, RoundRecord, StoredEvent
from anabranch.errors import AnabranchError
from anabranch.fleet.receipts import FIRST_HEAD, Head, Leaf, Receipt, RoundTree, SignedHead

__all__ = ["HEAD_EVENT", "RunHeads", "model_digest", "read_head"]

HEAD_EVENT: Final = "head"
"""Kind of the event that holds a head."""

_MODEL: Final = "server.model"
_EMPTY: Final = hashlib.sha256().hexdigest()
_TREES: Final = 32  # rounds whose uploads stay in memory; older ones are read again


ReadHeads: TypeAlias = Callable[[int | None], Sequence[StoredEvent]]


def _nothing(round_: int | None) -> Sequence[StoredEvent]:
    return ()


class RunHeads:
    """Makes heads, and proves with them.

    Args:
        run: id of the run.
        sign: signs as the coordinator.
    """

    def __init__(self, run: str, sign: Callable[[Head], SignedHead]) -> None:
        self.run, self._sign = run, sign
        self._read: ReadHeads = _nothing
        self._lock = threading.Lock()
        self._settled: list[Leaf] = []
        self._made: list[tuple[SignedHead, RoundTree]] = []
        self._heads: list[SignedHead] = []
        self._rounds: dict[str, int] = {}
        self._trees: dict[int, RoundTree] = {}

    # The run's thread ----------------------------------------------------------------------

    def recall(self, read: ReadHeads) -> None:
        """The run begins or goes on.

        Args:
            read: the stored head events of one round, or of all (None).

        Raises:
            AnabranchError: AB-748 a stored head is damaged.
        """
        self._read = read
        for event in read(None):
            self._show(*read_head(event))

    def settled(self, task: str, uploads: Mapping[str, str]) -> None:
        """Updates that the round being made has merged.

        Args:
            task: name of the piece of work.
            uploads: SHA-256 of the bytes by client name.
        """
        leaves = [Leaf(client=name, task=task, upload=u) for name, u in uploads.items()]
        self._settled += leaves

    def witness(self, record: RoundRecord) -> RoundRecord:
        """The record with the head of its round, which follows from the head before."""
        tree, self._settled = RoundTree(self._settled), []
        with self._lock:
            before = [*self._heads[-1:], *(signed for signed, _ in self._made)]
        previous = before[-1].head.digest if before else FIRST_HEAD
        head = tree.head(self.run, record.round, model_digest(record.state), previous)
        signed = self._sign(head)
        self._made.append((signed, tree))
        return replace(record, events=(*record.events, _event(signed, tree)))

    def committed(self) -> None:
        """Everything made so far is durable: clients may see it."""
        made, self._made = self._made, []
        for signed, tree in made:
            self._show(signed, tree)

    # Any thread ----------------------------------------------------------------------------

    def heads(self, after: int, most: int = 500) -> tuple[SignedHead, ...]:
        """At most ``most`` heads of rounds later than ``after``, in order."""
        with self._lock:
            first = self._heads[0].head.round if self._heads else 0
            start = max(0, after + 1 - first)
            return tuple(self._heads[start : start + most])

    def receipt(self, client: str, task: str) -> tuple[Receipt, RoundTree] | None:
        """The receipt of a client's update, and the tree that it is of; None without one.

        Raises:
            AnabranchError: AB-748 the stored record of the round is damaged.
        """
        with self._lock:
            number = self._rounds.get(task)
            if number is None:
                return None
            signed = self._heads[number - self._heads[0].head.round]
            tree = self._trees.get(number)
        if tree is None:
            stored = self._read(number)
            if not stored:
                return None
            signed, tree = read_head(stored[0])
        receipt = tree.receipt(client, task, signed)
        return (receipt, tree) if receipt is not None else None

    def _show(self, signed: SignedHead, tree: RoundTree) -> None:
        number = signed.head.round
        with self._lock:
            self._heads.append(signed)
            self._rounds |= {leaf.task: number for leaf in tree.leaves}
            self._trees[number] = tree
            while len(self._trees) > _TREES:
                del self._trees[next(iter(self._trees))]


def model_digest(state: Arrays) -> str:
    """SHA-256 of a round's model: its float32 values, little-endian, in the order of the layout.

    >>> model_digest({"server.model": np.zeros(0, np.float32)})[:16]
    'e3b0c44298fc1c14'
    """
    model = np.ascontiguousarray(state[_MODEL], np.dtype("<f4"))
    return hashlib.sha256(model.data).hexdigest() if model.size else _EMPTY


def _event(signed: SignedHead, tree: RoundTree) -> StoredEvent:
    leaves: list[list[str]] = [[leaf.client, leaf.task, leaf.upload] for leaf in tree.leaves]
    details: dict[str, Json] = {"signed": signed.model_dump_json(), "leaves": leaves}
    head = signed.head
    text = f"{head.count} updates, model {head.model[:16]}, uploads {head.uploads[:16]}"
    return StoredEvent(HEAD_EVENT, text, details=details)


def read_head(event: StoredEvent) -> tuple[SignedHead, RoundTree]:
    """The head of a round and the uploads under it, as the store keeps them.

    Raises:
        AnabranchError: AB-748 the event is damaged.
    """
    try:
        signed = SignedHead.model_validate_json(str(event.details["signed"]))
        leaves = event.details["leaves"]
        if not isinstance(leaves, list):
            raise ValueError("leaves")
        tree = RoundTree(Leaf(client=c, task=t, upload=u) for c, t, u in leaves)
        if tree.root != signed.head.uploads:
            raise ValueError("root")
    except (KeyError, ValueError, TypeError) as error:
        raise AnabranchError(
            "AB-748",
            f"the stored head of round {event.round} is damaged.",
            fix="restore the store from a backup; clients would notice another history.",
        ) from error
    return signed, tree
