"""The plan's limits against what the run measured: shown, reported, and the exit code."""

from __future__ import annotations

from collections.abc import Iterator

from anabranch.coordinator.events import LimitCheck
from anabranch.coordinator.stop import Progress
from anabranch.plan.evaluation import Limits

__all__ = ["check_limits"]


def check_limits(limits: Limits, progress: Progress) -> tuple[LimitCheck, ...]:
    """One check for each limit that the plan sets; a limit without a measurement is missed."""
    return tuple(_checks(limits, progress))


def _checks(limits: Limits, progress: Progress) -> Iterator[LimitCheck]:
    if (most_rounds := limits.rounds_to_target) is not None:
        measured = float(progress.reached) if progress.reached else None
        met = measured is not None and measured <= most_rounds
        yield LimitCheck("rounds_to_target", f"<= {most_rounds} rounds", measured, met)
    if (most_bytes := limits.max_update_bytes) is not None:
        largest = progress.largest_update
        met = 0 < largest <= most_bytes
        yield LimitCheck("max_update_bytes", f"<= {most_bytes} bytes", float(largest), met)
    if (least := limits.min_participation) is not None:
        share = progress.merged / progress.asked if progress.asked else None
        met = share is not None and share >= least
        yield LimitCheck("min_participation", f">= {least:g} of the clients asked", share, met)
    if (seconds := limits.max_seconds) is not None:
        met = progress.seconds <= seconds
        yield LimitCheck("max_seconds", f"<= {seconds:g} s", progress.seconds, met)
