"""Secure sums from end to end in one process: the coordinator's driver and clients' sessions."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from anabranch.aggregation.fold import Accumulator, FoldPlan
from anabranch.client.secure import broadcast_digest
from anabranch.client.task import Fate, TaskKind
from anabranch.coordinator.runtime import Outcome, Partial, Payload, Work
from anabranch.coordinator.secure_journal import MemorySumJournal, SumJournal
from anabranch.coordinator.secure_setup import SecureSetup
from anabranch.coordinator.secure_sum import Phase, SecureSum
from anabranch.privacy.secure_aggregation.checking import SharedChecker
from anabranch.privacy.secure_aggregation.session import ClientSession, Keeper, MemoryKeeper
from anabranch.privacy.secure_aggregation.terms import Known, Shape, Terms
from anabranch.updates.sections import WEIGHT, Kind, Section, Sections, Update, Weighting
from anabranch.updates.total import Total

SECTIONS = Sections(
    (
        Section.vector("delta", 5),
        Section(WEIGHT, 1, Kind.STATISTIC, Weighting.UNIFORM, bound=50.0),
        Section.count("examples"),
        Section.statistic("train_loss_sum"),
    )
)
PLAN = hashlib.sha256(b"plan").digest()


def terms_of(**changes: object) -> Terms:
    shape = Shape(SECTIONS, bound=2.0, weight_bound=50.0)
    made = Terms(PLAN, {"train": shape}, bits=32, corrupt_share=0.0, dropout_share=0.2)
    return replace(made, **changes)  # type: ignore[arg-type]  # any field


def update_of(client: int, seed: int = 0) -> Update:
    draw = np.random.default_rng([seed, client])
    delta = draw.uniform(-2, 2, 5).astype(np.float32)
    numbers = {WEIGHT: float(draw.integers(1, 50)), "examples": float(draw.integers(1, 999))}
    return Update({"delta": delta}, {**numbers, "train_loss_sum": float(draw.uniform(0, 900))})


def broadcast_of(value: float = 0.0) -> dict[str, np.ndarray]:
    return {"model": np.full(5, value, np.float32)}


def identity_of(name: str) -> bytes:
    return hashlib.sha256(b"member " + name.encode()).digest()


@dataclass
class Members:
    """Sessions of all clients, whose keepers a test may look at or set back."""

    names: tuple[str, ...]
    terms: Terms
    known: Known = field(default_factory=Known)
    keeper: Callable[[int], Keeper] = lambda client: MemoryKeeper()
    keepers: dict[int, Keeper] = field(default_factory=dict)
    checker: SharedChecker = field(default_factory=SharedChecker)

    def session(self, client: int) -> ClientSession:
        """A session as it is after a restart: everything it knows is in its keeper."""
        name = self.names[client]
        held = self.keepers.setdefault(client, self.keeper(client))
        return ClientSession(
            name, identity_of(name), self.terms, self.known, held, self.checker, os.urandom
        )


@dataclass
class Bench:
    """A run's driver with its members; messages travel as the bytes of letters.

    Attributes:
        gone: client numbers that vanish before they answer, by phase.
        heard: phases and clients that were asked, in order.
    """

    clients: int = 6
    terms: Terms = field(default_factory=terms_of)
    journal: SumJournal = field(default_factory=MemorySumJournal)
    gone: Mapping[Phase, Collection[int]] = field(default_factory=dict)
    heard: list[tuple[Phase, int]] = field(default_factory=list)
    members: Members = field(init=False)

    def __post_init__(self) -> None:
        names = tuple(f"client-{number:03d}" for number in range(self.clients))
        self.members = Members(names, self.terms)

    @property
    def setup(self) -> SecureSetup:
        """Of a coordinator that was just started."""
        key = self.members.session
        return SecureSetup(
            "run",
            self.terms,
            self.members.names,
            lambda c: key(c).public_key,
            self.journal,
            checker=self.members.checker,
        )

    def work(self, round_: int = 1, model: float = 0.0) -> Work:
        fold = FoldPlan(SECTIONS, self.clients)
        return Work(
            TaskKind.TRAIN,
            round_,
            tuple(range(self.clients)),
            broadcast_of(model),
            fold,
            task=f"{round_:032x}",
        )

    def start(self, round_: int = 1, model: float = 0.0) -> tuple[SecureSum, Work | None]:
        made = SecureSum(self.setup, self.work(round_, model))
        return made, made.begin()

    def run(self, round_: int = 1, model: float = 0.0) -> SecureSum:
        """One sum to its end."""
        made, work = self.start(round_, model)
        return self.finish(made, work)

    def finish(self, made: SecureSum, work: Work | None, until: Phase | None = None) -> SecureSum:
        """Go on to the end, or to the letters of a phase."""
        while work is not None and not (until is not None and made.phase is until):
            self.ask(made, work)
            work = made.advance()
        return made

    def ask(self, made: SecureSum, work: Work) -> None:
        for client in work.clients:
            self.heard.append((made.phase, client))
            if client in self.gone.get(made.phase, ()):
                made.absorb(Outcome(client, Fate.LOST, "gone", task=work.task))
            else:
                made.absorb(Payload(client, self.answer(work, client), work.task))

    def answer(self, work: Work, client: int) -> bytes:
        session = self.members.session(client)
        if work.kind is TaskKind.EXCHANGE:
            return session.answer(work.letters[client])
        digest = broadcast_digest(work.broadcast)
        return session.mask(work.letters[client], update_of(client, work.round), digest)


def total_of(made: SecureSum) -> Total:
    assert made.result is not None
    partial = made.result[0]
    assert isinstance(partial, Partial), made.result
    return partial.total


def fates_of(made: SecureSum) -> dict[int, Fate]:
    assert made.result is not None
    return {e.client: e.fate for e in made.result if isinstance(e, Outcome)}


def details_of(made: SecureSum) -> str:
    assert made.result is not None
    return " ".join(e.detail for e in made.result if isinstance(e, Outcome))


def plain_total(terms: Terms, clients: int, inside: Collection[int], seed: int) -> Total:
    """The oracle: the fold of the clear, with the quanta and bounds of the masked one."""
    folded = terms.codec_for("train", clients).folded
    alone = Accumulator(FoldPlan(folded, clients))
    for client in inside:
        alone.add(update_of(client, seed), str(client))
    return alone.total()


def equal(one: Total, other: Total) -> bool:
    return one.contributors == other.contributors and all(
        np.array_equal(one.sums[name], other.sums[name]) for name in one.sums
    )
