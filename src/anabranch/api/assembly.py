"""Putting a run's parts together: policy, whom to ask, what to expect. From the plan alone."""

from __future__ import annotations

from collections.abc import Callable

from anabranch.api.devices import task_cost
from anabranch.api.prepare import Prepared
from anabranch.coordinator.asking import Asking, everybody
from anabranch.coordinator.policies import Buffered, Policy, Synchronous
from anabranch.coordinator.runtime import Runtime, SeesDevices
from anabranch.coordinator.schedule import Schedule
from anabranch.coordinator.state import RunState
from anabranch.coordinator.stop import Progress
from anabranch.fleet.admission import Admission
from anabranch.fleet.history import FleetHistory
from anabranch.fleet.selection import Uniform
from anabranch.fleet.view import FleetView
from anabranch.plan import Plan
from anabranch.plan.mechanism import most_updates

__all__ = ["asking_of", "initial_state", "policy_of", "straggling_of"]

_STRAGGLING = 3.0
"""Real clients are waited for three times as long as half of them took."""
_STARVED = 3600.0
"""Seconds that a round waits for somebody to ask; where no time passes it does not wait."""
_SHORTEST = 30.0
"""Seconds that real clients are given at least: a pause of a second is no reason to go on without
somebody."""


def policy_of(prepared: Prepared, *, in_time: bool) -> Policy:
    """When rounds close: clients that answer in time, real or virtual, are not all waited for.

    Without a clock all simulated clients answer, and the order of arrival is the machine's.
    """
    rounds, clients = prepared.plan.rounds, len(prepared.federation)
    if rounds.asynchronous is not None:
        table = rounds.asynchronous
        # The sum of a buffer behind masks comes at once, or not at all.
        secure = prepared.plan.secure_aggregation is not None
        return Buffered(
            1 if secure else table.buffer,
            table.concurrency,
            table.max_staleness,
            rounds.deadline,
            starved=_STARVED if in_time else 0.0,
        )
    if prepared.plan.secure_aggregation is not None:
        # A secure sum closes its own phases: the loop gets all of it or nothing.
        return Synchronous(rounds.asked(clients))
    goal = rounds.wanted(clients) if in_time else None
    return Synchronous(
        rounds.asked(clients),
        rounds.deadline,
        goal,
        rounds.late_window,
        straggling=straggling_of(prepared.plan, in_time=in_time),
        shortest=_SHORTEST,
        starved=_STARVED if in_time else 0.0,
    )


def straggling_of(plan: Plan, *, in_time: bool) -> float | None:
    """Multiples of the median time that real clients get whose deadline nobody knows.

    A secure sum closes its own phases, and simulated devices say when they are lost.
    """
    live = in_time and plan.devices is None and plan.secure_aggregation is None
    return _STRAGGLING if live else None


def asking_of(prepared: Prepared, run_id: str, runtime: Runtime, *, in_time: bool) -> Asking:
    """Whom rounds ask, by the plan's selector and what clients show."""
    plan, clients = prepared.plan, len(prepared.federation)
    view = runtime.view if isinstance(runtime, SeesDevices) else everybody(clients)
    return Asking(
        run_id,
        prepared.program,
        clients,
        most_updates(plan, clients),
        view,
        plan.selection,
        schedule=_schedule(prepared, view, in_time) if _predicts(prepared, in_time) else None,
        names=prepared.federation.names,
    )


def _predicts(prepared: Prepared, in_time: bool) -> bool:
    """Whether anything depends on what clients showed."""
    plan = prepared.plan
    return in_time or plan.selection != Uniform() or plan.rounds.confidence is not None


def _schedule(prepared: Prepared, view: Callable[[float], FleetView], timed: bool) -> Schedule:
    plan = prepared.plan
    # Where nobody asked for it, deployed clients do all of the work that simulated ones do.
    asked_for = plan.devices is not None or plan.admission != Admission()
    return Schedule(
        view,
        task_cost(prepared),
        goal=plan.rounds.wanted(len(prepared.federation)),
        rules=plan.admission if asked_for else None,
        seconds=plan.rounds.deadline,
        # A secure sum closes its own phases.
        timed=timed and plan.secure_aggregation is None,
        confidence=plan.rounds.confidence,
        shortest=1.0 if plan.devices is not None else _SHORTEST,
        waits=1.0 + plan.rounds.late_window,
        alone=plan.rounds.asynchronous is not None,
    )


def initial_state(prepared: Prepared, *, in_time: bool) -> RunState:
    """The state before round 1."""
    program = prepared.program
    server = program.algorithm.init(program.base[: program.dim].copy())
    history = None
    if _predicts(prepared, in_time):
        history = FleetHistory.empty(len(prepared.federation))
    return RunState(0, server, Progress(), history)
