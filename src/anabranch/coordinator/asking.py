"""Whom a round asks, and what: from the state of a run to pieces of work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256

import numpy as np

from anabranch.aggregation.fold import FoldPlan
from anabranch.algorithms.base import Broadcast
from anabranch.client.program import ClientProgram
from anabranch.client.task import TaskKind
from anabranch.coordinator.collect import OpenWork
from anabranch.coordinator.runtime import Work
from anabranch.coordinator.state import OpenTask
from anabranch.fleet.history import FleetHistory
from anabranch.fleet.selection import Draw, Known, Selection, Selector, Uniform
from anabranch.fleet.view import FleetView, unknown_fleet
from anabranch.randomness import generator

__all__ = ["Asking", "task_name"]


def task_name(run: str, kind: TaskKind, draw: int) -> str:
    """The name of a piece of work: the same after a restart, so that answers find it again.

    >>> task_name("heart-1", TaskKind.TRAIN, 3)[:8]
    'cc9c6ac9'
    """
    return sha256(f"{run}/{kind.value}/{draw}".encode()).hexdigest()[:32]


def everybody(clients: int) -> Callable[[float], FleetView]:
    """The view of a fleet of which nothing is known; made once."""
    view = unknown_fleet(clients)
    return lambda now: view


@dataclass
class Asking:
    """Makes the training work of one run.

    Attributes:
        run: identifier of the run; it is part of every task's name.
        program: what clients run.
        clients: enrolled clients.
        capacity: most updates that one round can merge.
        selector: whom to ask.
        view: what is known of the fleet now, by the runtime's clock.
        draw: the generator of a dispatch: public by default, secret where privacy relies on it.
        selections: of this process's dispatches by number, until they are taken.
    """

    run: str
    program: ClientProgram
    clients: int
    capacity: int
    selector: Selector = Uniform()
    view: Callable[[float], FleetView] | None = None
    draw: Callable[[int], Draw] | None = None
    selections: dict[int, Selection] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._view = self.view or everybody(self.clients)

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
    ) -> Work | None:
        """Ask at most ``count`` more clients; None when nobody can be asked now."""
        view = self._view(now)
        if busy:
            flags = np.zeros(self.clients, np.bool_)
            flags[list(busy)] = True
            view = view.with_columns(busy=flags)
        known = Known.nothing(self.clients, round_) if history is None else None
        if known is None:
            assert history is not None
            known = replace(Known.nothing(self.clients, round_), history=history)
        source = self.draw or (lambda n: generator(self.program.seed, "cohort", n))
        selection = self.selector.select(view, count, source(draw), known)
        if not selection.clients:
            return None
        self.selections[draw] = selection
        return self._work(round_, draw, selection.clients, broadcast, {})

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
        return OpenWork(work, first.at, frozenset(clients))

    def _work(
        self,
        round_: int,
        draw: int,
        clients: tuple[int, ...],
        broadcast: Broadcast,
        fractions: Mapping[int, float],
    ) -> Work:
        return Work(
            TaskKind.TRAIN,
            round_,
            clients,
            broadcast,
            self.fold,
            self.program.pipeline.delivery,
            task=task_name(self.run, TaskKind.TRAIN, draw),
            draw=draw,
            fractions=fractions,
        )


def open_tasks(kept: Sequence[OpenWork]) -> tuple[OpenTask, ...]:
    """What the state remembers of work that stays open."""
    return tuple(
        OpenTask(w.work.draw, w.work.round, w.at, client, w.work.fractions.get(client, 1.0))
        for w in kept
        for client in sorted(w.waiting)
    )
