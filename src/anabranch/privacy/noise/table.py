"""Sampling from a table with fixed work: Walker's alias method on integers.

A distribution over n consecutive integers becomes 2^k >= n buckets of 2^64 tickets each. A sample
draws a bucket (k of 32 bits) and a ticket (64 bits); tickets below the bucket's threshold give the
bucket's own value, the others its alias. Every sample costs the same operations on the same number
of random bits whatever comes out, so timing tells nothing but what the cache gives away.

The table holds exactly 2^(64 + k) tickets, so its distribution is known exactly; `AliasTable.bias`
bounds how far it is from the wanted one (Walker 1977; Vose 1991).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext

import numpy as np
from numpy.typing import NDArray

from anabranch.privacy.noise.stream import SecretStream

__all__ = ["AliasTable", "Integers", "alias_table", "tickets_of"]

Integers = NDArray[np.int64]

DIGITS = 60
"""Decimal digits of the probabilities that tables are made from."""

_CHUNK = 1 << 14
_TICKETS = 1 << 64


@dataclass(frozen=True)
class AliasTable:
    """A distribution over the integers ``first``, ``first + 1``, ...

    Attributes:
        first: the smallest value.
        thresholds: tickets of each bucket that give its own value.
        aliases: the bucket whose value the other tickets give.
        bias: bound on the total variation distance of one sample to the wanted distribution.
    """

    first: int
    thresholds: NDArray[np.uint64]
    aliases: NDArray[np.int32]
    bias: float

    def draw(self, stream: SecretStream, out: Integers) -> None:
        """Fill ``out`` (at most 2^14 integers) with independent samples."""
        count = len(out)
        random = stream.fill(12 * count)
        tickets = np.frombuffer(random, np.uint64, count)
        buckets = np.frombuffer(random, np.uint32, count, offset=8 * count)
        buckets = buckets & np.uint32(len(self.aliases) - 1)
        others = tickets >= self.thresholds.take(buckets)
        values = np.where(others, self.aliases.take(buckets), buckets.view(np.int32))
        np.add(values, self.first, out=out)

    def sample(self, stream: SecretStream, count: int) -> Integers:
        """``count`` independent samples."""
        out = np.empty(count, np.int64)
        for start in range(0, count, _CHUNK):
            self.draw(stream, out[start : start + _CHUNK])
        return out


def tickets_of(weights: Sequence[Decimal]) -> list[int]:
    """Integers proportional to ``weights`` that add up to 2^(64 + k), 2^k the buckets.

    Each is rounded down; the rest, below one ticket a weight, goes to the largest.
    """
    total = 1 << (64 + _bits(len(weights)))
    with localcontext() as context:
        context.prec = DIGITS
        factor = Decimal(total) / sum(weights)
        tickets = [int(weight * factor) for weight in weights]
    largest = max(range(len(tickets)), key=tickets.__getitem__)
    tickets[largest] += total - sum(tickets)
    return tickets


def alias_table(first: int, weights: Sequence[Decimal], outside: float) -> AliasTable:
    """The table of a distribution.

    Args:
        first: the smallest value.
        weights: positive, proportional to the probabilities, at most 2^20 of them.
        outside: probability of all values that are not in the table.
    """
    size = 1 << _bits(len(weights))
    tickets = tickets_of(weights) + [0] * (size - len(weights))
    aliases = list(range(size))
    small = [i for i, count in enumerate(tickets) if count < _TICKETS]
    large = [i for i, count in enumerate(tickets) if count > _TICKETS]
    while small:
        low, high = small.pop(), large[-1]
        aliases[low] = high
        tickets[high] -= _TICKETS - tickets[low]
        if tickets[high] <= _TICKETS:
            large.pop()
            if tickets[high] < _TICKETS:
                small.append(high)
    # A full bucket is its own alias, so one ticket less at the threshold changes nothing.
    thresholds = np.array([min(count, _TICKETS - 1) for count in tickets], np.uint64)
    bias = len(weights) / (size * float(_TICKETS)) + outside
    return AliasTable(first, thresholds, np.array(aliases, np.int32), bias)


def _bits(count: int) -> int:
    return max(1, (count - 1).bit_length())
