"""Amending a served run: what is asked, whether it may be, and how it becomes the run's contract.

An amendment is written down first, as a file beside the run's clients. Then the run ends its round
and stops; the store is told of the new plan, with the reason in the run's log, in one transaction;
the file goes, and the run goes on under its new contract. A coordinator that is killed in between
finds the file and does the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Final

from anabranch.api.conduct import plan_record
from anabranch.api.private import LEDGERS
from anabranch.api.servable import OWN_SOURCES
from anabranch.coordinator.store import Json, RunRecord, Store, StoredEvent
from anabranch.coordinator.store.ledger import PopulationLedger
from anabranch.disk import Faults, explained, no_faults, write_durably
from anabranch.errors import AnabranchError
from anabranch.plan import Plan, check_against_fleet, require_accepted
from anabranch.plan.amend import Amendment, amended_contract, amended_plan, differences
from anabranch.plan.contract import contract_digest
from anabranch.plan.privacy import LocalDpSgd
from anabranch.plan.promise import promise_of
from anabranch.privacy.events import GaussianEvent
from anabranch.privacy.ledger import Balance, Line, rules
from anabranch.privacy.ledger.combine import covers
from anabranch.privacy.ledger.entries import Closed
from anabranch.runtimes.http.server.muster import Muster
from anabranch.runtimes.http.versions import ENCODED, FIRST
from anabranch.values import Value

__all__ = [
    "AMENDED",
    "Pending",
    "amendment_in_force",
    "apply_pending",
    "muster_of",
    "pending_runs",
    "propose",
]

AMENDED: Final = "amended"
"""Kind of the event that a run's log has for each amendment."""

_PENDING: Final = "amendment.json"


class Pending(Value):
    """An amendment that is decided, and not yet in force."""

    plan: dict[str, object]
    """The run's whole plan, as it shall be."""
    amendment: Amendment
    names: tuple[str, ...]
    """All clients, new ones last."""
    changes: tuple[str, ...]
    """In words."""

    def keep(self, folder: Path, faults: Faults = no_faults) -> None:
        """Write it beside the run's clients."""
        with explained(folder, "writing an amendment"):
            write_durably(folder / _PENDING, self.model_dump_json().encode(), "served", faults)


def pending_runs(runs: Path) -> tuple[str, ...]:
    """Runs for which an amendment is decided, and not yet in force; ``runs`` has their folders."""
    return tuple(sorted(path.parent.name for path in runs.glob(f"*/{_PENDING}")))


def amendment_in_force(store: Store, run_id: str) -> Amendment | None:
    """What the run's contract says that it replaces; None while it is the first one."""
    found = [event for event in store.events(run_id) if event.kind == AMENDED]
    return Amendment.model_validate(found[-1].details["amendment"]) if found else None


def muster_of(
    plan: Plan,
    run_id: str,
    contract: str,
    amendment: Amendment | None,
    folder: Path,
    clients: int,
) -> Muster:
    """Who may be given work of a run under the contract in force.

    Args:
        plan: says which version of the protocol its tasks need.
        run_id: of the run.
        contract: digest.
        amendment: what the contract says that it replaces; None asks nobody to accept it first.
        folder: where it is kept who accepted.
        clients: of the run.
    """
    hidden = plan.secure_aggregation is not None and plan.rounds.asynchronous is not None
    single = any(budget.network for budget in plan.updates.budgets)
    encoded = plan.updates.downlink is not None or hidden or single
    return Muster(
        run_id,
        contract,
        needs=ENCODED if encoded else FIRST,
        amended=amendment is not None,
        least=min(plan.rounds.needed(clients), clients),
        continuous=plan.rounds.asynchronous is not None,
        book=folder / "accepted",
        software=metadata.version("anabranch"),
    )


def propose(
    store: Store,
    run_id: str,
    wanted: Plan,
    names: Sequence[str],
    added: Sequence[str] = (),
    reason: str = "",
) -> Pending:
    """An amendment of a run, if it may be made.

    Args:
        store: has the run.
        run_id: of the run.
        wanted: the whole plan as it shall be.
        names: clients of the run.
        added: clients that take part from now on.
        reason: in the operator's words; every site reads it.

    Raises:
        AnabranchError: AB-796 it changes what cannot be amended, or nothing; AB-797, AB-798 the
            noise or the budget of a private run; AB-916 the population's ledger does not hold it;
            AB-1xx to AB-4xx the amended plan cannot be run.
    """
    record = store.run(run_id)
    plan = Plan.model_validate(record.plan)
    done = max((stored.round for stored in store.rounds(run_id, clients=False)), default=0)
    amended = amended_plan(plan, wanted, done)
    changes = [
        f"{k}: {a} -> {b}" for k, (a, b) in differences(plan.contract(), amended.contract()).items()
    ]
    if added:
        _require_room(plan, names, added)
        changes.append(f"new sites: {', '.join(added)}")
    if not changes:
        raise _nothing()
    everybody = (*names, *added)
    require_accepted(amended)
    check_against_fleet(amended, len(everybody))
    _require_budget(store, run_id, amended, len(everybody), done)
    before = amendment_in_force(store, run_id)
    predecessors = before.predecessors if before is not None else ()
    amendment = Amendment(
        number=len(predecessors) + 1,
        predecessors=(*predecessors, record.contract_digest),
        added=tuple(added),
        reason=reason,
    )
    return Pending(
        plan=amended.resolved().model_dump(mode="json"),
        amendment=amendment,
        names=everybody,
        changes=tuple(changes),
    )


