"""What the coordinator expects of clients: predictions, the time that tasks are given, experience.

Deadlines derive from what clients showed before, not from settings. Where nothing is known there is
no deadline.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from anabranch.client.task import Fate
from anabranch.coordinator.collect import Collected, TaskKey
from anabranch.fleet.admission import Admission, Admitted, admit
from anabranch.fleet.cost import Modelled, TaskCost, modelled
from anabranch.fleet.history import FleetHistory
from anabranch.fleet.shown import Shown
from anabranch.fleet.view import Column, FleetView

__all__ = ["Schedule"]

_ANSWERED = (Fate.MERGED, Fate.MERGED_LATE, Fate.REFUSED)


@dataclass(frozen=True)
class Schedule:
    """Expectations of one run.

    Attributes:
        view: what is known of the fleet at a time of the runtime's clock.
        cost: of one whole training task, as planned.
        goal: updates that a round wants.
        rules: who may be asked, and how much; None asks everybody for all of the work.
        seconds: the deadline that the plan sets; None where it is derived.
        timed: whether the runtime's clock says something of the clients; without it times are this
            machine's, and nothing may depend on them.
        shortest: seconds that clients are given at least.
        confidence: probability with which a round shall reach its goal; None asks as many as the
            plan says.
        waits: how many times its limit an answer may take and still count: one, and the rounds of
            the late window.
        alone: whether every task is waited for on its own account, as in asynchronous rounds, and
            not until enough of a cohort have answered.
    """

    view: Callable[[float], FleetView]
    cost: TaskCost
    goal: int
    rules: Admission | None = None
    seconds: float | None = None
    timed: bool = True
    shortest: float = 1.0
    confidence: float | None = None
    waits: float = 1.0
    alone: bool = False

    def admitted(
        self, view: FleetView, history: FleetHistory, down: Column | None = None
    ) -> Admitted:
        """Who may be asked now, how much, and what that is predicted to take.

        Args:
            view: what is known of the fleet now.
            history: what clients showed.
            down: bytes that each client would be sent, where the model goes down encoded.
        """
        cost = self.cost if down is None else replace(self.cost, bytes_down=down)
        if self.rules is None:
            return admit(Admission(adapt=False), view, history, cost)
        return admit(self.rules, view, history, cost, self.seconds)

    def limit(self, admitted: Admitted, clients: Sequence[int]) -> float | None:
        """Seconds that these clients are given; None while nothing is known of one of them."""
        if self.seconds is not None or not self.timed:
            return self.seconds
        if not self.alone:
            return admitted.deadline(clients, min(self.goal, len(clients)), self.shortest)
        own = [admitted.deadline([client], 1, self.shortest) for client in clients]
        known = [seconds for seconds in own if seconds is not None]
        return max(known) if known and len(known) == len(own) else None

    def learnt(self, history: FleetHistory, collected: Collected) -> FleetHistory:
        """The history with what the tasks of a round showed."""
        asked = [
            (work.draw, work.clients)
            for task, work in collected.works.items()
            if collected.fresh(task)
        ]
        for _, clients in asked:
            history = history.asked_now(collected.round, clients)
        if not collected.outcomes:
            return history
        keys = sorted(collected.outcomes, key=lambda key: (collected.works[key.task].draw, key))
        return history.after(collected.round, self._shown(collected, keys, history))

    def _shown(self, collected: Collected, keys: Sequence[TaskKey], history: FleetHistory) -> Shown:
        outcomes = [collected.outcomes[key] for key in keys]
        model, device = self._modelled(collected, keys, history)
        traces = [outcome.trace for outcome in outcomes]
        waited = [
            outcome.seconds or collected.arrived[key] - collected.given_out_at(key.task)
            for key, outcome in zip(keys, outcomes, strict=True)
        ]
        return Shown.of(
            [key.client for key in keys],
            [outcome.fate.counts for outcome in outcomes],
            waited if self.timed else None,
            answered=[outcome.fate in _ANSWERED for outcome in outcomes],
            training_seconds=[trace.train if trace else np.nan for trace in traces],
            modelled_training=model.training,
            modelled_transfer=model.transfer,
            joules=[trace.reported if trace else np.nan for trace in traces],
            modelled_joules=model.joules,
            loss=[collected.losses.get(key, np.nan) for key in keys],
            bytes_up=[float(outcome.bytes_up) for outcome in outcomes],
            device=device,
            cut=[collected.cut_off(key) for key in keys],
        )

    @staticmethod
    def _done(collected: Collected, key: TaskKey) -> float:
        """Share of the planned work that a task was: a client may have ended it early."""
        trace = collected.outcomes[key].trace
        asked = collected.works[key.task].fractions.get(key.client, 1.0)
        return asked if trace is None else trace.work

    def _modelled(
        self, collected: Collected, keys: Sequence[TaskKey], history: FleetHistory
    ) -> tuple[Modelled, np.ndarray]:
        """By the device's model at the time at which each task was given out."""
        parts, devices = [], []
        for task in dict.fromkeys(key.task for key in keys):
            rows = np.array([key.client for key in keys if key.task == task], np.int64)
            view = self.view(collected.given_out_at(task))
            work = np.array([self._done(collected, TaskKey(task, int(c))) for c in rows])
            down = np.zeros(len(view))
            down[rows] = [collected.works[task].bytes_to(client) for client in rows.tolist()]
            cost = replace(self.cost, bytes_down=down)
            part = modelled(view, cost, history.first).rows(rows)
            parts.append(
                replace(
                    part,
                    training=part.training * work,
                    compute_joules=part.compute_joules * work,
                )
            )
            devices.append(view.device[rows])
        columns = [np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Modelled)]
        return Modelled(*columns), np.concatenate(devices)
