"""Real numbers in the field: integers times 2^f, and the cut after a product.

The sum of two fixed-point numbers is one; a product has 2 f bits behind the point and is cut back
with a shared random number r = r' 2^f + r'': the parties open z + r, and (z + r) >> f minus r' is
z >> f or one more. The error is at most one step and right on average (Catrina and Saxena 2010).
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anabranch.privacy.multiparty.additive import add_public, add_reveal, add_share
from anabranch.privacy.multiparty.field import (
    PRIME,
    Elements,
    Source,
    add,
    bad,
    elements,
    negate,
    signed,
)

__all__ = ["FixedPointField", "truncate"]

_HIDING = 12
"""Fewest bits by which the random number is longer than what it hides. 61 bits leave no more beside
two fractions of usual length; what is opened tells a product apart with advantage 2^-12 at most."""
_WIDTH = 60


@dataclass(frozen=True)
class FixedPointField:
    """Fixed-point numbers with ``fraction`` bits behind the point.

    Attributes:
        fraction: f.
        whole: bits before the point, so that sizes stay below 2^whole.

    Raises:
        AnabranchError: AB-977 if a product and its random number do not fit the field.

    >>> numbers = FixedPointField()
    >>> numbers.decode(numbers.encode([0.5, -1.25])).tolist()
    [0.5, -1.25]
    """

    fraction: int = 12
    whole: int = 10

    def __post_init__(self) -> None:
        if not self.fraction >= 1 or not self.whole >= 1 or self.product_bits + _HIDING >= _WIDTH:
            raise bad(
                f"{self.whole} bits before the point and {self.fraction} behind it leave no room "
                "for a product."
            )

    @property
    def product_bits(self) -> int:
        """Size of a product before it is cut."""
        return 2 * (self.fraction + self.whole)

    def encode(self, values: NDArray[np.float64] | list[float]) -> Elements:
        """Real numbers, rounded to the nearest step.

        Raises:
            AnabranchError: AB-977 if one is not finite or too large.
        """
        given = np.asarray(values, np.float64)
        if not np.all(np.abs(given) < math.ldexp(1.0, self.whole)):
            raise bad(f"A number is not finite or not below 2^{self.whole}.")
        return elements(np.rint(np.ldexp(given, self.fraction)).astype(np.int64))

    def decode(self, values: Elements) -> NDArray[np.float64]:
        """Back to real numbers."""
        return np.ldexp(signed(values).astype(np.float64), -self.fraction)


def truncate(shares: Elements, numbers: FixedPointField, source: Source = os.urandom) -> Elements:
    """Shares of products divided by 2^f, to within one step.

    The random numbers come from a dealer, as triples do.

    Args:
        shares: of products, shape (parties, ...).
        numbers: the format.
        source: the dealer's secret randomness.
    """
    parties, fraction = shares.shape[0], numbers.fraction
    shape = shares.shape[1:]
    count = int(np.prod(shape))
    drawn = np.frombuffer(source(8 * count), np.uint64).reshape(shape)
    drawn = drawn & np.uint64((1 << _WIDTH) - 1)
    hidden = add_share(drawn, parties, source)
    high = add_share(drawn >> np.uint64(fraction), parties, source)
    # Shifted up, so that what is opened is never negative.
    offset = np.full(shape, 1 << numbers.product_bits, np.uint64)
    opened = add_reveal(add(add_public(shares, offset), hidden))
    quotient = opened >> np.uint64(fraction)
    back = np.full(shape, PRIME - (1 << (numbers.product_bits - fraction)), np.uint64)
    return add_public(add_public(negate(high), quotient), back)