def apply_pending(store: Store, run_id: str, folder: Path, faults: Faults = no_faults) -> bool:
    """Put an amendment that was decided into force; whether there was one. May be repeated.

    Raises:
        AnabranchError: AB-607 the run is still being written; AB-6xx the disk: the amendment stays
            pending.
    """
    path = folder / _PENDING
    if not path.exists():
        return False
    with explained(path, "reading an amendment"):
        pending = Pending.model_validate_json(path.read_bytes())
    record, plan = store.run(run_id), Plan.model_validate(pending.plan)
    contract = contract_digest(amended_contract(plan, pending.amendment))
    if record.contract_digest != contract:
        with explained(folder, "amending a run"):
            write_durably(folder / "clients", "\n".join(pending.names).encode(), "served", faults)
        store.amend(_amended_record(record, plan, contract, pending), _event(pending, contract))
    with explained(path, "amending a run"):
        path.unlink(missing_ok=True)
    return True


def _amended_record(record: RunRecord, plan: Plan, contract: str, pending: Pending) -> RunRecord:
    fresh = plan_record(plan, record.data_digest)
    own = plan.data.source in OWN_SOURCES
    names = sha256("\n".join(pending.names).encode()).hexdigest()
    suffix = record.trust_line.partition(";")[2]
    return replace(
        record,
        plan=fresh.plan,
        plan_digest=fresh.plan_digest,
        contract_digest=contract,
        data_digest=names if own and pending.amendment.added else record.data_digest,
        trust_line=f"{fresh.trust_line};{suffix}" if suffix else fresh.trust_line,
    )


def _event(pending: Pending, contract: str) -> StoredEvent:
    number, reason = pending.amendment.number, pending.amendment.reason
    told: Json = pending.amendment.model_dump(mode="json")
    return StoredEvent(
        kind=AMENDED,
        text=f"Amendment {number}: {'; '.join(pending.changes)}."
        + (f" {reason}" if reason else ""),
        details={"amendment": told, "contract": contract, "changes": list(pending.changes)},
    )


def _require_room(plan: Plan, names: Sequence[str], added: Sequence[str]) -> None:
    """Refuse new sites where what was learnt so far depends on how many there are."""
    why = ""
    twice = sorted({*added} & {*names}) or [n for n in added if list(added).count(n) > 1]
    if twice:
        why = f"{twice[0]!r} takes part already"
    elif plan.data.source not in OWN_SOURCES:
        why = f"the source {plan.data.source!r} has the clients that it has"
    elif plan.privacy is not None or plan.secure_aggregation is not None:
        why = "its privacy was planned for the sites that it has"
    elif plan.requirement.client_memory:
        why = f"{plan.algorithm.name!r} keeps a mean over the sites that it has"
    elif plan.updates.downlink is not None:
        why = "its downlink keeps what each site holds"
    if why:
        raise AnabranchError(
            "AB-796",
            f"sites cannot be added to this run: {why}.",
            fix="submit a new run with all sites.",
            kept="The run goes on as it was.",
        )


def _require_budget(store: Store, run_id: str, plan: Plan, clients: int, done: int) -> None:
    """Ask the population's ledger whether it holds the amended run; nothing is changed.

    Raises:
        AnabranchError: AB-798 the run's own budget does not hold the rounds that are left; AB-915
            to AB-917 as when a run begins.
    """
    if plan.privacy is None or isinstance(plan.privacy.mechanism, LocalDpSgd):
        return  # neither rounds nor noise of sites can be amended: what was allotted is enough
    promise = promise_of(plan, clients)
    folder = Path(store.path) / LEDGERS
    with PopulationLedger.existing(folder, plan.privacy.population) as ledger:
        balance = ledger.balance()
    rules.same_population(balance.opened, promise.opened)
    known = balance.runs.get(run_id)
    if known is not None and known.closed is None:
        balance = balance.after(Closed(run_id, "amended", final=False))
    wanted = promise.allotted(run_id, plan.contract_digest)
    rules.allot(balance, wanted)
    balance = balance.after(wanted)
    charge = promise.lines[0].charges[0]
    if isinstance(charge, GaussianEvent):
        _require_rounds(balance, run_id, promise.lines[0], charge, plan.rounds.count - done)


def _require_rounds(
    balance: Balance, run_id: str, line: Line, charge: GaussianEvent, left: int
) -> None:
    """Rounds that are done were paid for at their own noise: the rest must hold what is left."""
    spent = balance.runs[run_id].spent(line)
    delta = balance.opened.delta

    def holds(rounds: int) -> bool:
        more = (replace(charge, rounds=rounds),) if rounds else ()
        return covers(line, (*spent, *more), delta)

    if holds(left):
        return
    low, high = 0, left
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    raise AnabranchError(
        "AB-798",
        f"the run's budget holds {low} more round(s) at the noise of the amended plan, and the "
        f"amendment asks for {left}: the rounds that are done were paid for with less noise.",
        fix="amend to fewer rounds, or raise privacy.epsilon with them.",
        kept="The run goes on as it was.",
    )


def _nothing() -> AnabranchError:
    return AnabranchError(
        "AB-796",
        "the amendment changes nothing.",
        fix="name what changes, for example --set rounds.count=50.",
        kept="The run goes on as it was.",
    )
