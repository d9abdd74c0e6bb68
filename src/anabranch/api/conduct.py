"""Conducting a run: open the store, start the runtime, run the loop, write down how it ended."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from hashlib import sha256
from importlib import metadata
from pathlib import Path

import numpy as np

from anabranch.api.assembly import asking_of, initial_state, policy_of, straggling_of
from anabranch.api.closing import Closing
from anabranch.api.devices import device_runtime
from anabranch.api.prepare import Prepared
from anabranch.api.private import Protection, protection_of
from anabranch.api.run import Run
from anabranch.api.secure import (
    bind_ledger,
    evaluation_deadline,
    remote_sums,
    secure_runtime,
    simulated_members,
    with_members,
)
from anabranch.api.workers import SpawnedSimulant
from anabranch.client.states import SlotFile
from anabranch.coordinator.asking import Asking
from anabranch.coordinator.evaluation import Evaluator
from anabranch.coordinator.events import Listener, RunStarted
from anabranch.coordinator.limits import LimitWatch
from anabranch.coordinator.loop import Coordinator
from anabranch.coordinator.notes import card_note
from anabranch.coordinator.policies import Policy
from anabranch.coordinator.record import release_entry
from anabranch.coordinator.runtime import RemoteRuntime, Runtime
from anabranch.coordinator.state import RunState
from anabranch.coordinator.store import (
    GroupedCommits,
    RoundRecord,
    RunRecord,
    RunSession,
    Store,
    Witness,
)
from anabranch.data.preprocess import StatisticRelease
from anabranch.errors import AnabranchError
from anabranch.plan import Plan, trust_line
from anabranch.plan.limits import Limits
from anabranch.privacy.door import Admission, ReleaseDoor
from anabranch.runtimes.local import LocalSetup, holdout_shards, local_runtime

__all__ = ["conduct", "new_record", "plan_record"]

_INDIVIDUAL_LIMIT = 5000
"""Clients above which a simulation reports sums only: per-client columns would fill the store."""


def new_record(prepared: Prepared) -> RunRecord:
    """What the store needs to know about a new run."""
    return plan_record(prepared.plan, prepared.federation.digest())


def plan_record(plan: Plan, data_digest: str) -> RunRecord:
    """A new run of a plan, whose data are known by a digest only."""
    resolved = plan.resolved()
    return RunRecord(
        name=plan.name,
        plan=resolved.model_dump(mode="json"),
        plan_digest=_digest(resolved),
        contract_digest=plan.contract_digest,
        data_digest=data_digest,
        seed=plan.seed,
        versions=_versions(),
        trust_line=trust_line(plan),
    )


def _digest(plan: Plan) -> str:
    """Of the whole resolved plan, the runtime part included."""
    return sha256(plan.model_dump_json().encode()).hexdigest()


def conduct(
    prepared: Prepared,
    store: Store,
    run_id: str,
    listener: Listener,
    stopped: Callable[[], bool] = lambda: False,
    remote: Callable[[Prepared], RemoteRuntime] | None = None,
) -> Run:
    """Run or resume ``run_id`` to its end by rule.

    Clients are simulated as the plan's ``[runtime]`` table says, unless ``remote`` makes a runtime
    whose clients keep their own memory. Then every round is committed by itself: a client must
    know the fate of a round before it trains again, and may know it only once it is durable.
    """
    started = time.monotonic()
    with ExitStack() as stack:
        session = stack.enter_context(store.session(run_id))
        latest = session.latest()
        try:
            protection = stack.enter_context(
                protection_of(prepared, run_id, Path(store.path), session.faults)
            )
        except AnabranchError as error:
            if latest is None:  # refused before it began
                session.finish("failed", error.message)
            raise
        prepared = protection.prepared
        slots = stack.enter_context(_slots(prepared, session)) if remote is None else None
        if slots is not None:
            slots.restore(latest.slots if latest is not None else {})
        carrier = remote(prepared) if remote is not None else None
        runtime, journal = (
            _local(protection, session, slots, stack)
            if carrier is None
            else _remote(prepared, session, carrier, stack)
        )
        protection.show(runtime)
        bind_ledger(runtime, protection.ledger)
        in_time = remote is not None or prepared.plan.devices is not None
        state = initial_state(prepared, in_time=in_time)
        if latest is None:
            session.commit([_first_record(prepared, state)])
        else:
            state = RunState.from_arrays(latest.round, type(state.server), latest.state)
            state = state.for_clients(len(prepared.federation))
            protection.recover(state.extra, store.releases(run_id))
        policy = policy_of(prepared, in_time=in_time)
        asking = protection.guard(asking_of(prepared, run_id, runtime, in_time=in_time))
        coordinator = _coordinator(protection, runtime, asking, policy, journal, listener, stopped)
        straggling = straggling_of(prepared.plan, in_time=in_time)
        coordinator.evaluator = replace(coordinator.evaluator, straggling=straggling)
        coordinator.framed = carrier.framed if carrier is not None else "differences"
        coordinator.watch = _watch(prepared, store, run_id)
        listener(_started(prepared, run_id, state))
        state, ending = coordinator.run(state)
        # First the ledger, then the run: killed between the two, the run is resumed, finds itself
        # at its end, and both are closed. The other way round its allotment would stay open.
        protection.finish(ending.status, ending.reason)
        closing = Closing(prepared, session, coordinator, slots, Path(store.path))
        return closing.close(state, ending, started)


def _watch(prepared: Prepared, store: Store, run_id: str) -> LimitWatch | None:
    """What the limits have added up so far; read from the store, so that a resumed run goes on."""
    limits = prepared.plan.limits
    if limits == Limits():
        return None
    columns = [stored.client_columns for stored in store.rounds(run_id)]
    return LimitWatch.over(limits, len(prepared.federation), columns)


def _local(
    protection: Protection, session: RunSession, slots: SlotFile | None, stack: ExitStack
) -> tuple[Runtime, GroupedCommits]:
    """Simulated clients, whose memory lies in one file here."""
    runtime = stack.enter_context(_runtime(protection.prepared, slots, session.run_id))
    return runtime, GroupedCommits(session, protection.commit_seconds, states=slots)


def _remote(
    prepared: Prepared, session: RunSession, runtime: RemoteRuntime, stack: ExitStack
) -> tuple[Runtime, GroupedCommits]:
    """Clients elsewhere, which hear of their fate after the commit."""
    stack.callback(runtime.close)
    states = runtime.two_phase()
    if isinstance(states, Witness):
        states.recall(session)
    journal = GroupedCommits(session, 0.0, states=states)
    return remote_sums(prepared, session, runtime), journal


@contextmanager
def _slots(prepared: Prepared, session: RunSession) -> Iterator[SlotFile | None]:
    """The clients' memory, when the algorithm, a stage or a local parameter keeps any."""
    length = prepared.program.memory.size
    if not length:
        yield None
        return
    clients = len(prepared.federation)
    with SlotFile(session.states_path, clients, length, faults=session.faults) as slots:
        yield slots


