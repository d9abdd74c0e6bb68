"""What the coordinator expects of clients: predictions, the time that tasks are given, experience.

Deadlines derive from what clients showed before, not from settings. Where nothing is known there is
no deadline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from anabranch.client.task import Fate
from anabranch.coordinator.collect import Collected, TaskKey
from anabranch.fleet.cost import Modelled, TaskCost, modelled
from anabranch.fleet.history import FleetHistory
from anabranch.fleet.prediction import Prediction, deadline, predict
from anabranch.fleet.selection import Known
from anabranch.fleet.shown import Shown
from anabranch.fleet.view import FleetView

__all__ = ["Schedule"]

_ANSWERED = (Fate.MERGED, Fate.MERGED_LATE, Fate.REFUSED)


@dataclass(frozen=True)
class Schedule:
    """Expectations of one run.

    Attributes:
        view: what is known of the fleet at a time of the runtime's clock.
        cost: of one whole training task, as planned.
        goal: updates that a round wants.
    """

    view: Callable[[float], FleetView]
    cost: TaskCost
    goal: int

    def predicted(self, view: FleetView, history: FleetHistory) -> Prediction:
        """What a whole task would take now."""
        return predict(view, history, self.cost)

    def known(self, prediction: Prediction, history: FleetHistory, round_: int) -> Known:
        """What a selector may know."""
        return replace(
            Known.nothing(len(history), round_),
            history=history,
            seconds=np.where(prediction.known, prediction.seconds(), np.nan),
            joules=prediction.joules(),
        )

    def limit(
        self, prediction: Prediction, clients: Sequence[int], fractions: Mapping[int, float]
    ) -> float | None:
        """Seconds that these clients are given; None while nothing is known of one of them."""
        asked = np.array(clients, np.int64)
        work = np.array([fractions.get(client, 1.0) for client in clients])
        return deadline(prediction, asked, min(self.goal, len(clients)), work=work)

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
        return history.after(collected.round, self._shown(collected, keys))

    def _shown(self, collected: Collected, keys: Sequence[TaskKey]) -> Shown:
        outcomes = [collected.outcomes[key] for key in keys]
        model, device = self._modelled(collected, keys)
        traces = [outcome.trace for outcome in outcomes]
        waited = [
            collected.arrived[key] - collected.given_out_at(key.task)
            if not outcome.seconds
            else outcome.seconds
            for key, outcome in zip(keys, outcomes, strict=True)
        ]
        return Shown.of(
            [key.client for key in keys],
            [outcome.fate.counts for outcome in outcomes],
            waited,
            answered=[outcome.fate in _ANSWERED for outcome in outcomes],
            training_seconds=[trace.train if trace else np.nan for trace in traces],
            modelled_training=model.training,
            modelled_transfer=model.transfer,
            joules=[trace.reported if trace else np.nan for trace in traces],
            modelled_joules=model.joules,
            loss=[collected.losses.get(key, np.nan) for key in keys],
            bytes_up=[float(outcome.bytes_up) for outcome in outcomes],
            device=device,
        )

    def _modelled(
        self, collected: Collected, keys: Sequence[TaskKey]
    ) -> tuple[Modelled, np.ndarray]:
        """By the device's model at the time at which each task was given out."""
        parts, devices = [], []
        for task in dict.fromkeys(key.task for key in keys):
            rows = np.array([key.client for key in keys if key.task == task], np.int64)
            view = self.view(collected.given_out_at(task))
            fractions = collected.works[task].fractions
            work = np.array([fractions.get(int(client), 1.0) for client in rows])
            part = modelled(view, self.cost).rows(rows)
            parts.append(replace(part, training=part.training * work))
            devices.append(view.device[rows])
        columns = [np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Modelled)]
        return Modelled(*columns), np.concatenate(devices)
