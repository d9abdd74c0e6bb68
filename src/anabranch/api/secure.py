"""Putting secure aggregation around the runtime of a run, when its plan has the table for it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, runtime_checkable

from anabranch.api.prepare import Prepared
from anabranch.client.secure import terms_of
from anabranch.client.task import TaskKind
from anabranch.coordinator.runtime import RemoteRuntime, Runtime
from anabranch.coordinator.secure import SecureRuntime, secured
from anabranch.coordinator.secure_journal import FileSumJournal, MemorySumJournal
from anabranch.coordinator.secure_setup import SecureSetup
from anabranch.coordinator.store import RunSession
from anabranch.coordinator.store.ledger import RunLedger
from anabranch.fleet.roster import Role, Roster
from anabranch.plan import Plan
from anabranch.privacy.secure_aggregation import RoundContext
from anabranch.privacy.secure_aggregation.checking import SharedChecker
from anabranch.privacy.secure_aggregation.terms import Terms
from anabranch.runtimes.local.secured import SecureSimulation, SimulatedMembers

__all__ = [
    "bind_ledger",
    "check_sums",
    "evaluation_deadline",
    "remote_sums",
    "secure_runtime",
    "simulated_members",
    "with_members",
]

_STAGE_SECONDS = 30.0


@runtime_checkable
class PacesStages(Protocol):
    """A runtime that knows how long one exchange of messages takes with its clients."""

    @property
    def stage_seconds(self) -> float: ...


def simulated_members(prepared: Prepared) -> SimulatedMembers | None:
    """The sessions of simulated clients; None without secure aggregation."""
    if prepared.plan.secure_aggregation is None:
        return None
    terms = terms_of(prepared.plan, prepared.program)
    return SimulatedMembers(prepared.federation.names, terms, os.urandom)


def with_members(inner: Runtime, members: SimulatedMembers | None) -> Runtime:
    """The local runtime, with the sessions of its clients if there are any."""
    return inner if members is None else SecureSimulation(inner, members)


def evaluation_deadline(plan: Plan) -> float | None:
    """Seconds that the loop gives an evaluation; a secure sum closes its own phases."""
    return None if plan.secure_aggregation is not None else plan.rounds.deadline


def remote_sums(prepared: Prepared, session: RunSession, inner: RemoteRuntime) -> Runtime:
    """Around a runtime whose clients are elsewhere: sums only, where the plan says so.

    Where the runtime has a roster, its keys count and no others. Else clients introduce themselves,
    and peers pin the keys that they see first: enough against a coordinator that is curious, not
    against one that makes clients up.

    Raises:
        AnabranchError: as `secure_runtime`.
    """
    if prepared.plan.secure_aggregation is None:
        return inner
    folder = session.states_path.with_suffix(".sums")
    members = inner if isinstance(inner, KnowsMembers) and inner.roster is not None else None
    if members is None:
        return secure_runtime(prepared, session.run_id, inner, _nobody, folder)
    book = MemberBook(members)
    names = prepared.federation.names
    return secure_runtime(
        prepared,
        session.run_id,
        inner,
        lambda c: book.key(names[c]),
        folder,
        standing=book.standing,
    )


def _nobody(client: int) -> bytes | None:
    return None


def bind_ledger(runtime: Runtime, ledger: RunLedger | None) -> None:
    """Every secure sum of a private run is bound to the head of its population's ledger."""
    if ledger is None or not isinstance(runtime, SecureRuntime):
        return
    population = ledger.ledger

    def head() -> tuple[int, bytes]:
        link = population.head
        return link.sequence + 1, bytes.fromhex(link.digest)

    runtime.bind_ledger(head)


@runtime_checkable
class KnowsMembers(Protocol):
    """A runtime whose clients may be on a signed roster."""

    @property
    def roster(self) -> Roster | None:
        """The list in force; None without one."""
        ...


