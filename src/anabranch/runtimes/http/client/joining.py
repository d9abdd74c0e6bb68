"""`join`: the loop of a client. It asks for a task, executes it, answers, and asks again."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from anabranch.client.answers import Answers
from anabranch.client.program import ClientProgram
from anabranch.client.task import Fate, TaskKind
from anabranch.errors import AnabranchError
from anabranch.learners.threads import one_thread
from anabranch.privacy.secure_aggregation.session import ClientSession
from anabranch.runtimes.http.client.line import GONE, Line
from anabranch.runtimes.http.client.options import (
    Credentials,
    JoinOptions,
    Route,
)
from anabranch.runtimes.http.client.receiving import NOT_HELD
from anabranch.runtimes.http.client.reporting import Reporter
from anabranch.runtimes.http.client.transfer import Traffic, download, letter, upload
from anabranch.runtimes.http.client.workplace import ClientData, Workplace
from anabranch.runtimes.http.held import HeldBroadcasts
from anabranch.runtimes.http.memory import ClientMemory
from anabranch.runtimes.http.messages import Acceptance, Contact, Failure, Summons, TaskOffer
from anabranch.updates.container import Buffer

__all__ = ["DECLINED", "OF_THE_DISK", "OF_THE_LINE", "Attendance", "join"]

OF_THE_LINE: Final = frozenset(
    {GONE, "AB-710", "AB-712", "AB-718", "AB-719", "AB-721", "AB-731", "AB-737", "AB-738"}
    | {"AB-747", "AB-748", "AB-749", "AB-756", "AB-757", "AB-740", "AB-741"}
)
"""Errors of this client and its line, not of a task: they are not reported but raised."""

OF_THE_DISK: Final = frozenset({"AB-602", "AB-603", "AB-613"})
"""This client's disk is full or fails: tasks fail here until it works again."""

_REST_SECONDS: Final = 1.0

_NOT_TAKEN: Final = frozenset({"AB-714", "AB-715", "AB-716"})
"""What the coordinator says of one answer; the next task may go better."""

DECLINED: Final = frozenset(
    {"AB-743", "AB-744", "AB-918", "AB-923", "AB-924", "AB-929", "AB-979"} | {"AB-795", "AB-992"}
)
"""The site's own policy or count, or a person who has not agreed yet."""


class Place(Protocol):
    """Answers the tasks of one run."""

    def readable(self, offer: TaskOffer) -> TaskOffer:
        """The task with a download that can be read here."""
        ...

    def answer(
        self, offer: TaskOffer, name: str, content: Buffer, letter: bytes = b""
    ) -> tuple[Buffer, ...]:
        """The answer's bytes in parts."""
        ...


class Places(Protocol):
    """Finds the place of a task, and keeps the two-phase memories of all runs."""

    def place(self, offer: TaskOffer, line: Line) -> Place:
        """Where this task is done.

        Raises:
            AnabranchError: AB-743 the client's policy declines; others: it cannot be done.
        """
        ...

    def memories(self) -> Mapping[str, ClientMemory]:
        """The memories by run."""
        ...

    def told(self, task: str, fate: Fate) -> None:
        """The coordinator told what became of a task; the memories know already."""
        ...

    def prove(self, line: Line, *, now: bool) -> None:
        """Fetch what proves that updates counted, if it is time, or ``now``.

        Raises:
            AnabranchError: AB-748 what the coordinator shows does not hold.
        """
        ...

    def consider(self, summons: Summons, line: Line) -> Acceptance:
        """What this client thinks of an amended contract."""
        ...


@dataclass(frozen=True)
class _Single:
    """One run, whose program the caller built."""

    workplace: Workplace

    def place(self, offer: TaskOffer, line: Line) -> Place:
        return self.workplace

    def memories(self) -> Mapping[str, ClientMemory]:
        return {"": self.workplace.memory}

    def told(self, task: str, fate: Fate) -> None:
        """What was kept to be sent again is not needed any more."""
        if self.workplace.answers is not None:
            self.workplace.answers.settled(task)

    def prove(self, line: Line, *, now: bool) -> None:
        """Who has no home keeps no proofs."""

    def consider(self, summons: Summons, line: Line) -> Acceptance:
        """The caller built the program from one contract, and there is no other."""
        return Acceptance(contract=summons.contract, accepted=False, code="AB-744")


