r"""Admission: which clients may be asked, how much work, and what that is predicted to take.

The rules are a value, the plan's table ``[admission]``; `admit` applies them to a whole fleet in
columns. A client is asked the largest fraction of the planned local work with::

    seconds at quantile q_t  <= deadline          joules at quantile q_e  <= budget
    budget = min(max_joules, max_battery * capacity, (level - reserve) * capacity)

in whole steps, at least one. What a step cannot keep to is refused with a code. Local training
tells how many steps it took, so normalised averaging and control variates stay exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from anabranch.fleet.cost import Modelled, TaskCost, modelled
from anabranch.fleet.history import FleetHistory
from anabranch.fleet.prediction import Prediction, deadline, predict
from anabranch.fleet.selection.base import CodeColumn, Known
from anabranch.fleet.selection.codes import Code
from anabranch.fleet.view import Column, Flags, FleetView
from anabranch.values import Value

__all__ = ["Admission", "Admitted", "Assignment", "admit"]

Hour = float


class Admission(Value):
    """When a device may be asked, and how much of it a task may take."""

    charging_only: bool = False
    """Ask devices only while they are on a charger or on the mains."""
    unmetered_only: bool = False
    """Ask devices only while their connection costs nothing for a byte."""
    quiet_hours: tuple[Hour, Hour] | None = Field(
        default=None, json_schema_extra={"unit": "local hours, from and until"}
    )
    """Local hours in which no device is asked; [22, 7] goes over midnight."""
    least_battery: float = Field(
        default=0.0, ge=0, lt=1, json_schema_extra={"unit": "level, 0 to 1"}
    )
    """Devices that are not charging keep this level: they are not asked at or below it, nor for
    work that would take them there."""
    max_battery: float | None = Field(
        default=None, gt=0, le=1, json_schema_extra={"unit": "fraction of a full battery"}
    )
    """Most of a full battery that one task may cost, charging or not. 0.05 is five per cent."""
    max_joules: float | None = Field(default=None, gt=0, json_schema_extra={"unit": "joules"})
    """Most energy of one task, on devices with a battery."""
    max_seconds: float | None = Field(default=None, gt=0, json_schema_extra={"unit": "seconds"})
    """Longest time of one task. Left out: the deadline of the round."""
    by_time: bool = True
    """Ask only for what is predicted to be there in time; false asks everybody for all of the work
    and lets the deadline decide."""
    adapt: bool = True
    """Ask slow or weak devices for less work; false refuses them instead."""
    stop_early: bool = False
    """Let a client end its training at a whole step when nine tenths of its time, or its energy,
    are used up, and send what it has."""
    least_work: float = Field(default=0.05, gt=0, le=1, json_schema_extra={"unit": "fraction"})
    """Smallest fraction of the planned local work that is worth asking for."""
    time_quantile: float = Field(default=0.75, ge=0.5, lt=1)
    """Probability with which a task shall keep to its time."""
    energy_quantile: float = Field(default=0.99, ge=0.5, lt=1)
    """Probability with which a task shall keep to its energy."""

    def joules_of_a_task(self, capacity: Column) -> Column:
        """Most energy of one task by the size of the battery; inf on the mains (0 or NaN)."""
        battery = capacity > 0
        allowed = np.full(len(capacity), np.inf)
        if self.max_joules is not None:
            allowed[battery] = self.max_joules
        if self.max_battery is not None:
            allowed[battery] = np.minimum(allowed, self.max_battery * capacity)[battery]
        return allowed

    @field_validator("quiet_hours")
    @classmethod
    def _hours_of_a_day(cls, hours: tuple[float, float] | None) -> tuple[float, float] | None:
        if hours is None:
            return None
        if not all(0 <= hour <= 24 for hour in hours):
            raise ValueError("hours of a day go from 0 to 24")
        if hours[0] == hours[1]:
            raise ValueError("quiet hours that end when they begin; leave them out, or give two")
        return hours


@dataclass(frozen=True, slots=True)
class Assignment:
    """What one client is asked.

    Attributes:
        client: its number.
        fraction: of the planned local work.
        seconds: predicted, the median.
        joules: predicted, the median; 0 where nothing is known.
        modelled_training, modelled_transfer: seconds by the model of the device alone, for this
            fraction: what the history compares its answer with.
        modelled_joules: energy by the model alone.
        device: code of its class.
    """

    client: int
    fraction: float = 1.0
    seconds: float = float("nan")
    joules: float = 0.0
    modelled_training: float = 1.0
    modelled_transfer: float = 0.0
    modelled_joules: float = 0.0
    device: int = 0


@dataclass(frozen=True, slots=True)
class Admitted:
    """The judgement on a whole fleet, in columns.

    Attributes:
        codes: `Code.NOT_DRAWN` for the admitted, else why not.
        work: fraction of the planned local work, 0 for the refused.
        steps: planned steps of the whole work.
        prediction: of the whole work.
        model: by the devices' models alone.
        device: codes of device classes.
        rules: what was applied.
    """

    codes: CodeColumn
    work: Column
    steps: Column
    prediction: Prediction
    model: Modelled
    device: NDArray[np.int16]
    rules: Admission

    def known(
        self,
        round_: int,
        history: FleetHistory,
        seconds: float = float("inf"),
        separation: int = 1,
        participations: int | None = None,
    ) -> Known:
        """For the selector: predicted times and energies, and who is refused."""
        found = self.prediction
        times = np.where(found.known, found.seconds(self.work), np.nan)
        joules = np.where(self.model.joules > 0, found.joules(self.work), np.nan)
        return Known(
            round_, history, self.codes, times, joules, seconds, separation, participations
        )

    def deadline(self, clients: Sequence[int], goal: int, shortest: float = 1.0) -> float | None:
        """Seconds for those that were selected, from what is known of them; see `deadline`."""
        rows = np.asarray(clients, np.int64)
        work = self.work[rows]
        return deadline(self.prediction, rows, goal, work=work, shortest=shortest)

    def odds(self, seconds: float | None = None) -> Column:
        """Probability that each client of the fleet answers, within ``seconds`` where they are
        given and something is known of its times."""
        reliable = self.prediction.reliability
        if seconds is None:
            return reliable
        everyone = np.arange(len(reliable))
        in_time = self.prediction.answered_by(seconds, everyone, self.work)
        return np.where(self.prediction.known, in_time, reliable)

    def assignments(
        self, clients: Sequence[int], seconds: float | None = None
    ) -> tuple[Assignment, ...]:
        """What each of the selected is asked.

        Args:
            clients: numbers of admitted clients.
            seconds: a deadline that was derived after the selection. Who is predicted to miss it
                is asked for the work that fits; who would miss it with the least work too is asked
                for all of it, since a late update is worth more whole.
        """
        rows = np.asarray(clients, np.int64)
        work = self.work[rows]
        if seconds is not None and self.rules.adapt and self.rules.by_time:
            fits = self.prediction.work_within(seconds, self.rules.time_quantile)[rows]
            least = np.maximum(self.rules.least_work, 1 / self.steps[rows])
            cut = _whole_steps(np.minimum(work, fits), self.steps[rows])
            helps = self.prediction.known[rows] & (cut >= least - 1e-9)
            work = np.where(helps, np.minimum(work, cut), work)
        every = self.work.copy()
        every[rows] = work
        times, joules = self.prediction.seconds(every)[rows], self.prediction.joules(every)[rows]
        model = self.model.rows(rows)
        spent = model.compute_joules * work + model.radio_joules
        return tuple(
            Assignment(*values)
            for values in zip(
                rows.tolist(),
                work.tolist(),
                np.where(self.prediction.known[rows], times, np.nan).tolist(),
                joules.tolist(),
                (model.training * work).tolist(),
                model.transfer.tolist(),
                spent.tolist(),
                self.device[rows].tolist(),
                strict=True,
            )
        )


def admit(
    rules: Admission,
    view: FleetView,
    history: FleetHistory,
    cost: TaskCost,
    seconds: float | None = None,
) -> Admitted:
    """Judge every client. Pure.

    Args:
        rules: the plan's table.
        view: what is known of devices.
        history: what clients showed.
        cost: of the whole task.
        seconds: the round's deadline; None when there is none, or it is derived afterwards.
    """
    found = predict(view, history, cost)
    steps = cost.planned_steps(view)
    budget = _joules_allowed(rules, view)
    limits = [limit for limit in (seconds, rules.max_seconds) if limit is not None]
    in_time = np.ones(len(view))
    if limits and rules.by_time:
        fits = found.work_within(min(limits), rules.time_quantile)
        in_time = np.where(found.known, _whole_steps(fits, steps), 1.0)
    in_energy = _whole_steps(found.work_of_energy(budget, rules.energy_quantile), steps)
    work = np.minimum(in_time, in_energy)
    least = np.full(len(view), 1.0) if not rules.adapt else np.maximum(rules.least_work, 1 / steps)
    codes = np.full(len(view), Code.NOT_DRAWN, np.int8)
    codes[in_energy < least - 1e-9] = Code.TOO_MUCH_ENERGY
    codes[in_time < least - 1e-9] = Code.TOO_SLOW
    codes[cost.memory > view.memory] = Code.MEMORY
    for flags, code in _by_state(rules, view, cost, history.first):
        codes[flags] = code
    work = np.where(codes == Code.NOT_DRAWN, work, 0.0)
    model = modelled(view, cost, history.first)
    return Admitted(codes, work, steps, found, model, view.device, rules)


def _by_state(
    rules: Admission, view: FleetView, cost: TaskCost, first: Flags
) -> list[tuple[Flags, Code]]:
    """What the state of devices forbids; the last that applies is the reason that is given."""
    needed = cost.down(first) + cost.bytes_up
    found = [(view.metered & (view.data_left < needed), Code.DATA_BUDGET)]
    if rules.least_battery:
        low = ~view.charging & (view.battery <= rules.least_battery)
        found.append((low, Code.LOW_BATTERY))
    if rules.quiet_hours is not None:
        found.append((_within(view.local_hour, *rules.quiet_hours), Code.QUIET_HOURS))
    if rules.unmetered_only:
        found.append((view.metered, Code.METERED))
    if rules.charging_only:
        found.append((~view.charging, Code.NOT_CHARGING))
    return found


def _within(hour: Column, start: float, end: float) -> Flags:
    """Whether local time lies from ``start`` until ``end``, over midnight when end < start."""
    inside = (hour >= start) & (hour < end)
    over_midnight = (hour >= start) | (hour < end)
    return np.asarray(inside if start < end else over_midnight)


def _joules_allowed(rules: Admission, view: FleetView) -> Column:
    """Energy that a task may take of each device; inf on the mains."""
    capacity = np.where(view.battery_joules > 0, view.battery_joules, np.nan)
    allowed = rules.joules_of_a_task(capacity)
    left = np.maximum(view.battery - rules.least_battery, 0.0) * capacity
    return np.where(view.charging, allowed, np.fmin(allowed, left))


def _whole_steps(work: Column, steps: Column) -> Column:
    """The work cut to whole steps, from 0 to 1."""
    whole = np.floor(np.clip(work, 0.0, 1.0) * steps + 1e-9) / steps
    return np.asarray(np.minimum(whole, 1.0))
