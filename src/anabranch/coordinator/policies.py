"""Policies of the event loop: whom to ask next, and when a piece of work is closed. Pure.

A policy sees the open work and nothing else. The synchronous one asks the whole cohort at once; a
policy that keeps a number of tasks open, or that asks somebody else for a client that was lost,
answers `Policy.dispatch` again and again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

__all__ = ["OpenWork", "Policy", "Synchronous"]


@dataclass(frozen=True, slots=True)
class OpenWork:
    """What a policy knows of the work in progress.

    Attributes:
        selected: clients that may be asked, in the order of the selection.
        asked: how many of them were asked.
        answered: clients with an outcome, good or bad.
        merged: updates in the sum.
        elapsed: seconds since the first task was given out.
    """

    selected: int
    asked: int
    answered: int
    merged: int
    elapsed: float

    @property
    def waiting(self) -> int:
        """Clients that were asked and have no outcome yet."""
        return self.asked - self.answered


class Policy(Protocol):
    """Decides when tasks are given out and when collecting ends."""

    def dispatch(self, work: OpenWork) -> int:
        """How many more of the selected clients are asked now."""
        ...

    def close(self, work: OpenWork) -> bool:
        """Whether the work is closed now; clients without an outcome are then too late."""
        ...

    def patience(self, work: OpenWork) -> float | None:
        """Seconds that the loop may wait for the next event; None without a limit."""
        ...


@dataclass(frozen=True)
class Synchronous:
    """Ask everybody at once; close when all have answered, at the goal, or at the deadline.

    Attributes:
        deadline: seconds after the work was given out; None waits for all. A runtime reports a
            vanished client as lost, so waiting for all ends when every client has a fate.
        goal: close as soon as so many updates are merged; None waits for the rest. Only for live
            clients: in a simulation the order of arrival is the machine's, not the clients'.
    """

    deadline: float | None = None
    goal: int | None = None

    def dispatch(self, work: OpenWork) -> int:
        return work.selected - work.asked

    def close(self, work: OpenWork) -> bool:
        if work.asked < work.selected:
            return False
        reached = self.goal is not None and work.merged >= self.goal
        late = self.deadline is not None and work.elapsed >= self.deadline
        return work.waiting == 0 or reached or late

    def patience(self, work: OpenWork) -> float | None:
        return None if self.deadline is None else max(0.0, self.deadline - work.elapsed)
