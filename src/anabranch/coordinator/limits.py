"""The plan's limits against what the run measured: shown live, reported, and the exit code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from anabranch.coordinator.events import LimitCheck
from anabranch.coordinator.stop import Progress
from anabranch.coordinator.store import Column
from anabranch.coordinator.tally import Tally
from anabranch.plan.limits import Limits

__all__ = ["LimitWatch", "check_limits"]


@dataclass
class LimitWatch:
    """The limits of one run and what was added up for them.

    Attributes:
        limits: the plan's table.
        tally: over the rounds so far.
    """

    limits: Limits
    tally: Tally

    @staticmethod
    def over(
        limits: Limits, clients: int, rounds: Iterable[Mapping[str, Column]] = ()
    ) -> LimitWatch:
        """For a fleet of ``clients``, after the rounds whose columns are given."""
        caps = [limits.max_battery] if limits.max_battery is not None else []
        return LimitWatch(limits, Tally.of(clients, rounds, caps))

    def after(self, columns: Mapping[str, Column], progress: Progress) -> tuple[LimitCheck, ...]:
        """The checks once a round with these client columns was added."""
        self.tally.add(columns)
        return self.checks(progress)

    def checks(self, progress: Progress) -> tuple[LimitCheck, ...]:
        """The checks now."""
        return check_limits(self.limits, progress, self.tally)


def check_limits(
    limits: Limits, progress: Progress, tally: Tally | None = None
) -> tuple[LimitCheck, ...]:
    """One check for each limit that the plan sets; a limit without a measurement is missed."""
    checks = (*_checks(limits, progress, tally), *_device_checks(limits, tally))
    return tuple(checks)


def _checks(limits: Limits, progress: Progress, tally: Tally | None) -> Iterator[LimitCheck]:
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
        wanted = f">= {least:g} of the clients asked"
        yield LimitCheck("min_participation", wanted, share, met, _beside(tally))
    if (seconds := limits.max_seconds) is not None:
        met = progress.seconds <= seconds
        yield LimitCheck("max_seconds", f"<= {seconds:g} s", progress.seconds, met)


def _beside(tally: Tally | None) -> str:
    """What participation must be read with: it is easily reached with fast clients alone."""
    if tally is None or tally.completeness is None or tally.unevenness is None:
        return ""
    return f"mean completeness {tally.completeness:.3f}, Gini {tally.unevenness:.3f}"


def _device_checks(limits: Limits, tally: Tally | None) -> Iterator[LimitCheck]:
    if (least := limits.min_completeness) is not None:
        whole = tally.completeness if tally is not None else None
        wanted = f">= {least:g} of the planned local work"
        yield LimitCheck("min_completeness", wanted, whole, whole is not None and whole >= least)
    if (most := limits.max_gini) is not None:
        uneven = tally.unevenness if tally is not None else None
        met = uneven is not None and uneven <= most
        yield LimitCheck("max_gini", f"<= {most:g}", uneven, met)
    if (cap := limits.max_battery) is not None:
        yield _battery(cap, limits.battery_misses or 0.0, tally)
    if (most := limits.max_median_battery) is not None:
        median = tally.median_share if tally is not None else None
        met = median is not None and median <= most
        yield LimitCheck("max_median_battery", f"<= {most:g} of a battery", median, met)


def _battery(cap: float, misses: float, tally: Tally | None) -> LimitCheck:
    tasks = tally.tasks_with_battery if tally is not None else 0
    if tally is None or not tasks:
        return LimitCheck("max_battery", f"<= {cap:g} of a battery a task", None, False)
    above = tally.above(cap) or 0.0
    note = f"{above:.3%} of {tasks} tasks above"
    if misses:
        note = f"{note}, largest {tally.largest_share:.3g}"
        wanted = f"<= {misses:g} of the tasks above {cap:g} of a battery"
        return LimitCheck("max_battery", wanted, above, above <= misses, note)
    largest = tally.largest_share
    return LimitCheck("max_battery", f"<= {cap:g} of a battery a task", largest, not above, note)
