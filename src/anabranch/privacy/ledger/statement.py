"""What a ledger says to people: what is left, and which run spent what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from anabranch.privacy.accounting import exact_epsilon
from anabranch.privacy.budget import projection
from anabranch.privacy.events import GaussianEvent
from anabranch.privacy.ledger.balance import Balance, RunBalance
from anabranch.privacy.ledger.combine import charges_of, epsilon_of
from anabranch.privacy.ledger.matrix import MatrixEvent

__all__ = ["RunStatement", "Statement", "statement"]

_SLACK = 1e-6


@dataclass(frozen=True)
class RunStatement:
    """One run in a population's ledger.

    Attributes:
        run: its id.
        label: what it is part of.
        state: ``open`` or ``closed``.
        promised: epsilon of its plan.
        counted: epsilon that counts for it now, alone.
        releases: that counted.
        unsettled: of these, reservations whose release is not known to have happened.
        purposes: what was released.
        reason: how it ended.
        lasts: round up to which the run's budget lasts at its latest noise; 0 where nothing is
            projected: a closed run, one without releases, one whose limit on participations bounds
            it whatever the rounds.
    """

    run: str
    label: str
    state: str
    promised: float
    counted: float
    releases: int
    unsettled: int
    purposes: tuple[str, ...]
    reason: str
    lasts: int = 0


@dataclass(frozen=True)
class Statement:
    """A population's ledger in a few numbers.

    Attributes:
        population: its name.
        unit: whose presence is protected.
        relation: when two populations are neighbours.
        budget: epsilon over all runs.
        delta: of all numbers.
        size: units; 0 if not known.
        spent: epsilon spent, allotments of open runs included.
        left: largest epsilon of one more run without sampling that would still fit.
        sites: epsilon by site, where units are disjoint.
        runs: in the order in which they began.
    """

    population: str
    unit: str
    relation: str
    budget: float
    delta: float
    size: int
    spent: float
    left: float
    sites: tuple[tuple[str, float], ...]
    runs: tuple[RunStatement, ...]


def statement(balance: Balance) -> Statement:
    """The statement of a ledger.

    Raises:
        AnabranchError: AB-901 dp-accounting is not installed.
    """
    opened = balance.opened
    parts = [(site, epsilon_of(events, opened.delta)) for site, events in balance.parts()]
    return Statement(
        population=opened.population,
        unit=opened.unit.value,
        relation=opened.relation.value,
        budget=opened.epsilon,
        delta=opened.delta,
        size=opened.size,
        spent=max(epsilon for _, epsilon in parts),
        left=_left(balance),
        sites=tuple((site, epsilon) for site, epsilon in parts if site),
        runs=tuple(_run(state, opened.delta) for state in balance.runs.values()),
    )


def _left(balance: Balance) -> float:
    """Bisection over the noise of one more plain release."""
    opened = balance.opened
    parts = [events for _, events in balance.parts()]

    def fits(noise: float) -> bool:
        more = GaussianEvent(
            noise * opened.relation.sensitivity, relation=opened.relation, unit=opened.unit
        )
        return all(epsilon_of([*part, more], opened.delta) <= opened.epsilon for part in parts)

    low, high = 1e-2, 1e4
    if not fits(high):
        return 0.0
    while high / low > 1.0005:
        middle = (low * high) ** 0.5
        low, high = (low, middle) if fits(middle) else (middle, high)
    return exact_epsilon(high, opened.delta)


def _run(state: RunBalance, delta: float) -> RunStatement:
    counting = [r for r in state.releases.values() if r.charge is not None]
    sites: Sequence[str] = sorted({line.site for line in state.allotted.lines} - {""}) or [""]
    return RunStatement(
        run=state.allotted.run,
        label=state.allotted.label,
        state="open" if state.closed is None else "closed",
        promised=state.allotted.epsilon,
        counted=max(epsilon_of(state.events(site), delta) for site in sites),
        releases=len(counting),
        unsettled=sum(release.settled is None for release in counting),
        purposes=tuple(sorted({r.reserved.purpose for r in counting})),
        reason=state.closed.reason if state.closed is not None else "",
        lasts=_lasts(state),
    )


def _lasts(state: RunBalance) -> int:
    """Rounds of the model that the run's allotment holds when all go on like the latest one."""
    line = state.line("model")
    spent = state.spent(line) if line is not None and not line.participations else ()
    if line is None or not spent or state.closed is not None:
        return 0
    latest, planned = spent[-1], sum(charge.rounds for charge in line.charges)
    if isinstance(latest, MatrixEvent):
        return planned
    more = latest

    def epsilon_after(rounds: int) -> float:
        ahead = rounds - len(spent)
        charges = (*spent, replace(more, rounds=ahead)) if ahead > 0 else spent[:rounds]
        return epsilon_of(charges_of(charges), state.allotted.delta)

    budget = state.allotted.epsilon * (1 + _SLACK)
    return len(spent) + projection(epsilon_after, budget, len(spent), planned).rounds
