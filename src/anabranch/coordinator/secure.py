"""Secure aggregation as a runtime around a runtime: the loop asks for a sum and gets a sum.

`SecureRuntime` takes training and evaluation work and gives every client its outcome and one
`Partial`, as a runtime does that folds at its workers. In between it leads the clients through the
messages of `SecureSum`, over whatever carries them: the coordinator's loop, the network and the
simulator know nothing of masks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from anabranch.client.task import TaskKind
from anabranch.coordinator.runtime import (
    Fate,
    Outcome,
    Runtime,
    RuntimeEvent,
    VirtualRuntime,
    Work,
)
from anabranch.coordinator.secure_buffer import HeldUpdates
from anabranch.coordinator.secure_setup import SecureSetup
from anabranch.coordinator.secure_sum import Phase, SecureSum, half_opened
from anabranch.fleet.view import FleetView
from anabranch.privacy.secure_aggregation.bases import NO_BASES, Bases
from anabranch.privacy.secure_aggregation.context import RoundContext
from anabranch.updates.total import Finest

__all__ = ["SecureRuntime", "SecureVirtualRuntime", "secured"]

_SUMMED = (TaskKind.TRAIN, TaskKind.EVALUATE)
_READY = "secure.ready"


@runtime_checkable
class _ShowsLedger(Protocol):
    """A runtime whose clients keep the head of the ledger."""

    def show_ledger(self, path: Path) -> None: ...


class SecureRuntime:
    """A runtime that yields sums alone.

    Args:
        inner: carries tasks and letters.
        setup: of the run.
        stage_seconds: longest time for an exchange; None waits for every client's fate.
        update_seconds: longest time for the update itself; None waits.
    """

    def __init__(
        self,
        inner: Runtime,
        setup: SecureSetup,
        stage_seconds: float | None = None,
        update_seconds: float | None = None,
    ) -> None:
        self._inner, self._setup = inner, setup
        self._stage, self._update = stage_seconds, update_seconds
        self._open: dict[str, tuple[SecureSum, Work]] = {}
        self._until: dict[str, float] = {}
        self._trained: dict[str, str] = {}
        self._ready: list[RuntimeEvent] = []
        self._again: RoundContext | None = None
        self._held: HeldUpdates | None = None
        if setup.terms.holds(TaskKind.TRAIN.value):
            self._held = HeldUpdates(setup.run, tuple(setup.names), setup.buffer)

    def begin_round(self, number: int) -> Mapping[str, tuple[int, ...]]:
        """The version being made. A sum that the round before left open is given up.

        After a restart: who is in a sum of this version that clients may have been asked to open.
        They open no other over these models, so that very one is asked for again.
        """
        held = self._held
        if held is None:
            return {}
        self._ready += self._end_sum()
        first, held.version, held.forming = held.version == 0, number, True
        if not first:
            return {}
        before = half_opened(self._setup, TaskKind.TRAIN.value)
        if before is None or before.bases.version != number:
            return {}
        self._again = before
        return held.members(before.bases)

    def submit(self, work: Work) -> None:
        if work.kind is TaskKind.TRAIN and self._held is not None:
            self._held.begin(work)
            self._inner.submit(replace(work, finest=Finest.INDIVIDUALS))
            return
        if self._held is not None:  # the version is made, and is looked at
            self._ready += self._end_sum()
            self._held.forming = False
        if work.kind in _SUMMED:
            self._start(work, NO_BASES)
        else:
            self._inner.submit(work)

    def poll(self, timeout: float | None) -> Sequence[RuntimeEvent]:
        limit = math.inf if timeout is None else self.now() + timeout
        while not self._ready:
            self._form()
            wait = min([limit, *self._until.values()]) - self.now()
            events = self._inner.poll(max(0.0, wait) if math.isfinite(wait) else None)
            for event in events:
                self._take(event)
            self._close_phases()
            busy = self._open or (self._held is not None and self._held.complete)
            if self.now() >= limit or not (busy or events):
                break
        ready, self._ready = self._ready, []
        return ready

    def abandon(self, task: str | None = None) -> Sequence[Outcome]:
        late: list[Outcome] = []
        if self._held is not None:
            ended = self._end_sum() if self._held.in_sum(task) else []
            late += [outcome for outcome in ended if task in (None, outcome.task)]
            self._ready += [outcome for outcome in ended if outcome not in late]
            late += self._held.give_up(task)
        for made, work in list(self._open.values()):
            if task in (None, work.task):
                self._inner.abandon(made.task)
                self._forget(made)
                late += made.give_up("the round was closed")
        if task is None or task not in self._trained:
            late += self._inner.abandon(task)
        return late

    def settle(self, task: str, fates: Mapping[int, Fate]) -> None:
        if self._held is not None:
            self._held.forget(task, fates)
        self._inner.settle(self._trained.pop(task, task), fates)

    def now(self) -> float:
        return self._inner.now()

    def close(self) -> None:
        self._inner.close()

    def show_ledger(self, path: Path) -> None:
        """Let clients elsewhere see where the ledger stands, where the inner runtime can."""
        if isinstance(self._inner, _ShowsLedger):
            self._inner.show_ledger(path)

    def bind_ledger(self, head: Callable[[], tuple[int, bytes]]) -> None:
        """From now on every sum is bound to the ledger's head: entries, and their digest."""
        self._setup = replace(self._setup, ledger=head)

    # Sums ----------------------------------------------------------------------------------

    def _start(self, work: Work, bases: Bases) -> None:
        made = SecureSum(self._setup, work, bases)
        self._follow(made, work, made.begin())

    def _form(self) -> None:
        """Sum up what is held, as soon as enough are ready."""
        again, self._again = self._again, None
        if self._held is not None and again is not None:
            work = self._held.resume(again.round, again.bases)
            if work is not None:
                self._start(work, again.bases)
                return
        if self._held is not None and self._held.complete:
            number = self._setup.journal.newest(TaskKind.TRAIN.value) + 1
            self._start(*self._held.form(number))

    def _end_sum(self) -> list[Outcome]:
        """Give up the open sum of held updates, if there is one; those not masked are kept."""
        assert self._held is not None
        told: list[RuntimeEvent] = []
        for made, _ in list(self._open.values()):
            if made.held:
                self._inner.abandon(made.task)
                self._forget(made)
                again = made.unmasked()
                told += self._held.ended(made.give_up("the round was closed"), again)
        return [event for event in told if isinstance(event, Outcome)]

    def _take(self, event: RuntimeEvent) -> None:
        known = self._open.get(event.task)
        if known is not None:
            known[0].absorb(event)
        elif self._held is not None and self._held.knows(event.task):
            self._ready += self._held.take(event)
        else:
            self._ready.append(event)

    def _close_phases(self) -> None:
        for task in list(self._open):
            made, work = self._open[task]
            if not made.waiting or self.now() >= self._until.get(task, math.inf):
                if made.waiting:
                    for outcome in self._inner.abandon(task):
                        made.absorb(outcome)
                self._forget(made)
                self._follow(made, work, made.advance())

    def _forget(self, made: SecureSum) -> None:
        self._open.pop(made.task, None)
        self._until.pop(made.task, None)

    def _follow(self, made: SecureSum, work: Work, following: Work | None) -> None:
        """Ask what the sum asks next, or hand on how it ended."""
        if following is None:
            events = made.result or made.give_up("it ended without a result")
            held = self._held if made.held else None
            self._ready += events if held is None else held.ended(events)
            return
        self._open[made.task] = (made, work)
        trains = made.phase is Phase.UPDATE and not made.held
        seconds = self._update if trains else self._stage
        if trains:
            self._trained[work.task] = made.task
        if seconds is not None:
            self._until[made.task] = self.now() + seconds
        self._inner.submit(following)


