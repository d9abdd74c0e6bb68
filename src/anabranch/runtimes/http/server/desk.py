"""The state between one run and its clients: open tasks, answers, fates. No network here.

Every method may be called by any thread. The run's thread submits and waits for events; the
server's thread offers and accepts.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from anabranch.client.task import TaskKind
from anabranch.coordinator.runtime import Fate, Outcome, Payload, RuntimeEvent, Work
from anabranch.runtimes.http.limits import HttpLimits
from anabranch.runtimes.http.messages import TaskFate, TaskOffer, sha256
from anabranch.runtimes.http.server.pieces import (
    OpenTask,
    Piece,
    RunFacts,
    another,
    dropped,
    not_open,
)
from anabranch.runtimes.http.server.shelf import Shelf
from anabranch.runtimes.http.server.spool import Answer, Spool
from anabranch.updates.container import Buffer

__all__ = ["Desk", "OpenTask", "RunFacts"]

WakeLater: TypeAlias = Callable[[Iterable[str], float, Callable[[str], bool]], None]

_FATES_SECONDS = 0.5
_WIDEST = 8
"""Bytes of the widest number in an update."""


class Desk:
    """Hands out the tasks of one run and takes answers.

    Args:
        facts: of the run.
        shelf: where downloads are put.
        spool: where answers and fates are durable.
        limits: bounds.
        wake: called with the names of clients for whom something changed.
        clock: monotonic seconds.
        barred: why a client cannot take part now; empty when it can.
        wake_later: like ``wake``, after some seconds, for whom it is still wanted then.
    """

    def __init__(
        self,
        facts: RunFacts,
        shelf: Shelf,
        spool: Spool,
        limits: HttpLimits,
        wake: Callable[[Iterable[str]], None],
        clock: Callable[[], float] = time.monotonic,
        barred: Callable[[str], str] = lambda name: "",
        wake_later: WakeLater = lambda names, seconds, wanted: None,
    ) -> None:
        self.facts = facts
        self._shelf, self._spool = shelf, spool
        self._limits, self._wake, self._clock = limits, wake, clock
        self._barred, self._wake_later = barred, wake_later
        self._numbers = {name: number for number, name in enumerate(facts.names)}
        self._changed = threading.Condition()
        self._pieces: dict[str, Piece] = {}
        self._closed_pieces: deque[Piece] = deque(maxlen=limits.remembered)
        self._unsettled: dict[str, set[int]] = {}
        self._events: list[RuntimeEvent] = []
        self._answers: dict[tuple[str, int], Answer] = {}
        self._unnamed = ""
        self._newest = 0
        self._done: list[str] = []
        self._held: list[tuple[str, TaskFate]] = []
        self._fates: dict[str, dict[str, TaskFate]] = {}
        self._seen: set[str] = set()
        self._told: set[str] = set()
        self._last: dict[str, float] = {}
        self._until: float | None = None
        self._going = self._closed = False

    # The coordinator's side ----------------------------------------------------------------

    def recover(self, last: int) -> None:
        """After a restart: which fates may be told, given the store's last durable round."""
        self._spool.release(self.facts.run, last=last)
        for task, client, fate in self._spool.unheard(self.facts.run):
            self._tell(client, TaskFate(task=task, fate=fate))

    def equip(self, equipment: str) -> None:
        """Tasks that are opened from now on refer to this download."""
        with self._changed:
            self.facts = replace(self.facts, equipment=equipment)

    def submit(self, work: Work, parts: Sequence[Buffer]) -> None:
        """Open one task for each client of ``work``; ``parts`` are what they download.

        Clients whose answer lies in the spool since before a restart are not asked again.
        """
        task = work.task or secrets.token_hex(16)
        known = self._spool.answers(task) if work.task else {}
        barred = {c: why for c in work.clients if (why := self._barred(self.facts.names[c]))}
        item = self._shelf.put(parts)
        with self._changed:
            piece = self._pieces.get(task)
            if piece is None:
                piece = self._opened(task, work, item.digest, item.size)
            else:
                self._shelf.drop(item.digest)
            piece.waiting |= set(work.clients) - piece.taken.keys()
            self._newest = max(self._newest, work.round)
            for name, answer in known.items():
                client = self._numbers.get(name)
                if client in piece.waiting and (answer.content is not None or answer.file):
                    self._take(piece, client, answer)
            for client, why in barred.items():
                self._lost(piece, client, why)
        self._wake(self.facts.names[client] for client in work.clients)

    def _opened(self, task: str, work: Work, digest: str, size: int) -> Piece:
        if not work.task:
            self._unnamed = task
        offer = TaskOffer(
            task=task,
            kind=work.kind,
            round=work.round,
            draw=work.draw or work.round,
            broadcast=digest,
            bytes=size,
            run=self.facts.run,
            contract=self.facts.contract,
            equipment=self.facts.equipment,
        )
        limit = _WIDEST * work.fold.sections.size + self._limits.overhead_bytes
        if work.kind is TaskKind.EXCHANGE:
            limit = self._limits.letter_bytes
        piece = Piece(work, offer, limit, self._clock() + self._limits.task_seconds)
        self._pieces[task] = piece
        if work.kind is TaskKind.TRAIN:
            self._unsettled[task] = set()
        return piece

    def events(
        self, timeout: float | None, deadline: float | None = None
    ) -> Sequence[RuntimeEvent]:
        """What happened; waits at most ``timeout`` seconds, or until a task expires.

        ``deadline`` is for `status`: seconds until whoever asks goes on without the rest.
        """
        until = None if timeout is None else self._clock() + timeout
        with self._changed:
            self._going = self._going or self._newest > 0
            self._until = None if deadline is None else self._clock() + deadline
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

    def payload(self, event: Payload) -> Payload:
        """The event with its bytes, which are read as late as possible.

        Raises:
            AnabranchError: AB-6xx the answer cannot be read.
        """
        with self._changed:
            answer = self._answers.pop((event.task, event.client))
        return replace(event, content=self._spool.content(answer))

    def abandon(self, task: str | None = None) -> Sequence[Outcome]:
        """Close a piece of work or all; what nobody has looked at yet is dropped."""
        with self._changed:
            pieces = [p for p in self._pieces.values() if task in (None, p.work.task)]
            late = [
                Outcome(client, Fate.TOO_LATE, task=piece.work.task)
                for piece in pieces
                for client in sorted(piece.waiting)
            ]
            unseen = [e for e in self._events if task in (None, e.task)]
            late += [dropped(event) for event in unseen if isinstance(event, Outcome)]
            for event in unseen:
                if isinstance(event, Payload):
                    self._answers.pop((event.task, event.client), None)
            self._events = [e for e in self._events if task not in (None, e.task)]
            for piece in pieces:
                self._close(piece)
        return late

    def settle(self, task: str, fates: Mapping[int, Fate], *, hold: bool) -> None:
        """The fates of a training task; ``hold`` keeps them until `release`.

        A client that never heard of its task has nothing pending, and is told nothing.
        """
        names = self.facts.names
        with self._changed:
            task = task or self._unnamed
            asked = self._unsettled.pop(task, set())
            told = {names[c]: fate for c, fate in fates.items() if c in asked}
            self._held += [(n, TaskFate(task=task, fate=fate)) for n, fate in told.items()]
            after = self._newest - 1
        self._spool.hold(self.facts.run, task, told, after)
        if not hold:
            self.release()

    def uploads(self, task: str, clients: Iterable[int]) -> dict[str, str]:
        """SHA-256 of what these clients answered to a task, by name."""
        with self._changed:
            pieces = (*self._pieces.values(), *self._closed_pieces)
            taken = next((p.taken for p in pieces if p.offer.task == task), {})
            names = self.facts.names
            return {names[client]: taken[client] for client in clients if taken.get(client)}

    def release(self) -> None:
        """The round is durable: clients may hear of the fates that were held back."""
        with self._changed:
            held, self._held = self._held, []
            done, self._done = self._done, []
            for name, fate in held:
                self._tell(name, fate)
        # Usually the next task brings the fates along; without one they are told after a while.
        self._wake_later([name for name, _ in held], _FATES_SECONDS, self._has_fates)
        self._spool.release(self.facts.run)
        self._spool.forget(done)

    def _has_fates(self, name: str) -> bool:
        with self._changed:
            return bool(self._fates.get(name))

    def _tell(self, name: str, fate: TaskFate) -> None:
        fates = self._fates.setdefault(name, {})
        fates[fate.task] = fate
        while len(fates) > self._limits.remembered:  # of a client that never confirms
            del fates[next(iter(fates))]

    def lose(self, name: str, why: str) -> None:
        """The client will not answer: no round waits for it."""
        with self._changed:
            client = self._numbers.get(name, -1)
            for piece in list(self._pieces.values()):
                self._lost(piece, client, why)

    @property
    def unheard(self) -> int:
        """Fates that clients have not confirmed."""
        with self._changed:
            return sum(len(fates) for fates in self._fates.values())

    def status(self) -> tuple[OpenTask, ...]:
        """Every open piece of work."""
        names, now = self.facts.names, self._clock()
        with self._changed:
            until = self._until
            return tuple(
                OpenTask(
                    piece.offer.task,
                    piece.work.kind,
                    piece.work.round,
                    tuple(names[client] for client in sorted(piece.waiting)),
                    tuple(names[client] for client in sorted(piece.waiting & piece.offered.keys())),
                    len(piece.taken),
                    max(0.0, min(piece.expires, until or piece.expires) - now),
                )
                for piece in self._pieces.values()
            )

    def close(self, *, farewell: bool = True) -> None:
        """No more tasks; every client that was ever seen is told at its next contact."""
        with self._changed:
            self._closed = self._going = True
            seen = set(self._seen)
        self._wake(seen)
        with self._changed:
            if farewell:
                seconds = self._limits.farewell_seconds
                self._changed.wait_for(lambda: self._seen <= self._told, timeout=seconds)
            for piece in list(self._pieces.values()):
                self._close(piece)

    @property
    def closed(self) -> bool:
        """Whether there will be no more tasks."""
        return self._closed

    # The clients' side ---------------------------------------------------------------------

    def knows(self, name: str) -> bool:
        """Whether the client takes part in this run."""
        return name in self._numbers

    def contact(self, name: str, heard: Iterable[str]) -> tuple[TaskOffer | None, list[TaskFate]]:
        """What there is to do and to know; ``heard`` are tasks whose fates arrived."""
        client = self._numbers[name]
        with self._changed:
            self._seen.add(name)
            self._last[name] = self._clock()
            fates = self._fates.get(name, {})
            confirmed = [task for task in heard if fates.pop(task, None) is not None]
            offer = None if self._closed else self._next(client)
            if self._closed:
                self._told.add(name)
            self._changed.notify_all()
            told = list(fates.values())
        self._spool.hear(name, confirmed)
        return offer, told

    def fate(self, task: str, name: str) -> TaskFate | None:
        """The fate of a task that a client asks for; None while it is open or not yet durable.

        After a restart a task that is not known may be given out again. Once the run waits for
        answers, everything that is open was given out: what is not known then was too late.
        """
        known = self._spool.fate(task, name)
        if known is not None:
            return TaskFate(task=task, fate=known)
        with self._changed:
            held = any(held.task == task for _, held in self._held)
            open_ = held or task in self._pieces or task in self._unsettled
            return None if open_ or not self._going else TaskFate(task=task, fate=Fate.TOO_LATE)

    def letter(self, task: str, name: str) -> bytes | None:
        """The bytes of an interactive stage for this client alone."""
        with self._changed:
            piece, client = self._find(task, name)
            return piece.work.letters.get(client)

    def holds(self, task: str, name: str) -> bool:
        """Whether the task is known here, and this client's."""
        with self._changed:
            return self._found(task, name) is not None

    def limit(self, task: str, name: str) -> int:
        """Largest upload in bytes.

        Raises:
            AnabranchError: AB-713 the task does not exist, was closed, or is another client's.
        """
        with self._changed:
            return self._find(task, name)[0].limit

    def reserve(self, task: str, name: str, digest: str) -> bool:
        """An answer is about to be made durable; whether it was taken before.

        Raises:
            AnabranchError: AB-713 as in `limit`, AB-716 another answer was taken or is coming.
        """
        with self._changed:
            piece, client = self._find(task, name)
            if client in piece.taken and piece.taken[client] == digest:
                return True
            if piece.taken.get(client, piece.coming.get(client, digest)) != digest:
                raise another(task)
            if client in piece.waiting:
                piece.coming[client] = digest
            return False

    def unreserve(self, task: str, name: str) -> None:
        """The answer could not be made durable."""
        with self._changed:
            found = self._found(task, name)
            if found is not None:
                found[0].coming.pop(found[1], None)

    def seconds(self, task: str, name: str) -> float:
        """Since the client was offered the task.

        Raises:
            AnabranchError: AB-713 as in `limit`.
        """
        with self._changed:
            piece, client = self._find(task, name)
            now = self._clock()
            return now - piece.offered.get(client, now)

    def accept(self, answer: Answer) -> bool:
        """Take a durable answer; whether it had been taken before.

        Raises:
            AnabranchError: AB-713 as in `limit`, AB-716 another answer was taken before.
        """
        with self._changed:
            piece, client = self._find(answer.task, answer.client)
            piece.coming.pop(client, None)
            if client in piece.taken:
                if piece.taken[client] == answer.digest:
                    return True
                raise another(answer.task)
            self._take(piece, client, answer)
        return False

    def fail(self, task: str, name: str, fate: Fate, detail: str) -> None:
        """The client has no acceptable answer; after an answer or a failure nothing changes.

        Raises:
            AnabranchError: AB-713 as in `limit`.
        """
        with self._changed:
            piece, client = self._find(task, name)
            if client not in piece.taken:
                now = self._clock()
                seconds = now - piece.offered.get(client, now)
                outcome = Outcome(client, fate, detail, seconds, task=piece.work.task)
                self._answered(piece, client, "", [outcome])

    # Under the lock ------------------------------------------------------------------------

    def _next(self, client: int) -> TaskOffer | None:
        for piece in self._pieces.values():
            if client in piece.waiting:
                now = self._clock()
                piece.offered.setdefault(client, now)
                if piece.work.kind is TaskKind.TRAIN:
                    self._unsettled[piece.offer.task].add(client)
                letter, fraction = piece.work.letters.get(client), piece.work.fractions.get(client)
                left = max(0.0, piece.expires - now)
                return piece.offer.model_copy(
                    update={
                        "milliseconds": int(1000 * left),
                        "letter": sha256(letter) if letter is not None else "",
                        "fraction": repr(float(fraction)) if fraction is not None else "",
                    }
                )
        return None

    def _found(self, task: str, name: str) -> tuple[Piece, int] | None:
        client = self._numbers.get(name, -1)
        for piece in (*self._pieces.values(), *self._closed_pieces):
            if piece.offer.task == task and (client in piece.waiting or client in piece.taken):
                return piece, client
        return None

    def _find(self, task: str, name: str) -> tuple[Piece, int]:
        found = self._found(task, name)
        if found is None:
            raise not_open(task)
        return found

    def _take(self, piece: Piece, client: int, answer: Answer) -> None:
        name = piece.work.task
        self._answers[name, client] = answer
        if piece.work.kind is TaskKind.TRAIN:
            self._unsettled.setdefault(piece.offer.task, set()).add(client)
        outcome = Outcome(
            client, Fate.MERGED, "", answer.milliseconds / 1000, answer.size, task=name
        )
        self._answered(piece, client, answer.digest, [Payload(client, b"", name), outcome])

    def _answered(
        self, piece: Piece, client: int, digest: str, events: Iterable[RuntimeEvent]
    ) -> None:
        piece.waiting.discard(client)
        piece.taken[client] = digest
        self._events += events
        if not piece.waiting:
            self._close(piece)
        self._changed.notify_all()

    def _close(self, piece: Piece) -> None:
        piece.waiting.clear()
        if self._pieces.pop(piece.offer.task, None) is not None:
            self._closed_pieces.append(piece)
            self._shelf.drop(piece.offer.broadcast)
            self._done.append(piece.offer.task)
            piece.work = replace(piece.work, broadcast={})  # a model is not kept for a repetition

    def _lost(self, piece: Piece, client: int, why: str) -> None:
        if client in piece.waiting:
            outcome = Outcome(client, Fate.LOST, why, task=piece.work.task)
            piece.waiting.discard(client)
            self._events.append(outcome)
            if not piece.waiting:
                self._close(piece)
            self._changed.notify_all()

    def _expire(self) -> None:
        now = self._clock()
        for piece in list(self._pieces.values()):
            for client in sorted(piece.waiting - piece.offered.keys()):
                seen = self._last.get(self.facts.names[client])
                if seen is not None and now - seen > self._limits.absent_seconds:
                    self._lost(piece, client, "it left, and has not come back for the task")
        for piece in [piece for piece in self._pieces.values() if piece.expires <= now]:
            detail = f"no answer within {self._limits.task_seconds:g} s"
            name = piece.work.task
            self._events += [
                Outcome(c, Fate.LOST, detail, task=name) for c in sorted(piece.waiting)
            ]
            self._close(piece)
