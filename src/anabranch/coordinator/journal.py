"""The run's journal: rounds become durable in groups, never out of order, never in part.

In a simulation where nothing is released, rounds may wait up to a second before they are committed
together: a crash loses at most those, and they are computed again to the same bits.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from anabranch.coordinator.runtime import Runtime
from anabranch.coordinator.store.records import Arrays, RoundRecord

__all__ = ["Journal", "RunSession"]


class RunSession(Protocol):
    """What the journal needs from the store."""

    def commit(self, rounds: tuple[RoundRecord, ...]) -> None:
        """Make the rounds durable together; the last one's state and slots are the run's."""
        ...


class Journal:
    """Collects round records and commits them.

    Args:
        session: the open run in the store.
        runtime: holds the clients' memory, made durable before the commit that names it.
        seconds: longest time that a finished round waits; 0 commits every round.
        clock: seconds, monotone.
    """

    def __init__(
        self,
        session: RunSession,
        runtime: Runtime,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._session, self._runtime = session, runtime
        self._seconds, self._clock = seconds, clock
        self._waiting: list[RoundRecord] = []
        self._oldest = 0.0

    def add(self, record: RoundRecord, state: Callable[[], Arrays]) -> None:
        """Note a finished round; commit when the oldest one has waited long enough.

        Args:
            record: the round, without state.
            state: gives the arrays from which the next round can be computed; asked at a commit.
        """
        if not self._waiting:
            self._oldest = self._clock()
        self._waiting.append(record)
        self._state = state
        if record.keep or self._clock() - self._oldest >= self._seconds:
            self.flush()

    def flush(self) -> None:
        """Make everything noted so far durable: client memory, blobs, then one transaction."""
        if not self._waiting:
            return
        slots = self._runtime.checkpoint()
        last = replace(self._waiting[-1], state=self._state(), slots=slots)
        self._session.commit((*self._waiting[:-1], last))
        self._runtime.committed()
        self._waiting.clear()