@contextmanager
def _runtime(prepared: Prepared, slots: SlotFile | None, run_id: str) -> Iterator[Runtime]:
    setup = LocalSetup(
        simulant=prepared.simulant(slots.map if slots is not None else None),
        slots=slots,
        asked=prepared.plan.rounds.asked(len(prepared.federation)),
        factory=SpawnedSimulant.of(prepared, slots),
    )
    members = simulated_members(prepared)
    inner = with_members(local_runtime(setup, prepared.plan.runtime), members)
    runtime = device_runtime(prepared, inner) if prepared.plan.devices is not None else inner
    if members is not None:
        runtime = secure_runtime(prepared, run_id, runtime, members.identity, None)
    try:
        yield runtime
    finally:
        runtime.close()


def _first_record(prepared: Prepared, state: RunState) -> RoundRecord:
    """Version 0: the initial model, the data's card, and the statistics that were released."""
    now = time.time()
    releases = prepared.loaded.releases if prepared.loaded is not None else ()
    door = ReleaseDoor()
    entries = tuple(release_entry(_admitted(door, release)) for release in releases)
    card = prepared.federation.card
    return RoundRecord(
        round=0,
        started=now,
        ended=now,
        releases=entries,
        events=(card_note(card),) if card is not None else (),
        state=state.arrays(),
    )


def _admitted(door: ReleaseDoor, release: StatisticRelease) -> Admission:
    """Statistics at the door, with the noise that is in them."""
    found = door.admit(release.description, 0, release.total)
    return replace(found, mechanism=release.mechanism) if release.mechanism else found


def _coordinator(
    protection: Protection,
    runtime: Runtime,
    asking: Asking,
    policy: Policy,
    journal: GroupedCommits,
    listener: Listener,
    stopped: Callable[[], bool],
) -> Coordinator:
    prepared = protection.prepared
    plan, program, federation = prepared.plan, prepared.program, prepared.federation
    return Coordinator(
        plan=plan,
        program=program,
        names=federation.names,
        runtime=runtime,
        evaluator=_evaluator(protection, runtime, ReleaseDoor(), asking.run),
        releases=protection.releases,
        asking=asking,
        policy=policy,
        journal=journal,
        tell=listener,
        stopped=stopped,
    )


def _evaluator(protection: Protection, runtime: Runtime, door: ReleaseDoor, run: str) -> Evaluator:
    prepared = protection.prepared
    federation, on = prepared.federation, prepared.plan.evaluation.on
    shards = holdout_shards(federation) if on in ("holdout", "both") else 0
    clients: list[int] = []
    if federation.test is not None and (on in ("clients", "both") or not shards):
        clients = np.flatnonzero(federation.test.counts > 0).tolist()
    if on == "nowhere":
        clients = []
    elif not clients and not shards:
        shards = holdout_shards(federation)
    names = federation.names
    return Evaluator(
        runtime=runtime,
        metrics=prepared.program.metrics,
        door=door,
        clients=clients,
        shards=shards,
        individuals=len(clients) <= _INDIVIDUAL_LIMIT and prepared.plan.secure_aggregation is None,
        name=lambda client: names[client] if client < len(names) else str(client),
        deadline=evaluation_deadline(prepared.plan),
        run=run,
        scored=protection.scored,
    )


def _started(prepared: Prepared, run_id: str, state: RunState) -> RunStarted:
    plan, clients = prepared.plan, len(prepared.federation)
    # "loss" is the default of the stop rules; listeners then choose the usual metric themselves.
    stated = plan.stop.metric != "loss" or plan.stop.target or plan.stop.patience
    return RunStarted(
        run_id=run_id,
        name=plan.name,
        rounds=plan.rounds.count,
        clients=clients,
        trust_line=trust_line(plan),
        cohort=plan.rounds.wanted(clients),
        first_round=state.round + 1,
        metric=plan.stop.metric if stated else None,
    )


def _versions() -> dict[str, str]:
    """Of everything that can change a bit of the result."""
    versions = {"python": platform.python_version()}
    for name in ("anabranch", "numpy", "torch"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # an extra that is not installed
            continue
    return versions
