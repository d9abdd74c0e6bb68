"""Policies of the event loop: when tasks are given out, and when a round is closed. Pure.

A policy sees the situation and nothing else. The synchronous one asks the whole cohort at once; the
buffered one keeps a number of tasks open over the rounds and closes at each full buffer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

__all__ = ["Buffered", "Policy", "Situation", "Synchronous"]

_LOOK_AGAIN = 60.0
"""Seconds after which it is asked again whether anybody can be asked."""
_SOON = 1e-6
"""Seconds that count as over: sums of times on a clock are not exact."""
_STARVED = 3600.0
"""Seconds without anybody to ask after which a round without a deadline is closed."""
_HOPELESS = 10
"""Rounds are closed when so many times the open tasks have ended without an update: whoever fails
is asked again, and without an end that could go on for ever."""


@dataclass(frozen=True, slots=True)
class Situation:
    """What a policy knows of the round in progress.

    Attributes:
        dispatches: times that tasks were given out in this round.
        fresh: tasks given out in this round that have no outcome yet.
        kept: open tasks of earlier rounds.
        merged: updates in the sum, stale ones included.
        elapsed: seconds since the round began, on the runtime's clock.
        left: seconds until the first open task has used up the time that it was given; inf
            where none was given a limit.
        typical: median seconds of the answers to this round's tasks, once half of them are there;
            NaN before.
        lost: tasks that ended in this round without an update.
    """

    dispatches: int
    fresh: int
    kept: int
    merged: int
    elapsed: float
    left: float = math.inf
    typical: float = math.nan
    lost: int = 0

    @property
    def open(self) -> int:
        """Tasks without an outcome."""
        return self.fresh + self.kept


class Policy(Protocol):
    """Decides when tasks are given out and when a round ends.

    Attributes:
        expires: whether a task that used up its time is given up while the round goes on.
    """

    @property
    def expires(self) -> bool: ...

    def dispatch(self, now: Situation) -> int:
        """How many more clients are asked now."""
        ...

    def close(self, now: Situation) -> bool:
        """Whether the round is closed now."""
        ...

    def patience(self, now: Situation) -> float | None:
        """Seconds that the loop may wait for the next event; None without a limit."""
        ...

    def keeps(self, staleness: int) -> bool:
        """Whether a task stays open whose update would be so stale in the next round."""
        ...


@dataclass(frozen=True)
class Synchronous:
    """Ask a cohort at once; close when all have answered, at the goal, or at the deadline.

    Attributes:
        cohort: clients asked.
        deadline: seconds after the round began. None waits for all, or for the time that clients
            were given by prediction. A runtime reports a vanished client as lost, so waiting for
            all ends when every client has a fate.
        goal: close as soon as so many updates are merged; None waits for the rest. Only for live
            clients: in a simulation the order of arrival is the machine's, not the clients'.
        late_window: rounds after its own in which an update is still merged.
        straggling: where no deadline is known yet: once half of the clients have answered, the
            others are given this multiple of their median time; None waits for all.
        shortest: seconds that they are given at least.
        starved: seconds without anybody to ask after which the round is closed.
    """

    cohort: int
    deadline: float | None = None
    goal: int | None = None
    late_window: int = 0
    straggling: float | None = None
    shortest: float = 30.0
    starved: float = _STARVED
    expires: ClassVar[bool] = False

    def dispatch(self, now: Situation) -> int:
        return self.cohort if now.dispatches == 0 else 0

    def close(self, now: Situation) -> bool:
        if now.dispatches == 0:  # nobody is there
            return now.elapsed >= min(self.starved, self.deadline or math.inf)
        reached = self.goal is not None and now.merged >= self.goal
        return now.fresh == 0 or reached or self._left(now) <= _SOON

    def patience(self, now: Situation) -> float | None:
        left = max(0.0, self._left(now))
        if not now.dispatches:
            left = min(left, _LOOK_AGAIN)
        return left if math.isfinite(left) else None

    def _left(self, now: Situation) -> float:
        """Seconds until the deadline: the one that was set, the predicted one, or the first."""
        if self.deadline is not None:
            return self.deadline - now.elapsed
        if math.isfinite(now.left) or self.straggling is None or math.isnan(now.typical):
            return now.left
        return max(self.shortest, self.straggling * now.typical) - now.elapsed

    def keeps(self, staleness: int) -> bool:
        return staleness <= self.late_window


@dataclass(frozen=True)
class Buffered:
    """Keep tasks open over the rounds; a round is a full buffer (FedBuff; FedAsync with one).

    A round in which hardly anybody answers is closed with whatever there is.

    Attributes:
        buffer: updates that make a round (K).
        concurrency: tasks kept open (M).
        max_staleness: an update of an older version is given up.
        deadline: seconds after which a round is closed with whatever there is.
        starved: seconds without an open task after which a round is closed.
    """

    buffer: int
    concurrency: int
    max_staleness: int
    deadline: float | None = None
    starved: float = _STARVED
    expires: ClassVar[bool] = True

    def dispatch(self, now: Situation) -> int:
        return max(0, self.concurrency - now.open)

    def close(self, now: Situation) -> bool:
        limit = self.deadline
        if limit is None and now.open == 0:
            limit = self.starved
        hopeless = now.lost >= _HOPELESS * self.concurrency
        over = limit is not None and now.elapsed >= limit
        return now.merged >= self.buffer or over or hopeless

    def patience(self, now: Situation) -> float | None:
        left = math.inf if self.deadline is None else self.deadline - now.elapsed
        left = max(0.0, min(left, now.left))
        if now.open < self.concurrency:
            left = min(left, _LOOK_AGAIN)
        return left if math.isfinite(left) else None

    def keeps(self, staleness: int) -> bool:
        return staleness <= self.max_staleness
