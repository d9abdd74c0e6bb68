"""The inline runtime: clients run one after another in this process (notebooks, debuggers)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from anabranch.client.states import SlotFile
from anabranch.coordinator.runtime import Fate, Outcome, RuntimeEvent, Work
from anabranch.learners.threads import one_thread
from anabranch.runtimes.local.memory import ClientMemories
from anabranch.runtimes.local.worker import Share, Simulant

__all__ = ["InlineRuntime"]


class InlineRuntime:
    """Runs every task when it is polled.

    Args:
        simulant: program, data and memory access.
        slots: the clients' two-phase memory, or None when they keep nothing.
    """

    def __init__(self, simulant: Simulant, slots: SlotFile | None = None) -> None:
        self._simulant = simulant
        self._memories = ClientMemories(slots)
        self._open: list[Work] = []

    def submit(self, work: Work) -> None:
        self._open.append(work)

    def poll(self, timeout: float | None) -> Sequence[RuntimeEvent]:
        events: list[RuntimeEvent] = []
        with one_thread():
            for work in self._open:
                slots = self._memories.slots(work.kind, work.clients)
                share = Share.of(work, work.clients, slots)
                events += self._simulant.run(share, work.broadcast)
        self._open.clear()
        return events

    def abandon(self, task: str | None = None) -> Sequence[Outcome]:
        given_up = [work for work in self._open if task in (None, work.task)]
        self._open = [work for work in self._open if task not in (None, work.task)]
        return [Outcome(c, Fate.TOO_LATE, task=w.task) for w in given_up for c in w.clients]

    def settle(self, task: str, fates: Mapping[int, Fate]) -> None:
        self._memories.settle(fates)

    def now(self) -> float:
        return time.monotonic()

    def close(self) -> None:
        self._open.clear()