@runtime_checkable
class _Devices(VirtualRuntime, Protocol):
    """A runtime of simulated devices."""

    def view(self, now: float) -> FleetView: ...

    def repeat(self, work: Work) -> None: ...


class SecureVirtualRuntime(SecureRuntime):
    """Around a runtime whose clock is simulated."""

    def __init__(
        self,
        inner: _Devices,
        setup: SecureSetup,
        stage_seconds: float | None = None,
        update_seconds: float | None = None,
    ) -> None:
        super().__init__(inner, setup, stage_seconds, update_seconds)
        self._virtual = inner
        self._before: Mapping[tuple[int, int], tuple[int, float]] = {}

    def view(self, now: float) -> FleetView:
        """What the coordinator may know of the devices at ``now``."""
        return self._virtual.view(now)

    def arrays(self) -> Mapping[str, NDArray[np.generic]]:
        """The devices' state, and who is ready for a sum."""
        held = {} if self._held is None else {_READY: self._held.array()}
        return {**self._virtual.arrays(), **held}

    def restore(self, now: float, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Go on at this time of the clock."""
        self._virtual.restore(now, arrays)
        rows = enumerate(arrays.get(_READY, np.zeros((0, 3))).tolist())
        self._before = {(int(row[0]), int(row[1])): (place, row[2]) for place, row in rows}

    def resubmit(self, work: Work, at: float) -> None:
        """Updates that were held are computed again at once; the others are on their way."""
        assert self._held is not None, "a synchronous sum does not outlive its round"
        self._held.begin(work)
        work = replace(work, finest=Finest.INDIVIDUALS)
        ready = self._held.recall(work, self._before)
        rest = tuple(client for client in work.clients if client not in ready)
        if ready:
            self._virtual.repeat(replace(work, clients=ready))
        if rest:
            self._virtual.resubmit(replace(work, clients=rest), at)


def secured(
    inner: Runtime,
    setup: SecureSetup,
    stage_seconds: float | None = None,
    update_seconds: float | None = None,
) -> SecureRuntime:
    """The runtime around ``inner`` that yields sums alone."""
    if isinstance(inner, _Devices):
        return SecureVirtualRuntime(inner, setup, stage_seconds, update_seconds)
    return SecureRuntime(inner, setup, stage_seconds, update_seconds)
