"""Rényi differential privacy: an independent second opinion, never smaller than the truth.

Mironov 2017, "Rényi Differential Privacy"; Mironov, Talwar and Zhang 2019 for Poisson sampling;
Wang, Balle and Kasiviswanathan 2019 for sampling without replacement; converted to epsilon as in
Canonne, Kamath and Steinke 2020, proposition 12. All by dp-accounting, except Poisson sampling
under replace-one or with a cap, which it does not have: there the divergence of the pair is
integrated.

The convention that this module owns: for the relation replace-one dp-accounting's RDP accountant
takes the noise divided by the *sensitivity* (2C), its PLD accountant the noise divided by the clip
norm. A noise multiplier of 4 passed on unscaled gives 1.013 where 1.993 is true.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from anabranch.privacy.accounting.capped import reach_of_cap
from anabranch.privacy.accounting.library import rdp_modules
from anabranch.privacy.accounting.pairs import Floats
from anabranch.privacy.events import (
    FixedSizeSampling,
    GaussianEvent,
    PoissonSampling,
    Relation,
)

if TYPE_CHECKING:
    from dp_accounting import DpEvent

__all__ = ["rdp_epsilon"]

_LARGEST_POPULATION = 10**9
_POINTS = 40_001
_REACH = 40.0


def rdp_epsilon(events: Sequence[GaussianEvent], delta: float) -> float:
    """Epsilon of ``events`` together by Rényi divergences, an upper bound.

    Raises:
        AnabranchError: AB-901 dp-accounting is not installed.
    """
    if any(_is_integrated(event) for event in events):
        return _by_integration(events, delta)
    library, accountants = rdp_modules()
    fixed_size = any(isinstance(event.sampling, FixedSizeSampling) for event in events)
    relations = library.NeighboringRelation
    accountant = accountants.RdpAccountant(
        neighboring_relation=relations.REPLACE_ONE if fixed_size else relations.ADD_OR_REMOVE_ONE
    )
    with _without_hints():
        for event in events:
            accountant.compose(_as_library_event(event, fixed_size=fixed_size), event.rounds)
        return float(accountant.get_epsilon(delta))


@contextmanager
def _without_hints() -> Iterator[None]:
    """The library warns of each order whose series it leaves out; the bound holds without it."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _is_integrated(event: GaussianEvent) -> bool:
    """Whether the library has no formula for ``event``."""
    sampling = event.sampling
    return isinstance(sampling, PoissonSampling) and (
        event.relation is Relation.REPLACE_ONE or sampling.cap > 0
    )


def _as_library_event(event: GaussianEvent, *, fixed_size: bool) -> DpEvent:
    """The event in the library's words, with the noise divided by the sensitivity."""
    library, _ = rdp_modules()
    if fixed_size:
        # Zero-out neighbours are replace-one neighbours; see the dominating pair.
        gaussian = library.GaussianDpEvent(event.noise / 2)
    else:
        gaussian = library.GaussianDpEvent(event.noise_to_sensitivity)
    sampling = event.sampling
    if isinstance(sampling, PoissonSampling):
        return library.PoissonSampledDpEvent(sampling.rate, gaussian)
    if isinstance(sampling, FixedSizeSampling):
        # Only the quotient counts.
        rate = Fraction(sampling.rate).limit_denominator(_LARGEST_POPULATION)
        return library.SampledWithoutReplacementDpEvent(rate.denominator, rate.numerator, gaussian)
    return gaussian


def _by_integration(events: Sequence[GaussianEvent], delta: float) -> float:
    """Quadrature of the divergence of each pair, in each direction; the worse direction counts.

    Releases by fixed-size sampling in the same list are bounded without amplification.
    """
    _, accountants = rdp_modules()
    orders = np.asarray(accountants.DEFAULT_RDP_ORDERS)
    found = []
    for reverse in (False, True):
        divergences = np.zeros(len(orders))
        for event in events:
            divergences += event.rounds * _divergences(event, orders, reverse=reverse)
        found.append(float(accountants.compute_epsilon(orders, divergences, delta)[0]))
    return max(found)


def _divergences(event: GaussianEvent, orders: Floats, *, reverse: bool) -> Floats:
    """Rényi divergences of one release, by order."""
    sampling, shift = event.sampling, 1 / event.noise
    if not isinstance(sampling, PoissonSampling):
        return np.asarray(orders / (2 * event.noise_to_sensitivity**2))
    down = -shift if event.relation is Relation.REPLACE_ONE else 0.0
    ends = (down, shift) if reverse else (shift, down)
    plain = _mixtures(*ends, sampling.rate, orders)
    exceeded, staying = reach_of_cap(sampling)
    if exceeded == 0:
        return plain
    capped = _mixtures(2 * shift, -2 * shift, staying, orders)
    scale = orders - 1
    return np.asarray(
        np.logaddexp(np.log(exceeded) + scale * capped, np.log1p(-exceeded) + scale * plain) / scale
    )


def _mixtures(up: float, down: float, rate: float, orders: Floats) -> Floats:
    """Divergence of (1-q) N(0) + q N(up) from (1-q) N(0) + q N(down), by order."""
    # At order a the integrand is largest where |x| is at most a times the larger shift.
    reach = _REACH + max(abs(up), abs(down)) * float(orders.max())
    x = np.linspace(-reach, reach, _POINTS)
    log_base = -(x**2) / 2 - np.log(2 * np.pi) / 2
    p = _log_mixture(up * x - up**2 / 2, rate)
    q = _log_mixture(down * x - down**2 / 2, rate)
    found = [
        np.logaddexp.reduce(log_base + order * p + (1 - order) * q) + np.log(x[1] - x[0])
        for order in orders
    ]
    return np.asarray(np.maximum(found, 0.0) / (orders - 1))


def _log_mixture(exponent: Floats, rate: float) -> Floats:
    if rate == 1:
        return exponent
    return np.asarray(np.logaddexp(np.log1p(-rate), np.log(rate) + exponent))
