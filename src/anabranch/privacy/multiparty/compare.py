"""Signs of shared numbers: they are opened under masks whose bits are shared (Damgard et al. 2006).

For |x| < 2^(l-1) let y = x + 2^(l-1), so that bit l-1 of y is 1 unless x is negative. The parties
open c = y + r with a random r of l + s bits whose bits are shared, and find with shared bits of r
whether c mod 2^(l-1) < r mod 2^(l-1): the borrow. Then y mod 2^(l-1) follows, and the sign with it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import numpy as np

from anabranch.privacy.multiparty.additive import add_public, add_reveal, add_share, scale
from anabranch.privacy.multiparty.beaver import Dealer, multiply
from anabranch.privacy.multiparty.field import (
    Elements,
    Source,
    add,
    bad,
    inverse,
    negate,
    subtract,
)

__all__ = ["BitDealer", "Masks", "is_negative"]

_HIDING = 20


@dataclass(frozen=True)
class Masks:
    """Shared random numbers with their low bits shared apart.

    Attributes:
        value: shares of r, shape (parties, count).
        bits: shares of the low bits of r, lowest first, shape (bits, parties, count).
    """

    value: Elements = field(repr=False)
    bits: Elements = field(repr=False)


@dataclass(frozen=True)
class BitDealer:
    """Makes masks and triples for comparisons.

    Attributes:
        parties: number of parties.
        length: l, bits of the numbers that are compared, at most 40.
        source: secret randomness.

    Raises:
        AnabranchError: AB-977 if numbers of so many bits can not be hidden.
    """

    parties: int
    length: int = 32
    source: Source = os.urandom

    def __post_init__(self) -> None:
        if not 2 <= self.length <= 40:
            raise bad(f"Numbers of {self.length} bits can not be compared, 2 to 40 can.")

    @property
    def triples(self) -> Dealer:
        """Dealer of triples."""
        return Dealer(self.parties, self.source)

    def masks(self, count: int) -> Masks:
        """Fresh masks; what is opened under them is within 2^-20 of random."""
        width = min(self.length + _HIDING, 60)
        drawn = np.frombuffer(self.source(8 * count), np.uint64)
        drawn = drawn & np.uint64((1 << width) - 1)
        low = range(self.length - 1)
        bits = [(drawn >> np.uint64(place)) & np.uint64(1) for place in low]
        shared = np.stack([add_share(bit, self.parties, self.source) for bit in bits])
        return Masks(add_share(drawn, self.parties, self.source), shared)


def is_negative(shares: Elements, dealer: BitDealer) -> Elements:
    """Shares of 1 where the shared number is negative, of 0 elsewhere.

    Args:
        shares: of numbers below 2^(l-1) in size, shape (parties, count).
        dealer: of masks and triples; l - 1 products of ``count`` numbers, one after another.

    >>> from anabranch.privacy.multiparty.field import elements
    >>> x = add_share(elements([3, -4, 0]), 2)
    >>> add_reveal(is_negative(x, BitDealer(2))).tolist()
    [0, 1, 0]
    """
    count, low = shares.shape[1], dealer.length - 1
    masks = dealer.masks(count)
    shifted = add_public(shares, np.full(count, 1 << low, np.uint64))
    opened = add_reveal(add(shifted, masks.value))
    borrow = _less(opened, masks.bits, dealer)
    # y mod 2^low = (c mod 2^low) - (r mod 2^low) + borrow 2^low
    rest = np.zeros_like(shares)
    for place in range(low):
        rest = add(rest, scale(masks.bits[place], 1 << place))
    low_part = add_public(negate(rest), opened & np.uint64((1 << low) - 1))
    low_part = add(low_part, scale(borrow, 1 << low))
    top = scale(subtract(shifted, low_part), inverse(1 << low))
    return add_public(negate(top), np.ones(count, np.uint64))


def _less(public: Elements, bits: Elements, dealer: BitDealer) -> Elements:
    """Shares of 1 where the low bits of ``public`` are a smaller number than the shared bits.

    From the lowest bit up: at a place where they differ the shared bit decides, else what was
    decided before stays. With public bit c and shared bit r that is r b' for c = 1 and
    r + b' - r b' for c = 0, one product each.
    """
    count = bits.shape[2]
    decided = np.zeros(bits.shape[1:], np.uint64)
    for place in range(bits.shape[0]):
        product = multiply(bits[place], decided, dealer.triples.triples(count))
        ones = ((public >> np.uint64(place)) & np.uint64(1)).astype(bool)
        either = subtract(add(bits[place], decided), product)
        decided = np.where(ones, product, either)
    return decided
