"""Rehearsal: the scheduling of a run without its training.

Selection, admission, deadlines and devices as in a run, in virtual time; nobody trains. It answers
in seconds what participation, time and energy a plan would have on a fleet, and it is what the
speed of the simulator is measured with: everything is columns over clients.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from anabranch.fleet.admission import Admission, Admitted, admit
from anabranch.fleet.clock import Agenda
from anabranch.fleet.cost import TaskCost
from anabranch.fleet.devices.simulated import Begun, SimulatedFleet
from anabranch.fleet.history import FleetHistory
from anabranch.fleet.selection import Selector, Uniform
from anabranch.fleet.shown import Shown
from anabranch.fleet.view import Column, FleetView
from anabranch.randomness import generator

__all__ = ["Rehearsal", "RehearsedRound", "RehearsedTasks", "rehearse"]

Rows = NDArray[np.int64]
_WAIT = 600.0
"""Virtual seconds after which it is asked again when nobody can be asked."""


@dataclass(frozen=True)
class Rehearsal:
    """What is rehearsed.

    Attributes:
        rounds: how many.
        asked: clients asked in a round.
        goal: answers that close a round.
        cost: of one task.
        rules: of admission; None asks everybody for all of the work.
        selector: whom to ask.
        deadline: seconds of a round; None derives it from what clients showed.
        seed: of cohorts.
    """

    rounds: int
    asked: int
    goal: int
    cost: TaskCost
    rules: Admission | None = None
    selector: Selector = field(default_factory=Uniform)
    deadline: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class RehearsedTasks:
    """The tasks of a round, in columns.

    Attributes:
        clients: who was asked.
        merged: whose answer came in time.
        lost: who never answered.
        seconds: from being asked to the answer, or to the end of the round.
        work: fraction of the planned local work that was asked.
        modelled, reported, spent: joules by the model, by the client (NaN where it did not say),
            and really.
        share: of a full battery; NaN on the mains.
    """

    clients: Rows
    merged: NDArray[np.bool_]
    lost: NDArray[np.bool_]
    seconds: Column
    work: Column
    modelled: Column
    reported: Column
    spent: Column
    share: Column


@dataclass(frozen=True)
class RehearsedRound:
    """One round.

    Attributes:
        round: from 1.
        started, seconds: on the virtual clock.
        available, eligible: devices that were there, and of these the admitted.
        tasks: what was asked.
    """

    round: int
    started: float
    seconds: float
    available: int
    eligible: int
    tasks: RehearsedTasks

    @property
    def participation(self) -> float:
        """Merged over asked; 0 in a round without tasks."""
        return float(self.tasks.merged.mean()) if len(self.tasks.clients) else 0.0


def rehearse(
    fleet: SimulatedFleet, plan: Rehearsal, examples: Column | None = None
) -> list[RehearsedRound]:
    """Run the schedule.

    Args:
        fleet: the devices; its batteries are changed.
        plan: what is rehearsed.
        examples: training examples of each client; None takes those of the cost.

    Returns:
        One entry for each round.
    """
    history, now = FleetHistory.empty(len(fleet)), 0.0
    done: list[RehearsedRound] = []
    while len(done) < plan.rounds:
        view = fleet.view(now)
        if examples is not None:
            view = view.with_columns(examples=examples)
        rules = plan.rules if plan.rules is not None else Admission(adapt=False)
        admitted = admit(rules, view, history, plan.cost, plan.deadline)
        number = len(done) + 1
        rows = _selected(plan, view, admitted, history, number)
        if not len(rows) and now < 30 * 24 * 3600.0:
            now += _WAIT
            continue
        first = history.first
        tasks, seconds = _round(fleet, plan, view, admitted, rows, number, first)
        history = history.asked_now(number, rows.tolist())
        history = history.after(number, _shown(tasks, view, admitted))
        eligible = int(((admitted.work > 0) & view.available).sum())
        available = int(view.available.sum())
        done.append(RehearsedRound(number, now, seconds, available, eligible, tasks))
        now += max(seconds, 1.0)
    return done


def _selected(
    plan: Rehearsal, view: FleetView, admitted: Admitted, history: FleetHistory, number: int
) -> Rows:
    limit = plan.deadline if plan.deadline is not None else float("inf")
    known = admitted.known(number, history, limit)
    draw = generator(plan.seed, "cohort", number)
    return np.array(plan.selector.select(view, plan.asked, draw, known).clients, np.int64)


def _round(
    fleet: SimulatedFleet,
    plan: Rehearsal,
    view: FleetView,
    admitted: Admitted,
    rows: Rows,
    number: int,
    first: NDArray[np.bool_],
) -> tuple[RehearsedTasks, float]:
    """Ask ``rows``; the tasks, and the seconds after which the round is closed."""
    cost, now, work = plan.cost, view.now, admitted.work[rows]
    flops = cost.flops * cost.seen(view)[rows] * work
    down = np.broadcast_to(cost.down(first), len(view))[rows]
    begun = fleet.begin(rows, now, number, flops, down)
    ended = fleet.finish(begun, np.full(len(rows), cost.bytes_up))
    limit = plan.deadline
    if limit is None:
        limit = admitted.deadline(rows.tolist(), min(plan.goal, len(rows)))
    closed = _closing(ended.ended, plan.goal, now, limit, fleet.settings.task_seconds)
    arrived = ended.ended <= closed
    spent = np.where(arrived, ended.spent, fleet.spent_by(begun, closed))
    merged = arrived & _charged(fleet, begun, spent, ended.carried, closed)
    tasks = RehearsedTasks(
        clients=rows,
        merged=merged,
        lost=np.isinf(ended.ended),
        seconds=np.minimum(ended.ended, closed) - now,
        work=work,
        modelled=ended.modelled,
        reported=np.where(arrived, ended.reported, np.nan),
        spent=spent,
        share=fleet.share(rows, spent),
    )
    return tasks, closed - now


def _closing(ended: Column, goal: int, now: float, limit: float | None, longest: float) -> float:
    """When the round is closed: at its goal, when all have a fate, or at its deadline."""
    agenda = Agenda()
    agenda.add(ended, 0, np.arange(len(ended)))
    # A client that never answers has its fate when its time is over.
    latest = now + longest if np.isinf(ended).any() else float(np.max(ended, initial=now))
    if limit is not None:
        latest = min(latest, now + limit)
    arrivals = agenda.take(latest).times
    return float(arrivals[goal - 1]) if len(arrivals) >= goal else latest


def _charged(
    fleet: SimulatedFleet, begun: Begun, spent: Column, carried: Column, now: float
) -> NDArray[np.bool_]:
    return fleet.charge(begun, spent, begun.carried + carried, now)


def _shown(tasks: RehearsedTasks, view: FleetView, admitted: Admitted) -> Shown:
    """What the coordinator hears of the round: times and energy of those who answered."""
    model = admitted.model.rows(tasks.clients)
    return Shown.of(
        tasks.clients.tolist(),
        tasks.merged.tolist(),
        tasks.seconds,
        modelled_training=model.training * tasks.work,
        modelled_transfer=model.transfer,
        joules=tasks.reported,
        modelled_joules=tasks.modelled,
        device=view.device[tasks.clients],
    )
