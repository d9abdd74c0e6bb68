"""The state between one run and its clients: open tasks, answers, fates. No network here.

Every method may be called by any thread. The run's thread submits and waits for events; the
server's thread offers and accepts.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from anabranch.client.task import TaskKind
from anabranch.coordinator.runtime import Fate, Outcome, Payload, RuntimeEvent, Work
from anabranch.runtimes.http.limits import HttpLimits
from anabranch.runtimes.http.messages import TaskFate, TaskOffer
from anabranch.runtimes.http.server.downloads import Downloads
from anabranch.runtimes.http.server.fates import Fates
from anabranch.runtimes.http.server.pieces import OpenTask, RunFacts
from anabranch.runtimes.http.server.shelf import Shelf
from anabranch.runtimes.http.server.spool import Answer, Spool
from anabranch.runtimes.http.server.tray import Tray
from anabranch.updates.sections import Sections

__all__ = ["Desk", "OpenTask", "RunFacts"]

WakeLater: TypeAlias = Callable[[Iterable[str], float, Callable[[str], bool]], None]

_FATES_SECONDS = 0.5


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
        self._changed = threading.Condition()
        self._tray = Tray(facts.names, shelf, limits, self._changed, clock)
        self._fates = Fates(facts.run, spool, self._changed, limits.remembered)
        self._seen: set[str] = set()
        self._told: set[str] = set()
        self._until: float | None = None
        self._going = self._closed = False

    # The coordinator's side ----------------------------------------------------------------

    def recover(self, last: int) -> None:
        """After a restart: which fates may be told, given the store's last durable round."""
        self._fates.recover(last)

    def equip(self, equipment: str) -> None:
        """Tasks that are opened from now on refer to this download."""
        with self._changed:
            self.facts = replace(self.facts, equipment=equipment)

    def submit(self, work: Work, sections: Sections) -> None:
        """Open one task for each client of ``work``; ``sections`` is the type of the broadcast.

        Clients whose answer lies in the spool since before a restart are not asked again.
        """
        names = self.facts.names
        known = self._spool.answers(work.task) if work.task else {}
        barred = {c: why for c in work.clients if (why := self._barred(names[c]))}
        excused = {c: why for c in work.clients if (why := self.why_not(names[c]))}
        downloads = Downloads.put(self._shelf, work, sections)
        with self._changed:
            piece = self._tray.put(work, downloads, self.facts)
            for name, answer in known.items():
                client = self._tray.number(name)
                if client in piece.waiting and (answer.content is not None or answer.file):
                    self._tray.take(piece, client, answer)
            for client, why in barred.items():
                self._tray.lose(piece, client, why)
            for client, why in excused.items():
                self._tray.lose(piece, client, why, Fate.DECLINED)
        self._wake(names[client] for client in work.clients)

    def events(
        self, timeout: float | None, deadline: float | None = None
    ) -> Sequence[RuntimeEvent]:
        """What happened; waits at most ``timeout`` seconds, or until a task expires.

        ``deadline`` is for `status`: seconds until whoever asks goes on without the rest.
        """
        until = None if timeout is None else self._clock() + timeout
        tray = self._tray
        with self._changed:
            self._going = self._going or tray.newest > 0
            self._until = None if deadline is None else self._clock() + deadline
            while not tray.events:
                tray.expire()
                if tray.events or not tray.pieces:
                    break
                ends = [piece.expires for piece in tray.pieces.values()]
                wait = min(ends if until is None else [*ends, until]) - self._clock()
                if until is not None and self._clock() >= until:
                    break
                self._changed.wait(max(wait, 0.0))
            events, tray.events = tray.events, []
        return events

    def payload(self, event: Payload) -> Payload:
        """The event with its bytes, which are read as late as possible.

        Raises:
            AnabranchError: AB-6xx the answer cannot be read.
        """
        with self._changed:
            answer = self._tray.answers.pop((event.task, event.client))
        return replace(event, content=self._spool.content(answer))

    def abandon(self, task: str | None = None) -> Sequence[Outcome]:
        """Close a piece of work or all; what nobody has looked at yet is dropped."""
        with self._changed:
            return self._tray.abandon(task)

    def settle(self, task: str, fates: Mapping[int, Fate], *, hold: bool) -> None:
        """The fates of a training task; ``hold`` keeps them until `release`.

        A client that never heard of its task has nothing pending, and is told nothing.
        """
        with self._changed:
            task, told = self._tray.settled(task, fates)
            self._fates.keep(task, told)
            after = self._tray.newest - 1
        self._fates.write(task, told, after)
        if not hold:
            self.release()

    def uploads(self, task: str, clients: Iterable[int]) -> dict[str, str]:
        """SHA-256 of what these clients answered to a task, by name."""
        with self._changed:
            return self._tray.uploads(task, clients)

    def release(self) -> None:
        """The round is durable: clients may hear of the fates that were held back."""
        with self._changed:
            done, self._tray.done = self._tray.done, []
        told = self._fates.release()
        # Usually the next task brings the fates along; without one they are told after a while.
        self._wake_later(told, _FATES_SECONDS, self._fates.waiting_for)
        self._spool.forget(done)

    def lose(self, name: str, why: str) -> None:
        """The client will not answer: no round waits for it."""
        with self._changed:
            client = self._tray.number(name)
            for piece in list(self._tray.pieces.values()):
                self._tray.lose(piece, client, why)

    @property
    def unheard(self) -> int:
        """Fates that clients have not confirmed."""
        return self._fates.unheard

    def status(self) -> tuple[OpenTask, ...]:
        """Every open piece of work."""
        with self._changed:
            return self._tray.status(self._until)

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
            for piece in list(self._tray.pieces.values()):
                self._tray.close(piece)

    @property
    def closed(self) -> bool:
        """Whether there will be no more tasks."""
        return self._closed

    # The clients' side ---------------------------------------------------------------------

    def knows(self, name: str) -> bool:
        """Whether the client takes part in this run."""
        return self._tray.number(name) >= 0

    def contact(self, name: str, heard: Iterable[str]) -> tuple[TaskOffer | None, list[TaskFate]]:
        """What there is to do and to know; ``heard`` are tasks whose fates arrived."""
        with self._changed:
            self._seen.add(name)
            self._tray.last[name] = self._clock()
            confirmed = self._fates.hear(name, heard)
            offer = None if self._closed else self._next(name)
            if self._closed:
                self._told.add(name)
            self._changed.notify_all()
            told = self._fates.of(name)
        self._spool.hear(name, confirmed)
        return offer, told

    def _next(self, name: str) -> TaskOffer | None:
        client, why = self._tray.number(name), self.why_not(name)
        if not why:
            return self._tray.next(client)
        for piece in list(self._tray.pieces.values()):
            self._tray.lose(piece, client, why, Fate.DECLINED)
        return None

    def why_not(self, name: str) -> str:
        """Why a client is given no work of this run, though it may take part; or empty."""
        return self.facts.muster.why_not(name) if self.facts.muster is not None else ""

    def fate(self, task: str, name: str) -> TaskFate | None:
        """The fate of a task that a client asks for; None while it is open or not yet durable.

        After a restart a task that is not known may be given out again. Once the run waits for
        answers, everything that is open was given out: what is not known then was too late.
        """
        known = self._spool.fate(task, name)
        if known is not None:
            return TaskFate(task=task, fate=known)
        with self._changed:
            tray = self._tray
            told = self._fates.told(name, task)
            open_ = self._fates.holds(task) or task in tray.pieces or task in tray.unsettled
            certain = self._going and not open_
        # The round may have become durable since the spool was asked: of a task whose fate is on
        # its way to the disk nobody may say that it was too late.
        if told is None and certain and not self._spool.knows(task, name):
            return TaskFate(task=task, fate=Fate.TOO_LATE)
        return told

    def fetched(self, digest: str, name: str) -> None:
        """A client of this run asked for a download."""
        with self._changed:
            self._tray.fetched(self._tray.number(name), digest)

    def letter(self, task: str, name: str) -> bytes | None:
        """The bytes of an interactive stage for this client alone."""
        with self._changed:
            piece, client = self._tray.find(task, name)
            return piece.work.letters.get(client)

    def holds(self, task: str, name: str) -> bool:
        """Whether the task is known here, and this client's."""
        with self._changed:
            return self._tray.found(task, name) is not None

    def limit(self, task: str, name: str) -> int:
        """Largest upload in bytes.

        Raises:
            AnabranchError: AB-713 the task does not exist, was closed, or is another client's.
        """
        with self._changed:
            return self._tray.find(task, name)[0].limit

    def reserve(self, task: str, name: str, digest: str) -> bool:
        """An answer is about to be made durable; whether it was taken before.

        Raises:
            AnabranchError: AB-713 as in `limit`, AB-716 another answer was taken or is coming.
        """
        with self._changed:
            return self._tray.reserve(*self._tray.find(task, name), digest)

    def unreserve(self, task: str, name: str) -> None:
        """The answer could not be made durable."""
        with self._changed:
            found = self._tray.found(task, name)
            if found is not None:
                found[0].coming.pop(found[1], None)

    def trained(self, task: str, name: str) -> int | None:
        """The round for which the client is asked to train; None where it is asked otherwise.

        Raises:
            AnabranchError: AB-713 as in `limit`.
        """
        with self._changed:
            work = self._tray.find(task, name)[0].work
            return work.round if work.kind is TaskKind.TRAIN else None

    def seconds(self, task: str, name: str) -> float:
        """Since the client was offered the task.

        Raises:
            AnabranchError: AB-713 as in `limit`.
        """
        with self._changed:
            piece, client = self._tray.find(task, name)
            now = self._clock()
            return now - piece.offered.get(client, now)

    def accept(self, answer: Answer) -> bool:
        """Take a durable answer; whether it had been taken before.

        Raises:
            AnabranchError: AB-713 as in `limit`, AB-716 another answer was taken before.
        """
        with self._changed:
            return self._tray.accept(*self._tray.find(answer.task, answer.client), answer)

    def fail(self, task: str, name: str, fate: Fate, detail: str) -> None:
        """The client has no acceptable answer; after an answer or a failure nothing changes.

        Raises:
            AnabranchError: AB-713 as in `limit`.
        """
        with self._changed:
            piece, client = self._tray.find(task, name)
            if client not in piece.taken:
                self._tray.fail(piece, client, fate, detail)
