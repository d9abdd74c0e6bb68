"""The desks of all runs behind one counter: a client asks once and hears of every run."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from anabranch.client.task import Fate
from anabranch.runtimes.http.messages import Contact, Summons, TaskFate, TaskOffer
from anabranch.runtimes.http.server.desk import Desk
from anabranch.runtimes.http.server.pieces import not_open
from anabranch.runtimes.http.versions import SPOKEN, Version

__all__ = ["Office", "Seen"]

_AGAIN_MILLISECONDS = 5000


@dataclass
class Seen:
    """When a client was here last.

    Attributes:
        at: monotonic seconds.
        heard: contacts so far.
    """

    at: float
    heard: int = 0


@dataclass
class Office:
    """Every open run's desk.

    Attributes:
        seen: clients by name, with their last contact.
        draining: no new tasks are given out.
    """

    seen: dict[str, Seen] = field(default_factory=dict)
    draining: bool = False
    _desks: list[Desk] = field(default_factory=list)
    _known: set[str] = field(default_factory=set)
    _ended: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, desk: Desk) -> None:
        """A run begins."""
        with self._lock:
            older = [d for d in self._desks if d.closed and d.facts.run == desk.facts.run]
            self._desks = [*(d for d in self._desks if d not in older), desk]
            self._ended.discard(desk.facts.run)
            self._known |= set(desk.facts.names)

    def expect(self, names: Iterable[str]) -> None:
        """Clients that may come before their run begins."""
        with self._lock:
            self._known |= set(names)

    def remove(self, desk: Desk) -> None:
        """A run is over; its desk stays until every client has heard its last fates."""
        if desk.unheard == 0:
            with self._lock:
                self._desks = [other for other in self._desks if other is not desk]
                if desk.closed:
                    self._ended.add(desk.facts.run)

    def drop(self, desk: Desk) -> None:
        """A run is interrupted and will come back: until then nothing is said of its tasks."""
        with self._lock:
            self._desks = [other for other in self._desks if other is not desk]

    def lose(self, name: str, why: str) -> None:
        """A client will answer nothing any more."""
        for desk in self._desks:
            desk.lose(name, why)

    @property
    def desks(self) -> Sequence[Desk]:
        """In the order in which the runs began."""
        return self._desks

    def knows(self, name: str) -> bool:
        """Whether any run has or had this client."""
        return name in self._known

    def contact(
        self,
        name: str,
        heard: Sequence[str],
        unresolved: Iterable[str],
        now: float,
        version: Version = SPOKEN.newest,
    ) -> Contact:
        """What there is to do and to know, from all runs.

        Args:
            name: the client.
            heard: tasks whose fates arrived.
            unresolved: run and task (``RUN/TASK``) whose fate the client needs.
            now: monotonic seconds.
            version: of the protocol that the client speaks.
        """
        seen = self.seen.setdefault(name, Seen(now))
        seen.at, seen.heard = now, seen.heard + 1
        desks = [desk for desk in self._desks if desk.knows(name)]
        offer: TaskOffer | None = None
        fates: dict[str, TaskFate] = {}
        for desk in desks:
            if desk.facts.muster is not None:
                desk.facts.muster.speaks(name, version)
            found, told = desk.contact(name, heard)
            fates |= {fate.task: fate for fate in told}
            if offer is None and not self.draining:
                offer = found
        for fate in self._asked(desks, name, unresolved):
            fates.setdefault(fate.task, fate)
        if self._desks and offer is not None and len(desks) > 1:
            self._turn(desks)
        for desk in desks:
            if desk.closed and desk.facts.run:
                self.remove(desk)
        closed = bool(desks) and all(desk.closed for desk in desks) and len(desks) == 1
        return Contact(
            task=offer,
            fates=tuple(fates.values()),
            closed=closed and not desks[0].facts.run,
            again=_AGAIN_MILLISECONDS if self.draining else 0,
            contracts=() if self.draining else _summons(desks, name),
        )

    def of_run(self, run: str, name: str) -> Desk | None:
        """The desk of a run in which the client takes part."""
        named = (desk for desk in self._desks if desk.facts.run == run and desk.knows(name))
        return next(named, None)

    def _asked(self, desks: Sequence[Desk], name: str, unresolved: Iterable[str]) -> list[TaskFate]:
        """Fates that are certain; of a run that is not carried now nothing is."""
        by_run = {desk.facts.run: desk for desk in desks}
        told = []
        for text in unresolved:
            run, _, task = text.rpartition("/")
            fate = by_run[run].fate(task, name) if run in by_run else None
            if run in self._ended and run not in by_run:  # who heard its fate would not ask
                fate = TaskFate(task=task, fate=Fate.TOO_LATE)
            if fate is not None:
                told.append(fate)
        return told

    def _turn(self, desks: Sequence[Desk]) -> None:
        """Runs take turns: whoever gave out a task goes to the end of the line."""
        with self._lock:
            first = next((desk for desk in desks if desk in self._desks), None)
            if first is not None:
                self._desks = [*(d for d in self._desks if d is not first), first]

    def of_task(self, task: str, name: str) -> Desk:
        """The desk where a task of this client is known.

        Raises:
            AnabranchError: AB-713 nowhere.
        """
        for desk in self._desks:
            if desk.holds(task, name):
                return desk
        raise not_open(task)


def _summons(desks: Sequence[Desk], name: str) -> tuple[Summons, ...]:
    """Amended contracts that the client has not accepted, of the runs that are carried."""
    musters = [desk.facts.muster for desk in desks if not desk.closed]
    found = [muster.summons(name) for muster in musters if muster is not None]
    return tuple(summons for summons in found if summons is not None)
