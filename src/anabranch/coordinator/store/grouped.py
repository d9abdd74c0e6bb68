"""Grouped commits: fast rounds share one commit a second; what a crash loses is recomputed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol, runtime_checkable

from anabranch.coordinator.store.records import RoundRecord
from anabranch.coordinator.store.session import RunSession

__all__ = ["GroupedCommits", "TwoPhase", "Witness"]


class TwoPhase(Protocol):
    """Client states that become durable with a commit (`anabranch.client.states.SlotFile`)."""

    def sync(self) -> None: ...

    def durable(self) -> Mapping[int, int]: ...

    def committed(self) -> None: ...


@runtime_checkable
class Witness(TwoPhase, Protocol):
    """Client states that add to the record of each round what proves it to the clients."""

    def recall(self, session: RunSession) -> None:
        """What the run's committed rounds told already."""
        ...

    def witness(self, record: RoundRecord) -> RoundRecord:
        """The record as it is committed."""
        ...


class GroupedCommits:
    """Buffers rounds and commits them together.

    Only for runs in which nothing is released before it is committed: after a crash the rounds of
    the open group are computed again, bitwise, from the last commit.

    Promote or discard the client states of a round *before* `add`: a commit takes the states as
    they are then. As a context manager it flushes at a normal end; after an error it does not,
    because client states may then be ahead of the rounds.

    Args:
        session: of the run.
        seconds: a commit happens with the first `add` this long after the last one; 0 commits
            every round.
        states: committed in the same step: synced first, named by the rows, then switched.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        session: RunSession,
        seconds: float = 1.0,
        *,
        states: TwoPhase | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._session = session
        self._seconds = seconds
        self._states = states
        self._clock = clock
        self._buffer: list[RoundRecord] = []
        self._last = clock()

    def __enter__(self) -> GroupedCommits:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None:
            self.flush()

    @property
    def buffered(self) -> int:
        """Rounds that a crash would lose now."""
        return len(self._buffer)

    def add(self, record: RoundRecord, *, force: bool = False) -> bool:
        """Take over the next round; whether everything up to it is durable now.

        Args:
            record: its arrays must not change any more.
            force: commit now, for example at the last round or before something is released.
        """
        if isinstance(self._states, Witness):
            record = self._states.witness(record)
        self._release_memory(record)
        self._buffer.append(record)
        if force or self._clock() - self._last >= self._seconds:
            self.flush()
        return not self._buffer

    def flush(self) -> None:
        """Commit what is buffered.

        Raises:
            AnabranchError: as `RunSession.commit`; the rounds stay buffered.
        """
        if not self._buffer:
            return
        if self._states is None:
            self._session.commit(self._buffer)
        else:
            self._states.sync()
            last = self._buffer[-1]
            named = replace(last, slots={**last.slots, **self._states.durable()})
            self._session.commit([*self._buffer[:-1], named])
            self._states.committed()
        self._buffer.clear()
        self._last = self._clock()

    def _release_memory(self, new: RoundRecord) -> None:
        """Forget states that the commit will not write: memory stays flat whatever the pace."""
        for index, old in enumerate(self._buffer):
            if old.state and (not old.keep or old.keep == new.keep):
                self._buffer[index] = replace(old, state={})