def join(
    url: str,
    name: str,
    program: ClientProgram,
    data: ClientData,
    directory: Path,
    options: JoinOptions | None = None,
    credentials: Credentials | None = None,
    route: Route | None = None,
    session: ClientSession | None = None,
) -> int:
    """Work for the coordinator at ``url`` until it says that the run is over.

    Args:
        url: such as ``http://127.0.0.1:8080``.
        name: identifier of this client.
        program: built from the same plan as the coordinator's.
        data: this client's examples; they never leave.
        directory: for the client's memory between rounds.
        options: how patient.
        credentials: keys, where the coordinator has a roster.
        route: proxies and authorities.
        session: of secure sums, where the plan has them.

    Returns:
        The number of answers that were taken.

    Raises:
        AnabranchError: AB-712 the federation has no such client, AB-718 the coordinator was not
            reached for longer than the patience, AB-719 it does not speak this protocol, AB-721
            the memory is another program's, AB-756 not admitted, AB-757 not the pinned
            coordinator, AB-740 or AB-741 its certificate, AB-6xx the disk.
    """
    options = options or JoinOptions()
    line = Line(url, name, options, credentials, route)
    memory = ClientMemory(directory, program.memory.size, faults=options.faults)
    held = HeldBroadcasts.of(program, directory)
    answers = Answers(directory) if program.private or session is not None else None
    try:
        with one_thread():
            line.hello()
            return Attendance(
                line, _Single(Workplace(program, data, memory, session, answers, held))
            ).work()
    finally:
        line.close()


def told_of(error: AnabranchError) -> str:
    """What the coordinator is told of an error: of the disk not where its folders are."""
    disk = error.code in OF_THE_DISK
    return "the client's disk is full or fails" if disk else error.message[:2000]


def _failure(error: AnabranchError) -> Failure:
    declined = error.code in DECLINED
    return Failure(code=error.code, detail=told_of(error), declined=declined)


