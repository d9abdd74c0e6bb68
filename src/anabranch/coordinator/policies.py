"""Policies of the event loop: when a piece of work is closed. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

__all__ = ["Policy", "Synchronous", "derived_deadline"]


class Policy(Protocol):
    """Decides when collecting ends."""

    def close(self, waiting: int, contributors: int, elapsed: float) -> bool:
        """Whether the work is closed now."""
        ...

    def patience(self, elapsed: float) -> float | None:
        """Seconds that the loop may wait for the next event; None without a limit."""
        ...


@dataclass(frozen=True)
class Synchronous:
    """Close when all have answered or the deadline has passed.

    Attributes:
        deadline: seconds after the work was given out; None waits for all. A runtime reports a
            vanished client as lost, so waiting for all ends when every client has a fate.
    """

    deadline: float | None = None

    def close(self, waiting: int, contributors: int, elapsed: float) -> bool:
        return waiting == 0 or (self.deadline is not None and elapsed >= self.deadline)

    def patience(self, elapsed: float) -> float | None:
        return None if self.deadline is None else max(0.0, self.deadline - elapsed)


def derived_deadline(seconds: list[float]) -> float | None:
    """A deadline from what earlier rounds took: three times the longest, at least a minute.

    None before anything was measured, so the first round waits for every client to have a fate.
    """
    return max(60.0, 3.0 * max(seconds)) if seconds else None
