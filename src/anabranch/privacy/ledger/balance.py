"""What has been spent: entries in, one state out. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from anabranch.privacy.events import GaussianEvent
from anabranch.privacy.ledger.combine import charges_of, covers, epsilon_of, merged
from anabranch.privacy.ledger.documents import unreadable
from anabranch.privacy.ledger.entries import (
    Allotted,
    Charge,
    Closed,
    Entry,
    Line,
    Opened,
    Purpose,
    Reserved,
    Settled,
)

__all__ = ["Balance", "Release", "RunBalance"]


@dataclass(frozen=True)
class Release:
    """A reservation and what became of it.

    Attributes:
        reserved: the reservation.
        settled: its settlement; None while it has none, and then it counts as spent.
    """

    reserved: Reserved
    settled: Settled | None = None

    @property
    def charge(self) -> Charge | None:
        """What counts: the settled charge, the reserved one before; None if nothing happened."""
        return self.reserved.charge if self.settled is None else self.settled.charge


@dataclass(frozen=True)
class RunBalance:
    """What one run was allotted and what it released.

    Attributes:
        allotted: its first entry.
        releases: its reservations by release id, in order.
        closed: how it ended; None while it may release.
    """

    allotted: Allotted
    releases: Mapping[str, Release] = field(default_factory=lambda: MappingProxyType({}))
    closed: Closed | None = None

    def line(self, purpose: Purpose, site: str = "") -> Line | None:
        """The line for a purpose and a site."""
        found = (
            line
            for line in self.allotted.lines
            if line.purpose == purpose and line.site in ("", site)
        )
        return next(found, None)

    def spent(self, line: Line) -> tuple[Charge, ...]:
        """What was released on a line, unsettled reservations included."""
        return tuple(
            release.charge
            for release in self.releases.values()
            if release.charge is not None and self._is_on(release.reserved, line)
        )

    def _is_on(self, reserved: Reserved, line: Line) -> bool:
        return self.line(reserved.purpose, reserved.site) == line

    def knows(self, round_: int, output: str) -> bool:
        """Whether the model of a round was released as the run recorded it.

        Args:
            round_: its number.
            output: SHA-256 of what the run released; a release that is not settled, or was settled
                without one (noise inside sites), is known by its round.
        """
        return any(
            held.reserved.purpose == "model"
            and held.reserved.round == round_
            and held.charge is not None
            and (held.settled is None or held.settled.output in ("", output))
            for held in self.releases.values()
        )

    def on(self, line: Line) -> tuple[GaussianEvent, ...]:
        """What the line counts for: all of it while the run is open, what happened afterwards.

        A line that was overdrawn (the realised noise fell below the plan) counts for both.
        """
        spent = charges_of(self.spent(line), line.participations)
        if self.closed is not None:
            return spent
        planned = charges_of(line.charges, line.participations)
        return planned if covers(line, self.spent(line), self.allotted.delta) else planned + spent

    def events(self, site: str = "") -> tuple[GaussianEvent, ...]:
        """Everything that counts for units of one site; lines of no site count for all."""
        mine = (line for line in self.allotted.lines if line.site in ("", site))
        return merged(event for line in mine for event in self.on(line))


@dataclass(frozen=True)
class Balance:
    """The state of a population's ledger after some entries.

    Attributes:
        opened: the first entry.
        runs: by id, in order.
    """

    opened: Opened
    runs: Mapping[str, RunBalance] = field(default_factory=lambda: MappingProxyType({}))

    def after(self, entry: Entry) -> Balance:
        """The balance after one more entry.

        Raises:
            AnabranchError: AB-914 the entry cannot follow.
        """
        if isinstance(entry, Opened):
            raise unreadable("the population is opened twice")
        if isinstance(entry, Allotted):
            return self._with(_allotted(self.runs.get(entry.run), entry))
        if isinstance(entry, Settled):
            run = self._holder(entry.release)
            release = replace(run.releases[entry.release], settled=entry)
            return self._with(_released(run, entry.release, release))
        run = self._run(entry.run)
        if isinstance(entry, Closed):
            return self._with(replace(run, closed=entry))
        if run.closed is not None:
            raise unreadable(f"run {entry.run!r} releases after it was closed")
        if entry.release in run.releases and run.releases[entry.release].charge is not None:
            raise unreadable(f"release {entry.release[:12]} is reserved twice")
        return self._with(_released(run, entry.release, Release(entry)))

    def after_all(self, entries: Iterable[Entry]) -> Balance:
        """The balance after more entries.

        Raises:
            AnabranchError: AB-914 one of them cannot follow.
        """
        found = self
        for entry in entries:
            found = found.after(entry)
        return found

    def release(self, release: str) -> Release | None:
        """The reservation with this id."""
        for run in self.runs.values():
            if release in run.releases:
                return run.releases[release]
        return None

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites with lines of their own."""
        found = {line.site for run in self.runs.values() for line in run.allotted.lines}
        return tuple(sorted(found - {""}))

    def parts(self) -> Iterator[tuple[str, tuple[GaussianEvent, ...]]]:
        """The events that add up, by site; one part for all where units may be at several sites."""
        sites = self.sites
        if sites and self.opened.disjoint:
            for site in sites:
                yield site, merged(e for run in self.runs.values() for e in run.events(site))
            return
        everywhere = (e for run in self.runs.values() for site in sites for e in run.events(site))
        plain = (e for run in self.runs.values() for e in run.events(""))
        yield "", merged(everywhere if sites else plain)

    def epsilon(self, delta: float | None = None) -> float:
        """What the population has spent, allotments of open runs and unsettled ones included.

        Raises:
            AnabranchError: AB-901 dp-accounting is not installed; AB-902 bad delta.
        """
        at = self.opened.delta if delta is None else delta
        return max(epsilon_of(events, at) for _, events in self.parts())

    def _with(self, run: RunBalance) -> Balance:
        runs = {**self.runs, run.allotted.run: run}
        return replace(self, runs=MappingProxyType(runs))

    def _run(self, run: str) -> RunBalance:
        if run not in self.runs:
            raise unreadable(f"run {run!r} is not allotted")
        return self.runs[run]

    def _holder(self, release: str) -> RunBalance:
        for run in self.runs.values():
            if release in run.releases:
                return run
        raise unreadable(f"release {release[:12]} is settled but was never reserved")


def _allotted(before: RunBalance | None, entry: Allotted) -> RunBalance:
    """The run with its allotment; one that was closed goes on with what it has released."""
    if before is None:
        return RunBalance(entry)
    if before.closed is None:
        raise unreadable(f"run {entry.run!r} is allotted twice")
    return replace(before, allotted=entry, closed=None)


def _released(run: RunBalance, release: str, what: Release) -> RunBalance:
    releases = {**run.releases, release: what}
    return replace(run, releases=MappingProxyType(releases))