class MemberBook:
    """Keys and roles by name, made anew when the roster has another version."""

    def __init__(self, members: KnowsMembers) -> None:
        self._members = members
        self._version = -1
        self._keys: dict[str, bytes] = {}
        self._standing: tuple[frozenset[str], bytes] = (frozenset(), bytes(32))

    def key(self, name: str) -> bytes | None:
        """The active key of a member."""
        self._look()
        return self._keys.get(name)

    def standing(self) -> tuple[frozenset[str], bytes]:
        """The canaries, and the digest of the roster."""
        self._look()
        return self._standing

    def _look(self) -> None:
        roster = self._members.roster
        if roster is None or roster.version == self._version:
            return
        entries = list(roster.active())
        canaries = frozenset(entry.name for entry in entries if Role.CANARY in entry.roles)
        self._version = roster.version
        self._keys = {entry.name: entry.public_key for entry in entries}
        self._standing = (canaries, bytes.fromhex(roster.digest))


def secure_runtime(
    prepared: Prepared,
    run_id: str,
    inner: Runtime,
    identity: Callable[[int], bytes | None],
    journal: Path | None,
    standing: Callable[[], tuple[frozenset[str], bytes]] | None = None,
) -> SecureRuntime:
    """The runtime that yields sums alone.

    Args:
        prepared: with the table ``[secure_aggregation]``.
        run_id: identifier of the run.
        inner: carries tasks and letters.
        identity: public key by client number.
        journal: where a restart finds sums that were half opened; None where clients end with the
            coordinator.
        standing: canaries and digest of the signed roster. Without one, and where clients do not
            end with the coordinator, those whose key is not known introduce themselves.

    Raises:
        AnabranchError: AB-951 or AB-953 when no round of this fleet could be made.
    """
    plan, terms = prepared.plan, terms_of(prepared.plan, prepared.program)
    table = plan.secure_aggregation
    assert table is not None
    clients = len(prepared.federation)
    buffered = plan.rounds.asynchronous is not None
    members = plan.rounds.wanted(clients) if buffered else plan.rounds.asked(clients)
    check_sums(terms, members, plan.rounds.needed(clients))
    setup = SecureSetup(
        run=run_id,
        terms=terms,
        names=prepared.federation.names,
        identity=identity,
        journal=MemorySumJournal() if journal is None else FileSumJournal(journal),
        needed={TaskKind.TRAIN.value: plan.rounds.needed(clients)},
        checker=SharedChecker(),
        threads=os.cpu_count() or 1,
        open=standing is None and journal is not None,
        standing=standing or (lambda: (frozenset(), bytes(32))),
        buffer=members if buffered else 0,
    )
    usual = inner.stage_seconds if isinstance(inner, PacesStages) else _STAGE_SECONDS
    patience = table.stage_seconds or (None if journal is None else usual)
    return secured(inner, setup, patience, plan.rounds.deadline)


def check_sums(terms: Terms, asked: int, needed: int) -> RoundContext:
    """Make the context of a round, to refuse before anything starts what could never be made.

    Raises:
        AnabranchError: AB-951 the modulus does not hold so many clients; AB-953 they are too few
            for the shares or the minimum.
    """
    codec = terms.codec_for(TaskKind.TRAIN.value, max(2, asked))
    zeros = bytes(32)
    return RoundContext(
        run="check",
        round=0,
        attempt=0,
        model_digest=zeros,
        plan_digest=terms.plan_digest,
        ledger_head=zeros,
        roster={f"{number}": zeros for number in range(asked)},
        length=codec.length,
        encoding=codec.encoding,
        corrupt_share=terms.corrupt_share,
        dropout_share=terms.dropout_share,
        minimum_survivors=max(terms.minimum, needed),
        complete_below=terms.complete_below,
        attempts=terms.attempts,
        unopened=terms.unopened,
        draw=terms.draw,
        hybrid=terms.hybrid,
    )
