"""Skellam noise: the difference of two independent Poisson variables of equal mean.

Agarwal, Kairouz and Liu 2021, "The Skellam Mechanism for Differentially Private Federated
Learning". With variance mu, P(x) = exp(-mu) I_|x|(mu), I the modified Bessel function. Sums of
Skellam variables are Skellam again, so noise that clients add in parts has a known distribution
whoever drops out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal, localcontext
from functools import lru_cache

from anabranch.errors import AnabranchError
from anabranch.privacy.noise.stream import SecretStream
from anabranch.privacy.noise.table import DIGITS, AliasTable, Integers, alias_table

__all__ = ["Skellam", "skellam_table"]

_OUTSIDE = 2.0**-70
_SMALLEST, _LARGEST = 0.01, 2.0**15
_BEYOND = 40


@lru_cache(maxsize=8)
def skellam_table(sigma: float) -> AliasTable:
    """The table of one Skellam distribution, by Miller's backward recurrence.

    I_{x-1}(mu) = I_{x+1}(mu) + (2 x / mu) I_x(mu) is stable downwards from any start that is far
    enough out; the common factor falls away when the weights are normalised.
    """
    reach = _reach(sigma)
    with localcontext() as context:
        context.prec = DIGITS
        twice = 2 / Decimal(sigma) ** 2
        after, here = Decimal(0), Decimal(1)
        weights = []
        for x in range(reach + _BEYOND, 0, -1):
            after, here = here, after + twice * x * here
            if x <= reach + 1:
                weights.append(here)  # of x - 1
    peak = weights[-1]
    half = [weight / peak for weight in weights[:-1]]
    return alias_table(-reach, [*half, Decimal(1), *half[::-1]], _OUTSIDE)


def _reach(sigma: float) -> int:
    """Where the tail has less than 2^-72: by the Chernoff bound of the Poisson difference."""
    variance = sigma**2
    reach = math.ceil(9.9 * sigma) + 4
    while _log_tail(reach, variance) > -72 * math.log(2):
        reach += max(1, reach // 16)
    return reach


def _log_tail(x: float, variance: float) -> float:
    """log of 2 min_t E exp(t (X - x)) for Skellam X: t = asinh(x / variance)."""
    t = math.asinh(x / variance)
    return math.log(2) + variance * (math.cosh(t) - 1) - t * x


@dataclass(frozen=True)
class Skellam:
    """Skellam noise with standard deviation ``sigma``.

    Raises:
        AnabranchError: AB-930 when sigma is not within 0.01 and 2^15.

    >>> len(Skellam(3.0).sample(SecretStream.system(), 4))
    4
    """

    sigma: float

    def __post_init__(self) -> None:
        if not _SMALLEST <= self.sigma <= _LARGEST:
            raise AnabranchError(
                "AB-930",
                f"Skellam noise with a standard deviation of {self.sigma:g} lattice steps.",
                fix="use between 0.01 and 2^15 steps (fewer bits), or the discrete Gaussian.",
                kept="No noise was drawn and nothing was released.",
            )

    @property
    def bias(self) -> float:
        """Bound on the total variation distance of one sample to the Skellam distribution."""
        return skellam_table(self.sigma).bias

    def sample(self, stream: SecretStream, count: int) -> Integers:
        """``count`` independent samples."""
        return skellam_table(self.sigma).sample(stream, count)
