"""The pieces of work that a desk has given out, and what came back.

Every method is called under the desk's lock.
"""

from __future__ import annotations

import math
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from anabranch.client.task import TaskKind
from anabranch.coordinator.runtime import Fate, Outcome, Payload, RuntimeEvent, Work
from anabranch.runtimes.http.limits import HttpLimits
from anabranch.runtimes.http.messages import TaskOffer, sha256
from anabranch.runtimes.http.server.downloads import Downloads
from anabranch.runtimes.http.server.pieces import (
    OpenTask,
    Piece,
    RunFacts,
    another,
    dropped,
    not_open,
)
from anabranch.runtimes.http.server.shelf import Shelf
from anabranch.runtimes.http.server.spool import Answer

__all__ = ["Tray"]

_WIDEST = 8
"""Bytes of the widest number in an update."""


class Tray:
    """Open work of one run.

    Args:
        names: client identifiers, in the order of client numbers.
        shelf: where downloads lie.
        limits: bounds.
        changed: the desk's lock; whoever waits for events is told.
        clock: monotonic seconds.

    Attributes:
        pieces: what is open, by task.
        closed: what was open last, for repeated uploads.
        unsettled: clients that heard of a training task whose fate is not known yet, by task.
        events: for the run, in order.
        answers: durable answers that nobody has read yet, by task and client.
        newest: the newest round that was asked for.
        done: tasks that were closed since the last commit.
        last: monotonic seconds of each client's last contact.
        missed: when a client was given up that had not come for its task, by number.
    """

    def __init__(
        self,
        names: Sequence[str],
        shelf: Shelf,
        limits: HttpLimits,
        changed: threading.Condition,
        clock: Callable[[], float],
    ) -> None:
        self._names, self._shelf, self._limits = names, shelf, limits
        self._changed, self._clock = changed, clock
        self._numbers = {name: number for number, name in enumerate(names)}
        self._unnamed = ""
        self.pieces: dict[str, Piece] = {}
        self.closed: deque[Piece] = deque(maxlen=limits.remembered)
        self.unsettled: dict[str, set[int]] = {}
        self.events: list[RuntimeEvent] = []
        self.answers: dict[tuple[str, int], Answer] = {}
        self.newest = 0
        self.done: list[str] = []
        self.last: dict[str, float] = {}
        self.missed: dict[int, float] = {}

    def number(self, name: str) -> int:
        """Of a client; -1 where the run has none of that name."""
        return self._numbers.get(name, -1)

    # Giving out ----------------------------------------------------------------------------

    def put(self, work: Work, downloads: Downloads, facts: RunFacts) -> Piece:
        """Open a piece of work, or more of one that is open; it refers to ``downloads``."""
        task = work.task or secrets.token_hex(16)
        piece = self.pieces.get(task)
        if piece is None:
            piece = self._opened(task, work, downloads, facts)
        else:
            downloads.drop(self._shelf)
        piece.waiting |= set(work.clients) - piece.taken.keys()
        self.newest = max(self.newest, work.round)
        self._skip(piece)
        return piece

    def _skip(self, piece: Piece) -> None:
        """Who did not come for a task and has not been here since is not waited for again.

        Unless there is nobody else: then everybody is given time to come back.
        """
        away = {
            client
            for client in piece.waiting & self.missed.keys()
            if self.last.get(self._names[client], -math.inf) <= self.missed[client]
        }
        if away < piece.waiting:
            for client in sorted(away):
                self.lose(piece, client, "it did not come for its last task, nor since")

    def _opened(self, task: str, work: Work, downloads: Downloads, facts: RunFacts) -> Piece:
        if not work.task:
            self._unnamed = task
        offer = TaskOffer(
            task=task,
            kind=work.kind,
            round=work.round,
            draw=work.draw or work.round,
            broadcast=downloads.common.digest,
            bytes=downloads.common.size,
            decoded=downloads.decoded,
            run=facts.run,
            contract=facts.contract,
            equipment=facts.equipment,
        )
        limit = _WIDEST * work.fold.sections.size + self._limits.overhead_bytes
        if work.kind is TaskKind.EXCHANGE:
            limit = self._limits.letter_bytes
        expires = self._clock() + self._limits.task_seconds
        piece = Piece(work, offer, downloads, limit, expires)
        self.pieces[task] = piece
        if work.kind is TaskKind.TRAIN:
            self.unsettled[task] = set()
        return piece

    def next(self, client: int) -> TaskOffer | None:
        """The first task that a client has not answered; from now on it has heard of it."""
        for piece in self.pieces.values():
            if client in piece.waiting:
                now = self._clock()
                piece.offered.setdefault(client, now)
                if piece.work.kind is TaskKind.TRAIN:
                    self.unsettled[piece.offer.task].add(client)
                letter, fraction = piece.work.letters.get(client), piece.work.fractions.get(client)
                left = max(0.0, piece.expires - now)
                if piece.work.seconds is not None:
                    begun = piece.expires - self._limits.task_seconds
                    left = min(left, max(0.0, begun + piece.work.seconds - now))
                return piece.downloads.offered(piece.offer, client).model_copy(
                    update={
                        "milliseconds": int(1000 * left),
                        "letter": sha256(letter) if letter is not None else "",
                        "update_bytes": piece.work.update_bytes.get(client, 0),
                        "fraction": repr(float(fraction)) if fraction is not None else "",
                    }
                )
        return None

    def fetched(self, client: int, digest: str) -> None:
        """A client asked for a download."""
        for piece in self.pieces.values():
            if client in piece.waiting:
                piece.downloads.told(client, digest)

    # Finding -------------------------------------------------------------------------------

    def found(self, task: str, name: str) -> tuple[Piece, int] | None:
        """The piece that a task of this client belongs to, and the client's number."""
        client = self.number(name)
        for piece in (*self.pieces.values(), *self.closed):
            if piece.offer.task == task and (client in piece.waiting or client in piece.taken):
                return piece, client
        return None

    def find(self, task: str, name: str) -> tuple[Piece, int]:
        """As `found`.

        Raises:
            AnabranchError: AB-713 the task does not exist, was closed, or is another client's.
        """
        found = self.found(task, name)
        if found is None:
            raise not_open(task)
        return found

    def uploads(self, task: str, clients: Iterable[int]) -> dict[str, str]:
        """SHA-256 of what these clients answered to a task, by name."""
        pieces = (*self.pieces.values(), *self.closed)
        taken = next((p.taken for p in pieces if p.offer.task == task), {})
        return {self._names[client]: taken[client] for client in clients if taken.get(client)}

    def settled(self, task: str, fates: Mapping[int, Fate]) -> tuple[str, dict[str, Fate]]:
        """The name of a training task, and the fates of those who had heard of it."""
        task = task or self._unnamed
        asked = self.unsettled.pop(task, set())
        return task, {self._names[c]: fate for c, fate in fates.items() if c in asked}

    def status(self, until: float | None) -> tuple[OpenTask, ...]:
        """Every open piece; ``until`` is when whoever asks goes on without the rest."""
        now = self._clock()
        return tuple(
            OpenTask(
                piece.offer.task,
                piece.work.kind,
                piece.work.round,
                tuple(self._names[c] for c in sorted(piece.waiting)),
                tuple(self._names[c] for c in sorted(piece.waiting & piece.offered.keys())),
                len(piece.taken),
                max(0.0, min(piece.expires, until or piece.expires) - now),
            )
            for piece in self.pieces.values()
        )

    # What came back ------------------------------------------------------------------------

    def reserve(self, piece: Piece, client: int, digest: str) -> bool:
        """An answer is about to be made durable; whether it was taken before.

        Raises:
            AnabranchError: AB-716 another answer was taken or is coming.
        """
        if client in piece.taken and piece.taken[client] == digest:
            return True
        if piece.taken.get(client, piece.coming.get(client, digest)) != digest:
            raise another(piece.offer.task)
        if client in piece.waiting:
            piece.coming[client] = digest
        return False

    def accept(self, piece: Piece, client: int, answer: Answer) -> bool:
        """Take a durable answer, unless it had been taken; whether it had.

        Raises:
            AnabranchError: AB-716 another answer was taken before.
        """
        piece.coming.pop(client, None)
        if client not in piece.taken:
            self.take(piece, client, answer)
            return False
        if piece.taken[client] != answer.digest:
            raise another(answer.task)
        return True

    def take(self, piece: Piece, client: int, answer: Answer) -> None:
        """A durable answer came."""
        name = piece.work.task
        self.answers[name, client] = answer
        if piece.work.kind is TaskKind.TRAIN:
            self.unsettled.setdefault(piece.offer.task, set()).add(client)
        whole = client in piece.downloads.fetched
        outcome = Outcome(
            client,
            Fate.MERGED,
            seconds=answer.milliseconds / 1000,
            bytes_up=answer.size,
            task=name,
            bytes_down=piece.work.bytes_whole() if whole else None,
        )
        self._answered(piece, client, answer.digest, [Payload(client, b"", name), outcome])

    def fail(self, piece: Piece, client: int, fate: Fate, detail: str) -> None:
        """The client says that it has no answer."""
        now = self._clock()
        seconds = now - piece.offered.get(client, now)
        outcome = Outcome(client, fate, detail, seconds, task=piece.work.task)
        self._answered(piece, client, "", [outcome])

    def _answered(
        self, piece: Piece, client: int, digest: str, events: Iterable[RuntimeEvent]
    ) -> None:
        piece.waiting.discard(client)
        piece.taken[client] = digest
        self.events += events
        if not piece.waiting:
            self.close(piece)
        self._changed.notify_all()

    def lose(self, piece: Piece, client: int, why: str, fate: Fate = Fate.LOST) -> None:
        """Nothing will come from this client."""
        if client in piece.waiting:
            piece.waiting.discard(client)
            self.events.append(Outcome(client, fate, why, task=piece.work.task))
            if not piece.waiting:
                self.close(piece)
            self._changed.notify_all()

    def expire(self) -> None:
        """Lose those who left without their task, and all of a task that is too old."""
        now = self._clock()
        for piece in list(self.pieces.values()):
            for client in sorted(piece.waiting - piece.offered.keys()):
                seen = self.last.get(self._names[client])
                if seen is not None and now - seen > self._limits.absent_seconds:
                    self.lose(piece, client, "it left, and has not come back for the task")
        for piece in [piece for piece in self.pieces.values() if piece.expires <= now]:
            detail = f"no answer within {self._limits.task_seconds:g} s"
            name = piece.work.task
            self.events += [Outcome(c, Fate.LOST, detail, task=name) for c in sorted(piece.waiting)]
            self.close(piece)

    def abandon(self, task: str | None) -> list[Outcome]:
        """Close a piece of work or all; what nobody has looked at yet is dropped."""
        pieces = [p for p in self.pieces.values() if task in (None, p.work.task)]
        late = [
            Outcome(client, Fate.TOO_LATE, task=piece.work.task)
            for piece in pieces
            for client in sorted(piece.waiting)
        ]
        unseen = [e for e in self.events if task in (None, e.task)]
        late += [dropped(event) for event in unseen if isinstance(event, Outcome)]
        for event in unseen:
            if isinstance(event, Payload):
                self.answers.pop((event.task, event.client), None)
        self.events = [e for e in self.events if task not in (None, e.task)]
        now = self._clock()
        for piece in pieces:
            # Work that was open for a moment says nothing of who did not come: its line may have
            # been cut just then.
            if now - (piece.expires - self._limits.task_seconds) >= self._limits.come_seconds:
                self.missed |= dict.fromkeys(piece.waiting - piece.offered.keys(), now)
            self.close(piece)
        return late

    def close(self, piece: Piece) -> None:
        """Nobody is asked any more; repeated uploads are still recognised."""
        piece.waiting.clear()
        if self.pieces.pop(piece.offer.task, None) is not None:
            self.closed.append(piece)
            piece.downloads.drop(self._shelf)
            self.done.append(piece.offer.task)
            piece.work = replace(piece.work, broadcast={})  # a model is not kept for a repetition
