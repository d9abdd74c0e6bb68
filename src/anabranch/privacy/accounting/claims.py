"""What releases cost together: the claim, how far from the truth it can be, a second opinion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from anabranch.errors import AnabranchError
from anabranch.privacy.accounting.gaussian import exact_of, is_plain
from anabranch.privacy.accounting.pld import Bound, epsilon_on_grid, lower_bound, upper_bound
from anabranch.privacy.accounting.rdp import rdp_epsilon
from anabranch.privacy.events import GaussianEvent, Relation

__all__ = [
    "Account",
    "account",
    "check_delta",
    "check_epsilon",
    "claim",
    "population_warning",
]

_SMALLEST_DELTA = 1e-12
_LEAST_NOISE = 0.05
_MOST_VICTIMS = 10.0


@dataclass(frozen=True)
class Account:
    """The price of some releases at one delta.

    Attributes:
        claim: epsilon that is not exceeded: the number to publish.
        lower_bound: epsilon that some neighbouring populations reach: no accounting can claim less.
        rdp: epsilon by Rényi divergences, an independent upper bound.
        delta: the delta of all three.
        relation: the neighbouring relation of all three.
        exact: whether the claim is a closed form.
        step: grid of the privacy loss; 0 if exact.
        change: how far a finer grid could still lower the claim, relative; 0 if exact.
    """

    claim: float
    lower_bound: float
    rdp: float
    delta: float
    relation: Relation
    exact: bool
    step: float
    change: float


def claim(events: Sequence[GaussianEvent], delta: float) -> Bound:
    """The epsilon to claim for ``events`` on one population; repeated questions are looked up.

    Raises:
        AnabranchError: AB-901 dp-accounting is not installed, AB-902 delta is not in (0, 1) or too
            small to compute, AB-908 the events have different relations, AB-909 the noise is too
            small for an amplified bound.

    >>> events = [GaussianEvent(4.0, relation=Relation.REPLACE_ONE)]
    >>> round(claim(events, 1e-5).epsilon, 3)
    1.993
    """
    check_delta(delta)
    return _claim(_checked(events), delta)


def account(events: Sequence[GaussianEvent], delta: float, *, step: float | None = None) -> Account:
    """The claim on ``events`` with its lower bound and the second opinion.

    Args:
        events: releases on one population.
        delta: in (0, 1).
        step: compute the claim on this grid of the privacy loss instead of searching for one: valid
            on every grid, and the way to repeat a published number.

    Raises:
        AnabranchError: as :func:`claim`.
    """
    check_delta(delta)
    checked = _checked(events)
    plain = all(map(is_plain, checked))
    if step is None or plain:
        bound = _claim(checked, delta)
    else:
        bound = Bound(epsilon_on_grid(checked, delta, step, upper=True), step, 0.0)
    lower = bound if plain else lower_bound(checked, delta, bound)
    return Account(
        claim=bound.epsilon,
        lower_bound=lower.epsilon,
        rdp=rdp_epsilon(checked, delta),
        delta=delta,
        relation=checked[0].relation,
        exact=plain,
        step=bound.step,
        change=bound.change,
    )


@lru_cache(maxsize=4096)
def _claim(events: tuple[GaussianEvent, ...], delta: float) -> Bound:
    if all(map(is_plain, events)):
        return Bound(exact_of(events, delta), 0.0, 0.0)
    return upper_bound(events, delta)


def _checked(events: Sequence[GaussianEvent]) -> tuple[GaussianEvent, ...]:
    if not events:
        raise AnabranchError("AB-906", "there is no release to account.", fix="name at least one.")
    relations = sorted({event.relation for event in events})
    if len(relations) > 1:
        raise AnabranchError(
            "AB-908",
            f"releases under different relations ({', '.join(relations)}) cannot be added up.",
            fix="choose one relation for a population and state it everywhere.",
        )
    for event in events:
        if not is_plain(event) and event.noise < _LEAST_NOISE:
            raise AnabranchError(
                "AB-909",
                f"a noise multiplier of {event.noise:g} is too small for an amplified bound.",
                fix=f"use at least {_LEAST_NOISE:g}, or claim no sampling; it protects nobody.",
            )
    return tuple(events)


def check_epsilon(epsilon: float) -> None:
    """Refuse an epsilon that is not positive and finite.

    Raises:
        AnabranchError: AB-905.
    """
    if not (epsilon > 0 and math.isfinite(epsilon)):
        raise AnabranchError(
            "AB-905",
            f"epsilon is {epsilon:g}; it must be positive and finite.",
            fix="give the privacy budget of the whole run, for example 1.",
        )


def check_delta(delta: float) -> None:
    """Refuse a delta that is no probability of failure, or too small for double precision.

    Raises:
        AnabranchError: AB-902.
    """
    if not _SMALLEST_DELTA <= delta < 1:
        raise AnabranchError(
            "AB-902",
            f"delta is {delta:g}; it must lie in (0, 1), and not below {_SMALLEST_DELTA:g}, where "
            "rounding would decide.",
            fix="give a delta below one divided by the population, for example 1e-5.",
        )


def population_warning(delta: float, population: int) -> str:
    """What is wrong with ``delta`` for so many people; empty if nothing is.

    A mechanism that publishes everything about each person with probability delta is
    (0, delta)-private. On average it exposes delta times the population.

    Raises:
        AnabranchError: AB-910 delta allows more than ten people to be exposed.
    """
    exposed = delta * population
    if exposed > _MOST_VICTIMS * (1 + 1e-9):
        raise AnabranchError(
            "AB-910",
            f"delta {delta:g} is too large for a population of {population}: it would allow "
            f"{exposed:.3g} people to be exposed altogether.",
            fix=f"use a delta below {1 / population:.1g}.",
        )
    if exposed > 1 + 1e-9:
        return (
            f"AB-910: delta {delta:g} exceeds 1 / population = {1 / population:.1g}; it allows "
            f"{exposed:.3g} people to be exposed altogether."
        )
    return ""
