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
from anabranch.coordinator.secure_sum import Phase, SecureSetup, SecureSum
from anabranch.fleet.view import FleetView

__all__ = ["SecureRuntime", "SecureVirtualRuntime", "secured"]

_SUMMED = (TaskKind.TRAIN, TaskKind.EVALUATE)


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

    def submit(self, work: Work) -> None:
        if work.kind not in _SUMMED:
            self._inner.submit(work)
            return
        made = SecureSum(self._setup, work)
        self._follow(made, work, made.begin())

    def poll(self, timeout: float | None) -> Sequence[RuntimeEvent]:
        limit = math.inf if timeout is None else self.now() + timeout
        while not self._ready:
            wait = min([limit, *self._until.values()]) - self.now()
            events = self._inner.poll(max(0.0, wait) if math.isfinite(wait) else None)
            for event in events:
                self._take(event)
            self._close_phases()
            if self.now() >= limit or not (self._open or events):
                break
        ready, self._ready = self._ready, []
        return ready

    def abandon(self, task: str | None = None) -> Sequence[Outcome]:
        late: list[Outcome] = []
        for made, work in list(self._open.values()):
            if task in (None, work.task):
                self._inner.abandon(made.task)
                self._forget(made)
                ended = made.give_up("the round was closed")
                late += [event for event in ended if isinstance(event, Outcome)]
        if task is None or task not in self._trained:
            late += self._inner.abandon(task)
        return late

    def settle(self, task: str, fates: Mapping[int, Fate]) -> None:
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

    def _take(self, event: RuntimeEvent) -> None:
        known = self._open.get(event.task)
        if known is None:
            self._ready.append(event)
        else:
            known[0].absorb(event)

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
            self._ready += made.result or made.give_up("it ended without a result")
            return
        self._open[made.task] = (made, work)
        seconds = self._update if made.phase is Phase.UPDATE else self._stage
        if made.phase is Phase.UPDATE:
            self._trained[work.task] = made.task
        if seconds is not None:
            self._until[made.task] = self.now() + seconds
        self._inner.submit(following)


@runtime_checkable
class _Devices(VirtualRuntime, Protocol):
    """A runtime of simulated devices."""

    def view(self, now: float) -> FleetView: ...


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

    def view(self, now: float) -> FleetView:
        """What the coordinator may know of the devices at ``now``."""
        return self._virtual.view(now)

    def arrays(self) -> Mapping[str, NDArray[np.generic]]:
        """The devices' state."""
        return self._virtual.arrays()

    def restore(self, now: float, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Go on at this time of the clock."""
        self._virtual.restore(now, arrays)

    def resubmit(self, work: Work, at: float) -> None:
        """Nothing stays open over rounds: a sum is made in one."""
        self.submit(work)


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
