"""Privacy loss distributions: an upper bound that is the claim, a lower bound that shows its worth.

The loss of one release is put on a grid of step h and composed by dp-accounting (FFT, with the mass
of truncated tails counted as infinite loss).

- Upper: mass in a cell is split over both ends of the cell so that its mass under P *and* under Q
  is kept. The result dominates the truth and the error falls with h^2 (Doroshenko et al. 2022,
  "Connect the Dots: Tighter Discrete Approximations of Privacy Loss Distributions").
- Lower: every loss is rounded down; it is at most h a round below.

The grid of the claim is not guessed: it is refined until two grids show that what is left of the
error is below a given share. Every grid gives a valid bound; a fine one gives a smaller number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from anabranch.privacy.accounting.capped import reach_of_cap, with_cap
from anabranch.privacy.accounting.library import pld_modules
from anabranch.privacy.accounting.pairs import Added, Floats, Pair, Removed, Replaced
from anabranch.privacy.accounting.without_replacement import FixedSize
from anabranch.privacy.events import FixedSizeSampling, GaussianEvent, PoissonSampling, Relation

if TYPE_CHECKING:
    from dp_accounting.pld.pld_pmf import DensePLDPmf

__all__ = [
    "Bound",
    "epsilon_on_grid",
    "lower_bound",
    "lower_pairs",
    "quick_bound",
    "upper_bound",
    "upper_pairs",
    "weighty_losses",
]

_TOLERANCE = 5e-4
_CELLS = 1 << 20
_HALVINGS = 12
_SMALLEST_RATIO, _LARGEST_RATIO = 1.5, 4.0
_QUICK = 2e-2
_TAILS = 1e-5
"""Share of delta that the tails may weigh which are cut off, of all releases and compositions."""
_COARSE_EDGES = 2049


@dataclass(frozen=True)
class Bound:
    """An epsilon and the grid that it was computed on.

    Attributes:
        epsilon: the bound; infinite if the mass of infinite loss exceeds delta.
        step: grid of the privacy loss; 0 if no grid was needed.
        change: how far a finer grid could still lower it, relative, as the last two grids show; 0
            if no grid was needed.
    """

    epsilon: float
    step: float
    change: float


def upper_pairs(event: GaussianEvent) -> tuple[Pair, ...]:
    """The pairs that dominate one release of ``event``, one a direction; a symmetric one alone.

    Fixed-size sampling under zero-out is bounded as under replace-one: a zero contribution is one
    of the values that a unit can be replaced by.
    """
    shift, sampling = 1 / event.noise, event.sampling
    if isinstance(sampling, FixedSizeSampling) and sampling.rate < 1:
        return (FixedSize(2 * shift, sampling.rate),)
    if isinstance(sampling, PoissonSampling) and sampling.rate < 1:
        return with_cap(_poisson_pairs(event, sampling.rate), sampling, shift)
    return (Removed(1 / event.noise_to_sensitivity, 1.0),)


def lower_pairs(event: GaussianEvent) -> tuple[Pair, ...]:
    """Pairs that some neighbouring populations attain."""
    sampling = event.sampling
    if isinstance(sampling, FixedSizeSampling) and sampling.rate < 1:
        shift = 1 / event.noise_to_sensitivity
        return Removed(shift, sampling.rate), Added(shift, sampling.rate)
    if isinstance(sampling, PoissonSampling) and sampling.cap and sampling.rate < 1:
        # All other units contribute zero: the cap then only makes taking part a little less likely.
        return _poisson_pairs(event, sampling.rate * (1 - reach_of_cap(sampling)[0]))
    return upper_pairs(event)


def _poisson_pairs(event: GaussianEvent, rate: float) -> tuple[Pair, ...]:
    shift = 1 / event.noise
    if event.relation is Relation.REPLACE_ONE:
        return (Replaced(shift, rate),)
    return Removed(shift, rate), Added(shift, rate)


def upper_bound(
    events: Sequence[GaussianEvent], delta: float, tolerance: float = _TOLERANCE
) -> Bound:
    """Epsilon that ``events`` together do not exceed at ``delta``: the number to claim.

    Args:
        events: releases on the same population under one relation.
        delta: in (0, 1).
        tolerance: largest relative difference to an infinitely fine grid, as two grids show it.
    """
    step = 2 * _first_step(events, tolerance)
    bounds = [_one_side(events, delta, step, side) for side in range(_sides(events))]
    ratio = 2.0
    for _ in range(_HALVINGS):
        coarse, step = max(bounds), step / ratio
        bounds = _refined(events, delta, step, bounds)
        fine = max(bounds)
        if not math.isfinite(fine) or fine == 0:
            return Bound(fine, step, 0.0)
        # Of an error that falls with the square of the step, this much is left; and half of it on
        # top, because the square is reached from below.
        change = 1.5 * max(0.0, coarse / fine - 1) / (ratio**2 - 1)
        if change <= tolerance:
            break
        # A tenth more than the square says, so that the next grid is the last one.
        wanted = 1.1 * math.sqrt(change / tolerance)
        ratio = min(max(wanted, _SMALLEST_RATIO), _LARGEST_RATIO)
    return Bound(fine, step, change)


def quick_bound(events: Sequence[GaussianEvent], delta: float) -> float:
    """An upper bound on one coarse grid, a few percent above the claim: for plans, not for claims.

    Args:
        events: as in :func:`upper_bound`.
        delta: in (0, 1).
    """
    return epsilon_on_grid(events, delta, _first_step(events, _QUICK), upper=True)


def _refined(
    events: Sequence[GaussianEvent], delta: float, step: float, bounds: Sequence[float]
) -> list[float]:
    """The bounds of all directions, computed anew on ``step`` only where that matters.

    A bound is valid on every grid. So the worst direction is refined, and another one only if its
    older bound is now the larger.
    """
    refined = list(bounds)
    worst = max(range(len(bounds)), key=lambda side: bounds[side])
    refined[worst] = _one_side(events, delta, step, worst)
    for side in range(len(bounds)):
        if side != worst and refined[side] > refined[worst]:
            refined[side] = _one_side(events, delta, step, side)
    return refined


def lower_bound(events: Sequence[GaussianEvent], delta: float, claim: Bound) -> Bound:
    """Epsilon that some neighbouring populations reach at ``delta``.

    The grid is fine enough for a gap of about one percent of the claim, within a budget of cells.
    """
    rounds = sum(event.rounds for event in events)
    widest = max(high - low for _, low, high in _spans(events, upper=False))
    wanted = 0.02 * claim.epsilon / rounds if math.isfinite(claim.epsilon) else claim.step
    step = max(min(wanted, claim.step or wanted), widest * 16 / _CELLS, 1e-12)
    return Bound(min(epsilon_on_grid(events, delta, step, upper=False), claim.epsilon), step, 0.0)


def _spans(events: Sequence[GaussianEvent], *, upper: bool) -> list[tuple[Pair, float, float]]:
    choose = upper_pairs if upper else lower_pairs
    return [(pair, *pair.span()) for event in events for pair in choose(event)]


def _first_step(events: Sequence[GaussianEvent], tolerance: float) -> float:
    """A step that is small beside the spread of the loss, and beside epsilon, of one release.

    Splitting a cell adds up to h^2/6 to the variance of the loss and h^2/12 to its mean.
    """
    variance = total = 0.0
    finest = math.inf
    for event in events:
        pair = upper_pairs(event)[0]
        edges = np.linspace(*_symmetric(*pair.span()), 2049)
        masses = pair.masses(edges)
        spread = float(np.sum(masses.p * ((edges[:-1] + edges[1:]) / 2) ** 2))
        finest = min(finest, spread)
        variance += event.rounds * spread
        total += event.rounds
    guess = 4 * math.sqrt(variance) + variance / 2
    by_spread = math.sqrt(10 * tolerance * finest)
    by_mean = math.sqrt(10 * tolerance * guess / total)
    widest = max(high - low for _, low, high in _spans(events, upper=True))
    return max(min(by_spread, by_mean), widest / _CELLS)


def _symmetric(low: float, high: float) -> tuple[float, float]:
    reach = max(-low, high)
    return -reach, reach


def epsilon_on_grid(
    events: Sequence[GaussianEvent], delta: float, step: float, *, upper: bool
) -> float:
    """The bound on one grid: compose every direction, then take the worse one."""
    sides = range(_sides(events, upper=upper))
    return max(_one_side(events, delta, step, side, upper=upper) for side in sides)


def _sides(events: Sequence[GaussianEvent], *, upper: bool = True) -> int:
    """Directions that have to be looked at."""
    choose = upper_pairs if upper else lower_pairs
    return max(len(choose(event)) for event in events)


def _one_side(
    events: Sequence[GaussianEvent], delta: float, step: float, side: int, *, upper: bool = True
) -> float:
    choose = upper_pairs if upper else lower_pairs
    pairs = [_pick(choose(event), side) for event in events]
    return _one_direction(pairs, events, delta, step, upper=upper)


def _pick(pairs: tuple[Pair, ...], side: int) -> Pair:
    return pairs[side % len(pairs)]


def _one_direction(
    pairs: Sequence[Pair],
    events: Sequence[GaussianEvent],
    delta: float,
    step: float,
    *,
    upper: bool,
) -> float:
    composed = None
    tail = _TAILS * delta / (4 * len(events))
    for pair, event in zip(pairs, events, strict=True):
        pmf = _discretise(pair, step, tail / event.rounds, upper=upper)
        many = pmf.self_compose(event.rounds, tail) if event.rounds > 1 else pmf
        composed = many if composed is None else composed.compose(many, tail)
    if composed is None:
        return 0.0
    # Truncated tails count as infinite loss; a lower bound gives that mass back.
    target = delta if upper else delta + 4 * len(events) * tail
    return float(composed.get_epsilon_for_delta(target))


def weighty_losses(pair: Pair, tail: float) -> tuple[float, float]:
    """The losses between which a pair has all of its mass under P but ``tail`` at either end.

    With rare sampling the loss is next to nothing, and its span a thousand times as wide.
    """
    low, high = pair.span()
    if isinstance(pair, FixedSize):
        low, high = _symmetric(low, high)
    edges = np.linspace(low, high, _COARSE_EDGES)
    masses = pair.masses(edges)
    above = masses.above + np.cumsum(masses.p[::-1])[::-1]
    below = masses.below + np.cumsum(masses.p)
    # Edge i has above[i] over it, and edge i + 1 has below[i] under it.
    high = float(edges[min(int(np.searchsorted(-above, -tail)), _COARSE_EDGES - 1)])
    low = float(edges[int(np.searchsorted(below, tail))])
    return _symmetric(low, high) if isinstance(pair, FixedSize) else (min(low, 0.0), max(high, 0.0))


def _discretise(pair: Pair, step: float, tail: float, *, upper: bool) -> DensePLDPmf:
    """The loss of one release on the multiples of ``step``; ``tail`` may be cut off at each end."""
    low, high = weighty_losses(pair, tail)
    first, last = math.floor(low / step) - 1, math.ceil(high / step) + 1
    grid: Floats = np.arange(first, last + 1, dtype=np.float64) * step
    masses = pair.masses(grid)
    probs = np.zeros(len(grid))
    if upper:
        # Beyond exp(700) mass under Q may have underflowed: all mass goes to the worse end.
        matched = masses.q * np.exp(np.minimum(grid[:-1], 700.0))
        to_right = np.clip((masses.p - matched) / -np.expm1(-step), 0.0, masses.p)
        probs[1:] += to_right
        probs[:-1] += masses.p - to_right
        probs[0] += masses.below
    else:
        probs[:-1] += masses.p
        probs[-1] += masses.above
    probs[-first] += masses.at_zero
    infinite = masses.above if upper else 0.0
    return pld_modules().DensePLDPmf(step, first, probs, infinite, upper)
