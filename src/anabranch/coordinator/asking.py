"""Whom a round asks, and what: from the state of a run to pieces of work."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Protocol

import numpy as np

from anabranch.aggregation.fold import FoldPlan
from anabranch.algorithms.base import Broadcast
from anabranch.client.program import ClientProgram
from anabranch.client.task import TaskKind
from anabranch.coordinator.budgets import network_budgets
from anabranch.coordinator.collect import OpenWork
from anabranch.coordinator.runtime import Work
from anabranch.coordinator.schedule import Schedule
from anabranch.coordinator.state import OpenTask
from anabranch.fleet.admission import Admitted
from anabranch.fleet.history import FleetHistory
from anabranch.fleet.odds import fewest
from anabranch.fleet.selection import Code, Draw, Known, Selection, Selector, Uniform
from anabranch.fleet.view import Column, FleetView, unknown_fleet
from anabranch.randomness import generator
from anabranch.updates.total import Finest

__all__ = ["Asking", "Gate", "everybody", "open_tasks", "task_name"]


_MOST_DISPATCHES = 10_000
"""Times that work is given out in one round, at most, for a search after a restart."""


def task_name(run: str, kind: TaskKind, draw: int) -> str:
    """The name of a piece of work: the same after a restart, so that answers find it again.

    >>> task_name("heart-1", TaskKind.TRAIN, 3)[:8]
    'ac8d1d82'
    """
    return sha256(f"{run}/{kind.value}/{draw}".encode()).hexdigest()[:32]


def everybody(clients: int) -> Callable[[float], FleetView]:
    """The view of a fleet of which nothing is known; made once."""
    view = unknown_fleet(clients)
    return lambda now: view


class Gate(Protocol):
    """Limits on participations that a privacy claim stands on."""

    def admitted(self, known: Known) -> Known:
        """What is known, with those refused that may not take part in the round."""
        ...

    def asked(self, round_: int, clients: Sequence[int]) -> None:
        """These clients are about to be asked: they count as taking part."""
        ...


@dataclass
class Asking:
    """Makes the training work of one run.

    Attributes:
        run: identifier of the run; it is part of every task's name.
        program: what clients run.
        clients: enrolled clients.
        capacity: most updates that one round can merge.
        names: client identifiers by number; empty where no budget is by network.
        view: what is known of the fleet at a time of the runtime's clock.
        selector: whom to ask.
        draw: the generator of a dispatch: public by default, secret where privacy relies on it.
        schedule: what is expected of clients; None where nothing is predicted.
        gate: who may be asked in a private run, and who is told that they are; None without limits.
        exhausted: every client has taken part as often as it may; nobody will be asked again.
        selections: who was asked and why, by dispatch, since the last `taken`.
    """

    run: str
    program: ClientProgram
    clients: int
    capacity: int
    view: Callable[[float], FleetView]
    selector: Selector = field(default_factory=Uniform)
    draw: Callable[[int], Draw] | None = None
    schedule: Schedule | None = None
    gate: Gate | None = None
    exhausted: bool = False
    selections: list[Selection] = field(default_factory=list)
    names: tuple[str, ...] = ()

    @property
    def fold(self) -> FoldPlan:
        """Sections and capacity of a round's sum; equal for every round of the run."""
        return FoldPlan(self.program.sections, self.capacity)

    def new(
        self,
        count: int,
        *,
        round_: int,
        draw: int,
        now: float,
        busy: Sequence[int],
        broadcast: Broadcast,
        history: FleetHistory | None,
        down: Column | None = None,
    ) -> OpenWork | None:
        """Ask at most ``count`` more clients; None when nobody can be asked now.

        ``down`` are the bytes that each client of the fleet would be sent, where they differ.
        """
        view = self._without(self.view(now), busy)
        admitted = None
        known = Known.nothing(self.clients, round_)
        if self.schedule is not None and history is not None:
            admitted = self.schedule.admitted(view, history, down)
            known = admitted.known(round_, history)
        if self.gate is not None:
            known = self.gate.admitted(known)
        selection = self._selected(view, count, draw, known, admitted)
        self.selections.append(selection)
        clients = selection.clients
        if not clients:
            self.exhausted = bool((selection.codes == Code.PARTICIPATIONS).all())
            return None
        if self.gate is not None:
            self.gate.asked(round_, clients)
        limit, fractions = None, {}
        if self.schedule is not None and admitted is not None:
            limit = self.schedule.limit(admitted, clients)
            asked = admitted.assignments(clients, limit)
            fractions = {task.client: task.fraction for task in asked if task.fraction != 1.0}
        work = self._work(round_, draw, clients, broadcast, fractions)
        most = network_budgets(self.program.pipeline, self.names, view, clients)
        work = replace(work, update_bytes=most, seconds=self._until(limit))
        return OpenWork.of(work, now, limit)

    def _until(self, limit: float | None) -> float | None:
        """Seconds after which an answer does not count any more."""
        return None if limit is None or self.schedule is None else limit * self.schedule.waits

    def _selected(
        self, view: FleetView, count: int, draw: int, known: Known, admitted: Admitted | None
    ) -> Selection:
        """As many as the plan says, or fewer, where the goal is then likely enough."""
        schedule = self.schedule

        def select(count: int) -> Selection:
            return self.selector.select(view, count, self._source(draw), known)

        if schedule is None or admitted is None or schedule.confidence is None:
            return select(count)
        odds = admitted.odds(schedule.seconds if schedule.timed else None)
        return fewest(select, odds, schedule.goal, schedule.confidence, count)

    def _without(self, view: FleetView, busy: Sequence[int]) -> FleetView:
        if not busy:
            return view
        flags = np.zeros(self.clients, np.bool_)
        flags[list(busy)] = True
        return view.with_columns(busy=flags)

    def _source(self, draw: int) -> Draw:
        return self.draw(draw) if self.draw else generator(self.program.seed, "cohort", draw)

    def taken(self) -> tuple[Selection, ...]:
        """The selections since the last call."""
        selections, self.selections = tuple(self.selections), []
        return selections

    def half_summed(
        self,
        tasks: Mapping[str, tuple[int, ...]],
        *,
        round_: int,
        draws: int,
        now: float,
        broadcast: Broadcast,
    ) -> tuple[OpenWork, ...]:
        """Work of this round that was given out before a restart, and that the state forgot.

        Args:
            tasks: clients by the name of the work.
            round_: the version being made.
            draws: dispatches until the last commit: what follows has been given out since.
            now: on the runtime's clock.
            broadcast: of this round.
        """
        draw_of = {
            task_name(self.run, TaskKind.TRAIN, draw): draw
            for draw in range(draws + 1, draws + 1 + _MOST_DISPATCHES)
        }
        return tuple(
            OpenWork.of(self._work(round_, draw_of[task], clients, broadcast, {}), now)
            for task, clients in tasks.items()
            if task in draw_of
        )

    def again(
        self, tasks: Sequence[OpenTask], versions: Mapping[int, Broadcast]
    ) -> tuple[OpenWork, ...]:
        """The work that tasks which are still open belong to, as it was given out."""
        groups: dict[int, list[OpenTask]] = {}
        for task in tasks:
            groups.setdefault(task.draw, []).append(task)
        return tuple(self._again(group, versions) for group in groups.values())

    def _again(self, group: Sequence[OpenTask], versions: Mapping[int, Broadcast]) -> OpenWork:
        first = group[0]
        clients = tuple(task.client for task in group)
        fractions = {task.client: task.fraction for task in group if task.fraction != 1.0}
        work = self._work(first.round, first.draw, clients, versions[first.round], fractions)
        most = {task.client: task.update_bytes for task in group if task.update_bytes}
        sizes = {task.client: task.bytes_down for task in group}
        limit = first.limit if math.isfinite(first.limit) else None
        work = replace(work, update_bytes=most, sizes=sizes, seconds=self._until(limit))
        return OpenWork.of(work, first.at, limit)

    def _work(
        self,
        round_: int,
        draw: int,
        clients: tuple[int, ...],
        broadcast: Broadcast,
        fractions: Mapping[int, float],
    ) -> Work:
        single = self.selector.reads_losses
        return Work(
            TaskKind.TRAIN,
            round_,
            clients,
            broadcast,
            self.fold,
            Finest.INDIVIDUALS if single else self.program.pipeline.delivery,
            task=task_name(self.run, TaskKind.TRAIN, draw),
            draw=draw,
            fractions=fractions,
        )


def open_tasks(kept: Sequence[OpenWork]) -> tuple[OpenTask, ...]:
    """What the state remembers of work that stays open."""
    return tuple(
        OpenTask(
            w.work.draw,
            w.work.round,
            w.at,
            client,
            w.work.fractions.get(client, 1.0),
            math.inf if w.limit is None else w.limit,
            w.work.bytes_to(client),
            w.work.update_bytes.get(client, 0),
        )
        for w in kept
        for client in sorted(w.waiting)
    )
