"""Rényi differential privacy: an independent second opinion, never smaller than the truth.

Mironov 2017, "Rényi Differential Privacy"; Mironov, Talwar and Zhang 2019 for Poisson sampling;
Wang, Balle and Kasiviswanathan 2019 for sampling without replacement; converted to epsilon as in
Canonne, Kamath and Steinke 2020, proposition 12. All by dp-accounting, except Poisson sampling under
replace-one, which it does not have: there the divergence of the pair is integrated.

The convention that this module owns: for the relation replace-one dp-accounting's RDP accountant
takes the noise divided by the *sensitivity* (2C), its PLD accountant the noise divided by the clip
norm. A noise multiplier of 4 passed on unscaled gives 1.013 where 1.993 is true.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

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
    relation = events[0].relation
    if relation is Relation.REPLACE_ONE and any(_sampled(event) for event in events):
        return _by_integration(events, delta)
    library, accountants = rdp_modules()
    fixed_size = any(isinstance(event.sampling, FixedSizeSampling) for event in events)
    relations = library.NeighboringRelation
    accountant = accountants.RdpAccountant(
        neighboring_relation=relations.REPLACE_ONE if fixed_size else relations.ADD_OR_REMOVE_ONE
    )
    for event in events:
        accountant.compose(_as_library_event(event, fixed_size=fixed_size), event.rounds)
    return float(accountant.get_epsilon(delta))


def _sampled(event: GaussianEvent) -> bool:
    return isinstance(event.sampling, PoissonSampling)


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
    """Poisson sampling under replace-one: quadrature of the divergence of the pair.

    Releases by fixed-size sampling in the same list are bounded without amplification.
    """
    _, accountants = rdp_modules()
    orders = np.asarray(accountants.DEFAULT_RDP_ORDERS)
    divergences = np.zeros(len(orders))
    for event in events:
        sampling = event.sampling
        if isinstance(sampling, PoissonSampling):
            divergences += event.rounds * _replaced(1 / event.noise, sampling.rate, orders)
        else:
            divergences += event.rounds * orders / (2 * event.noise_to_sensitivity**2)
    return float(accountants.compute_epsilon(orders, divergences, delta)[0])


def _replaced(shift: float, rate: float, orders: Floats) -> Floats:
    """Rényi divergence of (1-q) N(0) + q N(shift) from (1-q) N(0) + q N(-shift), by order."""
    # At order a the integrand is largest between -shift (a-1) and shift a.
    reach = _REACH + shift * float(orders.max())
    x = np.linspace(-reach, reach, _POINTS)
    log_base = -(x**2) / 2 - np.log(2 * np.pi) / 2
    up = _log_mixture(shift * x - shift**2 / 2, rate)
    down = _log_mixture(-shift * x - shift**2 / 2, rate)
    found = [
        np.logaddexp.reduce(log_base + order * up + (1 - order) * down) + np.log(x[1] - x[0])
        for order in orders
    ]
    return np.asarray(found) / (orders - 1)


def _log_mixture(exponent: Floats, rate: float) -> Floats:
    if rate == 1:
        return exponent
    return np.asarray(np.logaddexp(np.log1p(-rate), np.log(rate) + exponent))
