"""Real training in virtual time: any local runtime behind a fleet of simulated devices.

Training work is asked of simulated devices. What they do, and when, comes from the fleet's hidden
truth; what they compute comes from the inner runtime, which is asked when training ends in virtual
time, several clients at once, so that its workers have something to do. Neither depends on the
other, nor on how fast this machine is: the order of answers is that of the virtual clock.

Evaluation on the coordinator's side takes no virtual time and goes to the inner runtime as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from anabranch.client.task import TaskKind
from anabranch.coordinator.runtime import (
    Fate,
    Outcome,
    Payload,
    Runtime,
    RuntimeEvent,
    Work,
)
from anabranch.fleet.clock import Agenda
from anabranch.fleet.devices.simulated import Begun, Content, Ended, SimulatedFleet
from anabranch.fleet.devices.timelines import task_trace
from anabranch.fleet.timeline import TaskTrace
from anabranch.fleet.view import Column, FleetView
from anabranch.updates.total import Finest

__all__ = ["DeviceRuntime", "broadcast_bytes"]

_TRAINED, _DONE, _LOST = 0, 1, 2
_DEVICE_WORK = (TaskKind.TRAIN, TaskKind.EXCHANGE, TaskKind.MASK)
_STATE, _HOLDING = "devices.", "holding"
_FAILURE_BYTES = 1000.0
"""Bytes of a message that says that a client failed."""


def broadcast_bytes(work: Work) -> NDArray[np.float64]:
    """Bytes of the broadcast to each client of the work, encoded where the plan has a downlink."""
    return np.array([work.bytes_to(client) for client in work.clients], np.float64)


def _size(payload: Payload | None) -> float:
    return _FAILURE_BYTES if payload is None else float(len(payload.content))


@dataclass
class _Group:
    """One piece of work on the devices: tasks are rows of ``begun``.

    Attributes:
        work: as it was submitted.
        begun: how the tasks began, in the order of ``work.clients``.
        first: serial number of the first task.
        order: rows by the time at which training ends; those that never end are left out.
        executed: rows of ``order`` that the inner runtime has answered.
        answers: payload and outcome of each executed row that is still on its way.
        ended: how the executed rows go on.
        open: rows without an outcome.
    """

    work: Work
    begun: Begun
    first: int
    order: NDArray[np.int64]
    executed: int = 0
    answers: dict[int, tuple[Payload | None, Outcome]] = field(default_factory=dict)
    ended: dict[int, Ended] = field(default_factory=dict)
    open: set[int] = field(default_factory=set)


class DeviceRuntime:
    """A runtime whose clients are simulated devices.

    Args:
        inner: computes what clients compute.
        fleet: the devices and their hidden truth.
        flops: floating-point operations of each client's whole local work.
        examples: training examples of each client, as it announces them.
        bytes_down: of the download of each client of a work.
        batch: clients that the inner runtime is asked for at once.
        memory: bytes that training needs; a device with less loses its task.
        frozen: bytes of the part of the model that never changes: downloaded once by each device,
            with its first task.
        content: with how much less than the whole work each client is content, where clients may
            stop early; a task's own time limit comes with it.
    """

    def __init__(
        self,
        inner: Runtime,
        fleet: SimulatedFleet,
        flops: Column,
        examples: Column,
        bytes_down: Callable[[Work], NDArray[np.float64]] = broadcast_bytes,
        batch: int = 8,
        memory: float = 0.0,
        frozen: float = 0.0,
        content: Content | None = None,
    ) -> None:
        self._inner, self._fleet = inner, fleet
        self._flops, self._examples = flops, examples
        self._bytes_down, self._batch = bytes_down, batch
        self._memory, self._frozen, self._content = memory, frozen, content
        self._holding = np.zeros(len(fleet), np.bool_)
        self._agenda = Agenda()
        self._groups: dict[str, _Group] = {}
        self._places: dict[int, tuple[str, int]] = {}
        self._serial = 0
        self._now = 0.0
        self._aside: dict[str, set[int]] = {}

    # The runtime ---------------------------------------------------------------------------

    def now(self) -> float:
        return self._now

    def view(self, now: float) -> FleetView:
        """What the coordinator may know of the devices at ``now``."""
        return self._fleet.view(now).with_columns(examples=self._examples)

    def submit(self, work: Work) -> None:
        if work.kind in _DEVICE_WORK:
            self._begin(work, self._now)
        else:
            self.repeat(work)

    def resubmit(self, work: Work, at: float) -> None:
        """Work of before a restart: everything happens to it as it would have."""
        self._begin(work, at)

    def repeat(self, work: Work) -> None:
        """Compute again what was computed before a restart: it takes no time and no energy."""
        self._aside[work.task] = set(work.clients)
        self._inner.submit(work)

    def poll(self, timeout: float | None) -> Sequence[RuntimeEvent]:
        """What happens next, advancing the clock by at most ``timeout`` virtual seconds.

        Only what happens at one instant is returned, so that a policy sees every instant.
        """
        if self._aside:
            return self._poll_aside()
        limit = math.inf if timeout is None else self._now + timeout
        while True:
            time = self._agenda.next_time()
            if time is None or time > limit:
                self._now = limit if math.isfinite(limit) else self._now
                return []
            self._now = max(self._now, time)
            events = self._happen(time)
            if events:
                return events

    def abandon(self, task: str | None = None) -> Sequence[Outcome]:
        late: list[Outcome] = []
        for name in [name for name in self._groups if task in (None, name)]:
            late += self._give_up(self._groups.pop(name))
        if task is None or task in self._aside:
            late += self._inner.abandon(task)
            self._aside = (
                {} if task is None else {k: v for k, v in self._aside.items() if k != task}
            )
        return late

    def settle(self, task: str, fates: Mapping[int, Fate]) -> None:
        self._inner.settle(task, fates)

    def close(self) -> None:
        self._groups.clear()
        self._inner.close()

    # What a resumed run needs ----------------------------------------------------------------

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """The devices' state: batteries, data budgets, who holds the frozen part of the model."""
        holding = {_HOLDING: self._holding.copy()} if self._frozen else {}
        return {_STATE + name: array for name, array in (self._fleet.arrays() | holding).items()}

    def restore(self, now: float, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Go on at ``now`` with the devices' state of that time; without arrays, from the start."""
        self._now = now
        own = {k.removeprefix(_STATE): v for k, v in arrays.items() if k.startswith(_STATE)}
        self._holding = own.pop(_HOLDING, np.zeros(len(self._fleet))).astype(np.bool_)
        if own:
            self._fleet.restore(own)

    # Virtual time ----------------------------------------------------------------------------

    def _begin(self, work: Work, at: float) -> None:
        rows = np.array(work.clients, np.int64)
        training = work.kind is TaskKind.TRAIN
        fractions = np.array([work.fractions.get(client, 1.0) for client in work.clients])
        letters = np.array([len(work.letters.get(client, b"")) for client in work.clients])
        begun = self._fleet.begin(
            rows,
            at,
            work.draw or work.round,
            self._flops[rows] * fractions * training,
            (self._bytes_down(work) + self._frozen * ~self._holding[rows]) * training + letters,
            f"device-{work.kind.value}",
            self._content_of(work, rows, fractions) if training else None,
        )
        latest = begun.asked + self._fleet.settings.task_seconds
        # A system ends the program that wants more memory than there is; nobody hears of it.
        ended = training & (self._fleet.profiles.memory[rows] < self._memory)
        trained = np.where(ended | (begun.trained > latest), np.inf, begun.trained)
        begun = replace(begun, trained=trained, train=np.where(ended, 0.0, begun.train))
        order = np.lexsort((rows, begun.trained))
        alive = np.isfinite(begun.trained)
        group = _Group(work, begun, self._serial, order[alive[order]], open=set(range(len(rows))))
        serials = self._serial + np.arange(len(rows))
        self._agenda.add(begun.trained, _TRAINED, serials)
        self._agenda.add(np.where(alive, np.inf, latest), _LOST, serials)
        self._groups[work.task] = group
        self._places.update((self._serial + row, (work.task, row)) for row in range(len(rows)))
        self._serial += len(rows)

    def _content_of(self, work: Work, rows: NDArray[np.int64], asked: Column) -> Content | None:
        """When the clients of one work may stop: its own time limit, and whole steps of it."""
        if self._content is None:
            return None
        known = self._content
        seconds = np.full(len(rows), math.inf if work.seconds is None else work.seconds)
        least = np.minimum(known.least[rows] / asked, 1.0)
        return Content(seconds, known.joules[rows], known.bytes_up[rows], least)

    def _happen(self, time: float) -> list[RuntimeEvent]:
        events: list[RuntimeEvent] = []
        due = self._agenda.take(time)
        for kind, serial in zip(due.kinds.tolist(), due.rows.tolist(), strict=True):
            task, row = self._places[serial]
            group = self._groups[task]
            if kind == _TRAINED:
                self._send(group, row)
            else:
                events += self._arrive(group, row, lost=kind == _LOST)
        return events

    def _send(self, group: _Group, row: int) -> None:
        """Training has ended: the answer is known, and with its size the time of the upload."""
        if row not in group.answers:
            self._execute(group)
        ended = group.ended[row]
        serial = np.array([group.first + row])
        latest = group.begun.asked[[row]] + self._fleet.settings.task_seconds
        self._agenda.add(ended.ended, _DONE, serial)
        self._agenda.add(np.where(np.isfinite(ended.ended), np.inf, latest), _LOST, serial)

    def _execute(self, group: _Group) -> None:
        """Ask the inner runtime for the clients whose training ends next."""
        rows = group.order[group.executed : group.executed + self._batch].tolist()
        group.executed += len(rows)
        number = {group.work.clients[row]: row for row in rows}
        asked = group.work.fractions
        early = {c: float(group.begun.done[row]) for c, row in number.items()}
        done = {c: asked.get(c, 1.0) * share for c, share in early.items() if share < 1.0}
        work = replace(group.work, clients=tuple(number), finest=Finest.INDIVIDUALS)
        self._inner.submit(replace(work, fractions={**asked, **done}))
        payloads: dict[int, Payload] = {}
        while number:
            for event in self._inner.poll(None):
                if isinstance(event, Payload):
                    payloads[event.client] = event
                elif isinstance(event, Outcome) and event.client in number:
                    row = number.pop(event.client)
                    group.answers[row] = (payloads.get(event.client), event)
        sizes = np.array([_size(group.answers[row][0]) for row in rows])
        ended = self._fleet.finish(group.begun.take(np.array(rows)), sizes)
        group.ended |= {row: ended.take(np.array([place])) for place, row in enumerate(rows)}

    def _arrive(self, group: _Group, row: int, *, lost: bool) -> list[RuntimeEvent]:
        """The answer has arrived, or the client has not been heard of for too long."""
        begun, ended = group.begun.take(np.array([row])), group.ended.pop(row, None)
        payload, answer = group.answers.pop(row, (None, None))
        client = group.work.clients[row]
        spent = self._fleet.spent_by(begun, self._now) if ended is None else ended.spent
        carried = begun.carried if ended is None else begun.carried + ended.carried
        powered = bool(self._fleet.charge(begun, spent, carried, self._now)[0])
        trace = self._trace(group, row, begun, ended, spent)
        fetched = self._fetched(group.work, begun)
        self._close(group, row)
        seconds = self._now - float(begun.asked[0])
        if lost or not powered or answer is None:
            why = "its battery ran empty" if not powered else "no answer: the device went away"
            task = group.work.task
            return [Outcome(client, Fate.LOST, why, seconds, 0, task, trace, fetched)]
        outcome = replace(
            answer, seconds=seconds, task=group.work.task, trace=trace, bytes_down=fetched
        )
        if payload is None:
            return [outcome]
        return [replace(payload, task=group.work.task), outcome]

    def _close(self, group: _Group, row: int) -> None:
        group.open.discard(row)
        self._places.pop(group.first + row)
        if not group.open:
            self._groups.pop(group.work.task, None)

    def _give_up(self, group: _Group) -> list[Outcome]:
        rows = np.array(sorted(group.open), np.int64)
        self._agenda.drop(group.first + rows)
        for row in group.open:
            self._places.pop(group.first + row)
        begun = group.begun.take(rows)
        spent = self._fleet.spent_by(begun, self._now)
        self._fleet.charge(begun, spent, begun.carried, self._now)
        late = []
        for place, row in enumerate(rows.tolist()):
            one = begun.take(np.array([place]))
            trace = self._trace(group, row, one, None, spent[[place]])
            seconds = self._now - float(one.asked[0])
            client, name = group.work.clients[row], group.work.task
            why = f"no answer after {seconds:.3g} s of virtual time"
            fetched = self._fetched(group.work, one)
            late.append(Outcome(client, Fate.TOO_LATE, why, seconds, 0, name, trace, fetched))
        return late

    def _fetched(self, work: Work, begun: Begun) -> int | None:
        """Bytes of one client's download where the frozen part was in it; it is kept once whole."""
        if not self._frozen or work.kind is not TaskKind.TRAIN:
            return None
        self._holding[begun.rows] |= begun.downloaded <= self._now
        return round(float(begun.bytes_down[0]))

    def _trace(
        self, group: _Group, row: int, begun: Begun, ended: Ended | None, spent: Column
    ) -> TaskTrace:
        fraction = group.work.fractions.get(group.work.clients[row], 1.0)
        return task_trace(self._fleet, begun, ended, spent, self._now, fraction)

    # Work that takes no virtual time ----------------------------------------------------------

    def _poll_aside(self) -> Sequence[RuntimeEvent]:
        events = self._inner.poll(None)
        for event in events:
            if isinstance(event, Outcome) and event.task in self._aside:
                self._aside[event.task].discard(event.client)
        self._aside = {task: waiting for task, waiting in self._aside.items() if waiting}
        return events
