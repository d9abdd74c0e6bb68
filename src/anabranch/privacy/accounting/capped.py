"""Poisson sampling with a cap on the cohort: what the cap costs.

Where more coins fall than the cap allows, a random subset takes part, and one unit more may push
another one out: the sum then moves by 2C. The pair is a mixture, weighted by the probability that
the cap is reached given that the unit was drawn, of replacing (at twice the shift) and of plain
Poisson sampling. dp-accounting calls this the truncated subsampled Gaussian; the formula is its
supplementary material, section 4.3.
"""

from __future__ import annotations

from anabranch.privacy.accounting.pairs import Mixture, Pair, Replaced
from anabranch.privacy.events import PoissonSampling

__all__ = ["reach_of_cap", "with_cap"]


def reach_of_cap(sampling: PoissonSampling) -> tuple[float, float]:
    """Probability that the cap is exceeded when the unit was drawn; its rate of staying if so."""
    from scipy.stats import binom

    if not sampling.cap or sampling.cap >= sampling.population:
        return 0.0, 0.0
    exceeded = float(binom.sf(sampling.cap - 1, sampling.population - 1, sampling.rate))
    if exceeded == 0:
        return 0.0, 0.0
    truncated = float(binom.sf(sampling.cap, sampling.population, sampling.rate))
    staying = truncated * sampling.cap / exceeded / sampling.population
    return exceeded, min(1.0, staying)


def with_cap(pairs: tuple[Pair, ...], sampling: PoissonSampling, shift: float) -> tuple[Pair, ...]:
    """The pairs of plain Poisson sampling with the price of the cap mixed in."""
    exceeded, staying = reach_of_cap(sampling)
    if exceeded == 0:
        return pairs
    return tuple(Mixture(exceeded, Replaced(2 * shift, staying), pair) for pair in pairs)
