"""Where a member does its tasks: by the contract that it downloaded, under its own policy.

The client trusts nothing but its own files and what is signed: the contract is named by its digest
in every task, the plan is made of it here, and the site's policy is asked before anything is
computed and again before anything leaves.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from anabranch.client.answers import ANSWERS, Answers
from anabranch.client.contract import check_amendment, plan_of_contract
from anabranch.client.equipment import Equipment, build_program
from anabranch.client.policy import Decision
from anabranch.client.program import ClientProgram
from anabranch.client.secure import known_by, secure_session
from anabranch.client.task import Fate, TaskKind
from anabranch.data.federation import Examples
from anabranch.disk import Faults, no_faults
from anabranch.errors import AnabranchError
from anabranch.fleet.roster import SignedRoster
from anabranch.plan import Plan
from anabranch.privacy.secure_aggregation.session import ClientSession
from anabranch.runtimes.http.client.counting import PURPOSES, Counting
from anabranch.runtimes.http.client.joining import (
    OF_THE_LINE,
    Place,
    told_of,
)
from anabranch.runtimes.http.client.line import Line, parsed
from anabranch.runtimes.http.client.options import not_the_protocol
from anabranch.runtimes.http.client.proving import Proving
from anabranch.runtimes.http.client.site import (
    OWN_SOURCES,
    SiteData,
    open_site,
    public_part,
)
from anabranch.runtimes.http.client.workplace import Workplace, answered_once
from anabranch.runtimes.http.held import HeldBroadcasts
from anabranch.runtimes.http.memory import ClientMemory
from anabranch.runtimes.http.messages import Acceptance, Summons, TaskOffer
from anabranch.updates.container import Buffer, joined
from anabranch.updates.wire import packed_parts

if TYPE_CHECKING:
    from anabranch.client.home import ClientHome

__all__ = ["MemberPlaces"]

_RUNS: Final = 8
_DOCUMENT: Final = 64 << 20


@dataclass
class _Joined:
    """A run at this client."""

    plan: Plan
    memory: ClientMemory | None = None
    site: SiteData | None = None
    workplace: Workplace | None = None
    equipment: str = ""

    def training_rows(self) -> Examples | None:
        """Whose rows this client trains on; None before its data were read."""
        if self.workplace is not None:
            return self.workplace.data.train
        return self.site.training_rows if self.site is not None else None


@dataclass
class MemberPlaces:
    """The runs that a member works for.

    Attributes:
        name: of the client.
        data: the site's folder or file; None for public sources only.
        directory: for memories between rounds; one folder a run.
        home: policy, log and proofs; None on loopback without identities.
        engine: how models are trained here.
        differences: whether the coordinator sends them, so that models are kept here.
    """

    name: str
    data: Path | None
    directory: Path
    home: ClientHome | None = None
    engine: str = "auto"
    differences: bool = True
    _runs: dict[str, _Joined] = field(default_factory=dict)
    _read: tuple[int, ...] = ()
    _retired: dict[str, ClientMemory] = field(default_factory=dict)
    _contracts: dict[str, tuple[str, Mapping[str, object]]] = field(default_factory=dict)

    def place(self, offer: TaskOffer, line: Line) -> Place:
        """Where a task is done, once the site agrees.

        Raises:
            AnabranchError: AB-743, AB-744 declined; AB-2xx the data; AB-3xx the model; AB-763 the
                data have changed under the run.
        """
        if not offer.run or not offer.contract:
            raise not_the_protocol("its task belongs to no run")
        self._unchanged()
        run = self._run(offer, line)
        if self.home is not None:
            asked = self.home.gate.asked(offer.run, offer.task, offer.kind.value, offer.round)
            asked.require()
        if self._proving is not None and offer.kind is TaskKind.TRAIN:
            self._proving.offered(offer.task, offer.run, offer.round)
        place = self._prepared(run, offer, line)
        told = place.answers is not None if isinstance(place, _Statistics) else True
        if self._counting is not None and offer.kind in PURPOSES and told:
            self._counting.before(run.plan, offer, run.training_rows, line)
        return _Watched(place, self.home) if self.home is not None else place

    def memories(self) -> Mapping[str, ClientMemory]:
        """Of the runs at hand, and of those that only the disk knows since a restart."""
        at_hand = {
            run.memory.directory.name: run.memory
            for run in self._runs.values()
            if run.memory is not None
        }
        return {**self._dormant, **self._retired, **at_hand}

    @cached_property
    def _dormant(self) -> Mapping[str, ClientMemory]:
        """Memories of earlier processes: their fates may come before the run's next task.

        Nothing is read from them, so their length does not matter.
        """
        sealer = self.home.vault if self.home is not None else None
        folders = self.directory.iterdir() if self.directory.is_dir() else ()
        return {
            folder.name: ClientMemory(folder, 1, sealer, self._faults)
            for folder in folders
            if folder.is_dir()
        }

    @property
    def _faults(self) -> Faults:
        return self.home.faults if self.home is not None else no_faults

    def told(self, task: str, fate: Fate) -> None:
        """The coordinator told what became of a task; its answer need not be kept any longer."""
        for answers in self._kept():
            answers.settled(task)
        if self.home is not None:
            self.home.gate.told(task, fate)
        if self._proving is not None:
            self._proving.told(task, fate)

    def _kept(self) -> Iterator[Answers]:
        """Of the runs of this process and of earlier ones."""
        sealer = self.home.vault if self.home is not None else None
        for folder in self.directory.iterdir() if self.directory.is_dir() else ():
            if (folder / ANSWERS).is_dir():
                yield Answers(folder, sealer)

    def prove(self, line: Line, *, now: bool) -> None:
        """Fetch what proves that updates counted."""
        if self._proving is not None:
            self._proving.fetch(line, now=now)

    @cached_property
    def _proving(self) -> Proving | None:
        """An enrolled client keeps proofs; another knows no key that could sign them."""
        enrolled = self.home is not None and self.home.enrolled
        return Proving(self.home) if self.home is not None and enrolled else None

    @cached_property
    def _counting(self) -> Counting | None:
        """A client with a home counts its own privacy."""
        return Counting(self.home, self.name) if self.home is not None else None

    def _run(self, offer: TaskOffer, line: Line) -> _Joined:
        found = self._runs.get(f"{offer.run}/{offer.contract}")
        if found is not None:
            return found
        contract = self._read_contract(line, offer.contract)
        self._considered(contract, offer.contract, offer.run).require()
        plan = plan_of_contract(contract, offer.contract, str(self.data or "."))
        plan = plan.replace(runtime=plan.runtime.replace(engine=self.engine))
        memory: ClientMemory | None = None
        for older in [key for key in self._runs if key.startswith(f"{offer.run}/")]:
            memory = self._runs.pop(older).memory  # amended: fates may come before its next task
        while len(self._runs) >= _RUNS:
            gone = self._runs.pop(next(iter(self._runs)))
            if gone.memory is not None:  # its fates may still come
                self._retired[gone.memory.directory.name] = gone.memory
        run = self._runs[f"{offer.run}/{offer.contract}"] = _Joined(plan, memory)
        return run

    def _read_contract(self, line: Line, digest: str) -> dict[str, object]:
        contract = json.loads(document(line, digest))
        if not isinstance(contract, dict):
            raise not_the_protocol("its contract is not a JSON object")
        return contract

    def _considered(self, contract: Mapping[str, object], digest: str, run: str) -> Decision:
        """What the site's policy and its people say of a contract; without a home nobody asks."""
        if self.home is not None:
            roster = self.home.roster
            members = len(list(roster.active())) if roster is not None else 0
            return self.home.contracts.consider(contract, digest, members, run)
        plan_of_contract(contract, digest, str(self.data or "."))
        known = self._contracts.get(run)
        if known is not None and known[0] != digest:
            check_amendment(known[1], known[0], contract, digest)
        self._contracts[run] = (digest, contract)
        return Decision(True)

    def consider(self, summons: Summons, line: Line) -> Acceptance:
        """What this site thinks of an amended contract; why not is told, too."""
        digest = summons.contract
        try:
            contract = self._read_contract(line, digest)
            decision = self._considered(contract, digest, summons.run)
            code, reason = decision.code, decision.reason
        except AnabranchError as error:
            if error.code in OF_THE_LINE:
                raise
            line.options.on_trouble(error)
            decision, code, reason = Decision(False), error.code, told_of(error)
        return Acceptance(
            contract=digest, accepted=decision.accepted, code=code, reason=reason[:2000]
        )

    def _prepared(self, run: _Joined, offer: TaskOffer, line: Line) -> Place:
        if run.workplace is not None and run.equipment == offer.equipment:
            return run.workplace
        try:
            equipment = Equipment.model_validate_json(document(line, offer.equipment))
        except ValidationError as error:
            raise not_the_protocol("its equipment is not the declared JSON object") from error
        own = run.plan.data.source in OWN_SOURCES
        if own and run.site is None:
            run.site = open_site(run.plan, self.name, self._folder())
        if offer.kind is TaskKind.STATISTICS or equipment.stage != "ready":
            if run.site is None:
                raise not_the_protocol("it asks for statistics of public data")
            return self._statistics(run.plan, run.site, equipment, offer.run)
        data = (
            run.site.examples(equipment)
            if run.site is not None
            else public_part(run.plan, self.name)
        )
        shape = data.train.x.shape[1:]
        tokens = equipment.tokens
        program = build_program(run.plan, shape, equipment.classes, tokens)
        sealer = self.home.vault if self.home is not None else None
        folder, size = self.directory / offer.run, program.memory.size
        run.memory = ClientMemory(folder, size, sealer, self._faults)
        run.equipment = offer.equipment
        session = self._session(run.plan, program, offer.run, line)
        once = program.private or session is not None
        answers = Answers(self.directory / offer.run, sealer) if once else None
        held = HeldBroadcasts.of(program, folder, sealer) if self.differences else None
        run.workplace = Workplace(program, data, run.memory, session, answers, held)
        return run.workplace

    def _statistics(
        self, plan: Plan, site: SiteData, equipment: Equipment, run: str
    ) -> _Statistics:
        """Sums over columns; where the promise pays for them they hold noise, and are made once."""
        paid = plan.privacy is not None and plan.privacy.statistics_share > 0
        if not paid or equipment.stage != "columns":
            return _Statistics(site, equipment)
        sealer = self.home.vault if self.home is not None else None
        return _Statistics(site, equipment, Answers(self.directory / run, sealer))

    def _session(
        self, plan: Plan, program: ClientProgram, run: str, line: Line
    ) -> ClientSession | None:
        """Of secure sums, under the identity and the roster of this member."""
        if plan.secure_aggregation is None:
            return None
        home, folder = self.home, self.directory / run
        if home is None:
            return secure_session(plan, program, self.name, folder)
        rules = home.policy.privacy

        def refresh() -> None:
            home.accept_roster(parsed(SignedRoster, line.send("GET", "/roster")))

        return secure_session(
            plan,
            program,
            self.name,
            folder,
            identity=home.identity,
            known=known_by(lambda: home.roster, refresh, rules.vouched, rules.min_vouched),
            sealer=home.vault,
        )

    def _folder(self) -> Path:
        if self.data is None:
            raise AnabranchError(
                "AB-762",
                "the contract is about data of the sites, and this client was given none.",
                fix="join with --data DIR, the folder or file of this site.",
                kept="Nothing was sent.",
            )
        return self.data

    def _unchanged(self) -> None:
        """Refuse to go on when the data folder was exchanged under a running client."""
        if self.data is None:
            return
        seen = _stamp(self.data)
        if self._read and seen != self._read:
            raise AnabranchError(
                "AB-763",
                f"the data in {self.data} have changed or are gone since this client began.",
                fix="put the data back, or start the client again so that it reads them anew.",
                kept="Nothing was sent.",
            )
        self._read = seen


