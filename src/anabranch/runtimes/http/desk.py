"""The state between the coordinator and its clients: open tasks, answers, fates. No network here.

Every method may be called by any thread. The coordinator's thread submits and waits for events; the
server's thread offers and accepts.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from anabranch.client.task import TaskKind
from anabranch.coordinator.runtime import Fate, Outcome, Payload, RuntimeEvent, Work
from anabranch.errors import AnabranchError
from anabranch.runtimes.http.limits import HttpLimits
from anabranch.runtimes.http.messages import Contact, TaskFate, TaskOffer, sha256

__all__ = ["Desk"]

_WIDEST = 8
"""Bytes of the widest number in an update."""


@dataclass
class _Piece:
    """One piece of work: who still has to answer, and what was taken."""

    work: str
    offer: TaskOffer
    limit: int
    expires: float
    waiting: set[int]
    offered: dict[int, float] = field(default_factory=dict)
    taken: dict[int, str] = field(default_factory=dict)


class Desk:
    """Hands out tasks and takes answers.

    Args:
        limits: bounds.
        wake: called with the numbers of clients for whom something changed.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        limits: HttpLimits,
        wake: Callable[[Iterable[int]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits, self._wake, self._clock = limits, wake, clock
        self._changed = threading.Condition()
        self._pieces: dict[str, _Piece] = {}
        self._closed_pieces: deque[_Piece] = deque(maxlen=limits.remembered)
        self._blobs: dict[str, bytes] = {}
        self._events: list[RuntimeEvent] = []
        self._trained: dict[int, str] = {}
        self._held: dict[int, TaskFate] = {}
        self._fates: dict[int, dict[str, TaskFate]] = {}
        self._seen: set[int] = set()
        self._told: set[int] = set()
        self._closed = False

    # The coordinator's side ----------------------------------------------------------------

    def submit(self, work: Work, blob: bytes) -> None:
        """Open one task for each client of ``work``; ``blob`` is what they download."""
        digest, task = sha256(blob), work.task or secrets.token_hex(16)
        offer = TaskOffer(
            task=task, kind=work.kind, round=work.round, broadcast=digest, bytes=len(blob)
        )
        limit = _WIDEST * work.fold.sections.size + self._limits.overhead_bytes
        expires = self._clock() + self._limits.task_seconds
        with self._changed:
            self._blobs[digest] = blob
            self._pieces[task] = _Piece(work.task, offer, limit, expires, set(work.clients))
        self._wake(work.clients)

    def events(self, timeout: float | None) -> Sequence[RuntimeEvent]:
        """What happened; waits at most ``timeout`` seconds, or until a task expires."""
        until = None if timeout is None else self._clock() + timeout
        with self._changed:
            while not self._events:
                self._expire()
                if self._events or not self._pieces:
                    break
                ends = [piece.expires for piece in self._pieces.values()]
                wait = min(ends if until is None else [*ends, until]) - self._clock()
                if until is not None and self._clock() >= until:
                    break
                self._changed.wait(max(wait, 0.0))
            events, self._events = self._events, []
        return events

    def abandon(self, task: str | None = None) -> Sequence[Outcome]:
        """Close one piece of work, or all; what nobody has looked at yet is dropped."""
        with self._changed:
            closed = [p for p in self._pieces.values() if task in (None, p.work)]
            late = [
                Outcome(client, Fate.TOO_LATE, task=piece.work)
                for piece in closed
                for client in sorted(piece.waiting)
            ]
            unseen = [event for event in self._events if task in (None, event.task)]
            late += [_unseen(e) for e in unseen if isinstance(e, Outcome)]
            self._events = [event for event in self._events if task not in (None, event.task)]
            for piece in closed:
                self._close(piece)
        return late

    def settle(self, fates: Mapping[int, Fate], *, hold: bool) -> None:
        """The fate of each client's last training task; ``hold`` keeps it until `release`.

        A client that never heard of its task has nothing pending, and is told nothing.
        """
        with self._changed:
            for client, fate in fates.items():
                if client in self._trained:
                    self._held[client] = TaskFate(task=self._trained.pop(client), fate=fate)
        if not hold:
            self.release()

    def release(self) -> None:
        """Clients may hear of the fates that were held back."""
        with self._changed:
            for client, fate in self._held.items():
                fates = self._fates.setdefault(client, {})
                fates[fate.task] = fate
                while len(fates) > self._limits.remembered:  # of a client that never confirms
                    del fates[next(iter(fates))]
            self._held.clear()

    @property
    def unheard(self) -> int:
        """Fates that clients have not confirmed."""
        with self._changed:
            return sum(len(fates) for fates in self._fates.values())

    def close(self) -> None:
        """No more tasks; every client that was ever seen is told at its next contact."""
        with self._changed:
            self._closed = True
            seen = set(self._seen)
        self._wake(seen)
        with self._changed:
            seconds = self._limits.farewell_seconds
            self._changed.wait_for(lambda: self._seen <= self._told, timeout=seconds)
            self._blobs.clear()

    # The clients' side ---------------------------------------------------------------------

    def contact(self, client: int, heard: Iterable[str]) -> Contact:
        """What there is to do and to know; ``heard`` are tasks whose fates arrived."""
        with self._changed:
            self._seen.add(client)
            for task in heard:
                self._fates.get(client, {}).pop(task, None)
            offer = None if self._closed else self._next(client)
            fates = tuple(self._fates.get(client, {}).values())
            if self._closed:
                self._told.add(client)
            self._changed.notify_all()
            return Contact(task=offer, fates=fates, closed=self._closed)

    def blob(self, digest: str) -> bytes | None:
        """What a task refers to; None when no open task does."""
        with self._changed:
            return self._blobs.get(digest)

    def limit(self, task: str, client: int) -> int:
        """Largest upload in bytes.

        Raises:
            AnabranchError: AB-713 the task does not exist, was closed, or is another client's.
        """
        with self._changed:
            return self._find(task, client).limit

    def accept(self, task: str, client: int, content: bytes) -> bool:
        """Take an update; whether it had been taken before.

        Raises:
            AnabranchError: AB-713 as in `limit`, AB-716 another update was taken before.
        """
        digest = sha256(content)
        with self._changed:
            piece = self._find(task, client)
            if client in piece.taken:
                if piece.taken[client] == digest:
                    return True
                raise AnabranchError(
                    "AB-716",
                    f"another answer of this client to task {task} was taken before.",
                    fix="send each task's answer once; repeat the same bytes after a lost reply.",
                    kept="The first answer counts.",
                )
            seconds = self._seconds(piece, client)
            outcome = Outcome(client, Fate.MERGED, "", seconds, len(content), piece.work)
            payload = Payload(client, content, piece.work)
            self._answered(piece, client, digest, [payload, outcome])
        return False

    def fail(self, task: str, client: int, fate: Fate, detail: str) -> None:
        """The client has no acceptable answer; after an answer or a failure nothing changes.

        Raises:
            AnabranchError: AB-713 as in `limit`.
        """
        with self._changed:
            piece = self._find(task, client)
            if client not in piece.taken:
                seconds = self._seconds(piece, client)
                outcome = Outcome(client, fate, detail, seconds, task=piece.work)
                self._answered(piece, client, "", [outcome])

    # Under the lock ------------------------------------------------------------------------

    def _next(self, client: int) -> TaskOffer | None:
        for piece in self._pieces.values():
            if client in piece.waiting:
                piece.offered.setdefault(client, self._clock())
                if piece.offer.kind is TaskKind.TRAIN:
                    self._trained[client] = piece.offer.task
                return piece.offer
        return None

    def _find(self, task: str, client: int) -> _Piece:
        for piece in (*self._pieces.values(), *self._closed_pieces):
            known = client in piece.waiting or client in piece.taken
            if piece.offer.task == task and known:
                return piece
        raise AnabranchError(
            "AB-713",
            f"task {task} is not open for this client.",
            fix="nothing: the client asks for its next task.",
            kept="The answer was dropped.",
        )

    def _seconds(self, piece: _Piece, client: int) -> float:
        now = self._clock()
        return now - piece.offered.get(client, now)

    def _answered(
        self, piece: _Piece, client: int, digest: str, events: Iterable[RuntimeEvent]
    ) -> None:
        piece.waiting.discard(client)
        piece.taken[client] = digest
        self._events += events
        if not piece.waiting:
            self._close(piece)
        self._changed.notify_all()

    def _close(self, piece: _Piece) -> None:
        piece.waiting.clear()
        self._pieces.pop(piece.offer.task, None)
        self._closed_pieces.append(piece)
        used = {open_.offer.broadcast for open_ in self._pieces.values()}
        self._blobs = {name: blob for name, blob in self._blobs.items() if name in used}

    def _expire(self) -> None:
        now = self._clock()
        for piece in [piece for piece in self._pieces.values() if piece.expires <= now]:
            detail = f"no answer within {self._limits.task_seconds:g} s"
            waiting = sorted(piece.waiting)
            self._events += [Outcome(c, Fate.LOST, detail, task=piece.work) for c in waiting]
            self._close(piece)


def _unseen(outcome: Outcome) -> Outcome:
    """An answer that came, but that nobody will merge, was too late."""
    if outcome.fate is Fate.MERGED:
        return replace(outcome, fate=Fate.TOO_LATE)
    return outcome
