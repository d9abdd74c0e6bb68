r"""Discrete Gaussian noise: P(x) proportional to exp(-x^2 / (2 sigma^2)) on the integers.

Canonne, Kamath and Steinke 2020, "The Discrete Gaussian for Differential Privacy". Wide
distributions are layered from narrow ones, which fit a table in the cache (Micciancio and Walter
2017, "Gaussian Sampling over the Integers"):

    X = X_0 + a X_1,   sigma^2 = s_0^2 + a^2 s_1^2

By Poisson summation, at every point and not only on average, P(x) of the sum is that of the wanted
distribution up to a factor within 1 +- 2 eta, eta = 2 exp(-2 pi^2 r^2) to within its fourth power,
1 / r^2 = 1 / s_1^2 + a^2 / s_0^2. With s_0 = 1.75 a, 2 eta is below 2^-84.

The same argument says what the noise is worth. Let Y be a continuous normal variable with variance
sigma^2 - r^2, and let X be a discrete Gaussian on the integers with variance r^2 centred at Y. Then
X is the discrete Gaussian up to that factor, and adding integers to Y adds them to X. So a sum of
integers plus discrete Gaussian noise is computed from the sum plus continuous noise of standard
deviation `DiscreteGaussian.equivalent` alone, and every bound for the Gaussian mechanism holds with
that number: exact composition, sampling, correlated noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal, localcontext
from functools import lru_cache

import numpy as np

from anabranch.errors import AnabranchError
from anabranch.privacy.noise.stream import SecretStream
from anabranch.privacy.noise.table import DIGITS, AliasTable, Integers, alias_table

__all__ = ["SMOOTHING", "DiscreteGaussian", "discrete_gaussian_table"]

SMOOTHING = 1.75
"""Standard deviation r at which the integers look continuous up to a factor 1 +- 2^-84."""

_REACH = 9.8  # of the table, in standard deviations: 2^-72 of the mass lies outside
_OUTSIDE = 2.0**-70
_WIDEST_TABLE = 1024.0
_LARGEST_STEP = 1024
_SMALLEST, _LARGEST = 0.3, 2.0**44
_CHUNK = 1 << 14


@lru_cache(maxsize=64)
def discrete_gaussian_table(sigma: float) -> AliasTable:
    """The table of one narrow discrete Gaussian."""
    reach = max(2, math.ceil(_REACH * sigma + 1))
    with localcontext() as context:
        context.prec = DIGITS
        # exp(-(x+1)^2/2s^2) = exp(-x^2/2s^2) * ratio_x, and ratio_{x+1} = ratio_x * exp(-1/s^2).
        step = (-1 / Decimal(sigma) ** 2).exp()
        weight, ratio = Decimal(1), step.sqrt()
        half = []
        for _ in range(reach):
            weight *= ratio
            ratio *= step
            half.append(weight)
    return alias_table(-reach, [*half[::-1], Decimal(1), *half], _OUTSIDE)


@dataclass(frozen=True)
class DiscreteGaussian:
    """Discrete Gaussian noise with parameter ``sigma``, which is its standard deviation from 1 up.

    Raises:
        AnabranchError: AB-930 when sigma is not within 0.3 and 2^44.

    >>> noise = DiscreteGaussian(1000.0)
    >>> len(noise.sample(SecretStream.system(), 3))
    3
    """

    sigma: float

    def __post_init__(self) -> None:
        if not _SMALLEST <= self.sigma <= _LARGEST:
            raise AnabranchError(
                "AB-930",
                f"discrete noise with a standard deviation of {self.sigma:g} lattice steps.",
                fix="use a finer or a coarser lattice, or another noise multiplier: between 0.3 "
                "and 2^44 steps are possible.",
                kept="No noise was drawn and nothing was released.",
            )

    @property
    def equivalent(self) -> float:
        """Standard deviation of the continuous noise that this noise is at least as good as.

        Raises:
            AnabranchError: AB-930 when sigma is below 2, where there is no such number.
        """
        if self.sigma < 2:
            raise AnabranchError(
                "AB-930",
                f"a standard deviation of {self.sigma:g} lattice steps is too coarse to be counted "
                "like continuous noise.",
                fix="use a finer lattice: more bits, or fewer coordinates.",
                kept="No noise was drawn and nothing was released.",
            )
        return math.sqrt(self.sigma**2 - SMOOTHING**2)

    @staticmethod
    def worth(deviation: float) -> DiscreteGaussian:
        """The narrowest noise whose `equivalent` is at least ``deviation``."""
        return DiscreteGaussian(math.hypot(deviation, SMOOTHING) * (1 + 2.0**-50))

    @property
    def layers(self) -> tuple[int, tuple[float, ...]]:
        """The step a, and the deviations s_0, s_1, ... of X_0 + a (X_1 + a (X_2 + ...))."""
        depth = 0
        while self.sigma > _WIDEST_TABLE * _LARGEST_STEP**depth:
            depth += 1
        if depth == 0:
            return 1, (self.sigma,)
        step = 2
        while self.sigma > _WIDEST_TABLE * step**depth:
            step *= 2
        deviations, rest = [], self.sigma
        for _ in range(depth):
            deviations.append(SMOOTHING * step)
            rest = math.sqrt(rest**2 - (SMOOTHING * step) ** 2) / step
        return step, (*deviations, rest)

    @property
    def bias(self) -> float:
        """Bound on the total variation distance of one sample to the discrete Gaussian."""
        _, deviations = self.layers
        smooth = 2.0**-80 * len(deviations)
        return sum(discrete_gaussian_table(s).bias for s in deviations) + smooth

    def sample(self, stream: SecretStream, count: int) -> Integers:
        """``count`` independent samples."""
        step, deviations = self.layers
        tables = [discrete_gaussian_table(s) for s in deviations[::-1]]
        if len(tables) == 1:
            return tables[0].sample(stream, count)
        out = np.empty(count, np.int64)
        layer = np.empty(min(_CHUNK, count), np.int64)
        for start in range(0, count, _CHUNK):
            part = out[start : start + _CHUNK]
            tables[0].draw(stream, part)
            for table in tables[1:]:
                part *= step
                table.draw(stream, layer[: len(part)])
                part += layer[: len(part)]
        return out