def _stamp(path: Path) -> tuple[int, ...]:
    """What changes when a file or the files of a folder change; (0,) when there are none."""
    try:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        found = [file.stat() for file in files if file.is_file()]
    except OSError:
        return (0,)
    return tuple(number for s in found for number in (s.st_ino, s.st_size, s.st_mtime_ns)) or (0,)


def document(line: Line, digest: str) -> bytes:
    """A small download whose size is not known, checked against its name.

    Raises:
        AnabranchError: AB-714 the bytes are not those of the name; as `Line.send`.
    """
    content = line.send("GET", f"/blobs/{digest}").content
    if len(content) > _DOCUMENT or hashlib.sha256(content).hexdigest() != digest:
        raise AnabranchError(
            "AB-714",
            "the download is not the bytes that its name promises.",
            fix="look at what stands between client and coordinator (a proxy that changes "
            "content?).",
            kept="Nothing was sent.",
        )
    return content


@dataclass(frozen=True)
class _Statistics:
    """Declared sums over this site's training rows."""

    site: SiteData
    equipment: Equipment
    answers: Answers | None = None

    def readable(self, offer: TaskOffer) -> TaskOffer:
        return offer

    def answer(
        self, offer: TaskOffer, name: str, content: Buffer, letter: bytes = b""
    ) -> tuple[Buffer, ...]:
        if self.answers is None:
            return self._made()
        return (answered_once(self.answers, offer, letter, self._made),)

    def _made(self) -> tuple[Buffer, ...]:
        return packed_parts(*self.site.answer(self.equipment))


@dataclass(frozen=True)
class _Watched:
    """A place whose answers leave only when the site's policy says so, and are written down."""

    inner: Place
    home: ClientHome

    def readable(self, offer: TaskOffer) -> TaskOffer:
        return self.inner.readable(offer)

    def answer(
        self, offer: TaskOffer, name: str, content: Buffer, letter: bytes = b""
    ) -> tuple[Buffer, ...]:
        parts = (joined(self.inner.answer(offer, name, content, letter)),)
        self.home.gate.leaving(offer.run, offer.task, offer.round, parts[0]).require()
        return parts