@dataclass
class Attendance:
    """A client at work.

    Attributes:
        line: to the coordinator.
        places: where tasks are done.
        traffic: bytes moved so far.
    """

    line: Line
    places: Places
    traffic: Traffic = field(default_factory=Traffic)
    _down: tuple[str, Buffer] | None = None
    _reporter: Reporter | None = None

    def __post_init__(self) -> None:
        if self.line.options.meter is not None:
            self._reporter = Reporter(self.line.options.meter)

    def work(self) -> int:
        """Tasks until the run is over; the number of answers that were taken."""
        heard: list[str] = []
        taken = 0
        options = self.line.options
        while options.running():
            contact = self.line.contact(heard, self._unresolved(heard))
            try:
                heard = self._hear(contact)
                self.places.prove(self.line, now=contact.closed)
            except AnabranchError as error:
                heard = self._hampered(error, contact)
                continue
            for summons in contact.contracts:
                self._answer_summons(summons)
            if contact.task is not None:
                taken += self._do(contact.task)
            elif contact.closed:
                break  # what was just heard cannot be confirmed any more, and need not be
            elif contact.again:
                self.rest(contact.again / 1000)
        if not options.running():
            self.places.prove(self.line, now=True)
        return taken

    def _answer_summons(self, summons: Summons) -> None:
        """Say yes or no; the coordinator asks again after a no."""
        try:
            acceptance = self.places.consider(summons, self.line)
            self.line.options.on_summons(summons, acceptance)
            self.line.accept(summons, acceptance)
        except AnabranchError as error:
            if error.code not in (GONE, "AB-717"):  # the run has ended, or its daemon was killed
                raise

    def once(
        self, heard: dict[str, Fate] | None = None, unresolved: tuple[str, ...] = ()
    ) -> TaskOffer | None:
        """One contact without waiting: fates are applied and confirmed; the task, if there is one.

        Args:
            heard: gets the fates by task.
            unresolved: further tasks, by run, whose fate is wanted.
        """
        contact = self.line.contact([], [*self._unresolved([]), *unresolved])
        if heard is not None:
            heard |= {fate.task: fate.fate for fate in contact.fates}
        for summons in contact.contracts:
            self._answer_summons(summons)
        if contact.fates:  # told until they are confirmed; what comes with that is newer
            contact = self.line.contact(self._hear(contact))
        return contact.task

    def _hear(self, contact: Contact) -> list[str]:
        """Apply the fates of a contact; their tasks, to be confirmed with the next one."""
        faults = self.line.options.faults
        for fate in contact.fates:
            faults.reach("fate.heard")
            for memory in self.places.memories().values():
                memory.hear(fate.task, fate.fate)
            self.places.told(fate.task, fate.fate)
            faults.reach("fate.applied")
        return [fate.task for fate in contact.fates]

    def _hampered(self, error: AnabranchError, contact: Contact) -> list[str]:
        """The disk here cannot keep what was told: no task is done until it can.

        Nothing is confirmed, so that the fates are told again.
        """
        if error.code not in OF_THE_DISK:
            raise error
        options = self.line.options
        options.on_trouble(error)
        if contact.task is not None:
            self._report(contact.task, _failure(error))  # at once: the others wait for it
        else:
            self.rest(_REST_SECONDS)
        return []

    def _report(self, offer: TaskOffer, failure: Failure) -> None:
        try:
            self.line.report(offer, failure)
        except AnabranchError as error:
            if error.code != GONE:  # closed in the meantime
                raise

    def rest(self, seconds: float) -> None:
        """The coordinator is being drained: come back later, and only then."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and self.line.options.running():
            time.sleep(min(0.2, seconds))

    def _unresolved(self, heard: list[str]) -> list[str]:
        """Tasks by run whose fate the client needs before it goes on."""
        return [
            f"{run}/{task}"
            for run, memory in self.places.memories().items()
            for task in memory.unresolved()
            if task not in heard
        ]

    def _do(self, offer: TaskOffer) -> int:
        self.line.options.on_task(offer)
        try:
            self._answer(offer)
        except AnabranchError as error:
            if error.code == GONE:
                return 0  # closed in the meantime
            if error.code not in _NOT_TAKEN:
                raise
            self.line.options.on_trouble(error)
            self.rest(_REST_SECONDS)  # it may be asked again at once
            return 0
        return 1

    def _answer(self, offer: TaskOffer) -> None:
        try:
            parts = self.answered(offer)
        except AnabranchError as error:
            if error.code in OF_THE_LINE:
                raise
            self.line.options.on_trouble(error)
            self.line.report(offer, _failure(error))
            return
        except Exception as error:
            # A user's module may raise anything. The text could quote data, so the class must do.
            self.line.options.on_trouble(error)
            self.line.report(offer, Failure(code="", detail=type(error).__name__))
            return
        if self._reporter is not None:
            self._reporter.tell(self.line, offer)
        faults = self.line.options.faults
        faults.reach("update.ready")
        upload(self.line, offer.task, parts, self.traffic)
        faults.reach("update.acknowledged")

    def answered(self, offer: TaskOffer) -> tuple[Buffer, ...]:
        """The answer to a task, not yet sent.

        Raises:
            AnabranchError: it cannot be given.
        """
        self.line.options.faults.reach("task.received")
        place = self.places.place(offer, self.line)
        more = letter(self.line, offer, self.traffic)
        try:
            return self._made(place, place.readable(offer), more)
        except AnabranchError as error:
            if error.code != NOT_HELD:
                raise
        return self._made(place, offer.self_contained(), more)

    def _made(self, place: Place, offer: TaskOffer, letter: bytes) -> tuple[Buffer, ...]:
        started = time.monotonic()
        content = self._content(offer)
        if offer.kind is not TaskKind.TRAIN or self._reporter is None:
            return place.answer(offer, self.line.name, content, letter)
        with self._reporter.task(place, time.monotonic() - started):
            return place.answer(offer, self.line.name, content, letter)

    def _content(self, offer: TaskOffer) -> Buffer:
        """What the task refers to; the last download is kept, for it may be asked again."""
        if offer.kind in (TaskKind.EXCHANGE, TaskKind.MASK):
            return b""
        if self._down is None or self._down[0] != offer.broadcast:
            self._down = None  # the old model goes before the new one comes
            content = download(self.line, offer.broadcast, offer.bytes, self.traffic)
            self._down = (offer.broadcast, content)
        return self._down[1]
