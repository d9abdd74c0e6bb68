"""The place of the largest of shared numbers, by a tournament: log2(n) rounds of comparisons."""

from __future__ import annotations

import numpy as np

from anabranch.privacy.multiparty.additive import add_reveal, add_share
from anabranch.privacy.multiparty.beaver import multiply
from anabranch.privacy.multiparty.compare import BitDealer, is_negative
from anabranch.privacy.multiparty.field import Elements, add, bad, subtract

__all__ = ["argmax"]


def argmax(shares: Elements, dealer: BitDealer) -> int:
    """Opens which of the shared numbers is the largest (the first of equals), and nothing else.

    Args:
        shares: shape (parties, n); numbers below 2^(l-2) in size, so that differences fit.
        dealer: of masks and triples.

    Raises:
        AnabranchError: AB-977 when there are no numbers.

    >>> from anabranch.privacy.multiparty.field import elements
    >>> argmax(add_share(elements([3, 9, -4, 9, 7]), 3), BitDealer(3))
    1
    """
    parties, count = shares.shape
    if not count:
        raise bad("There is no largest of no numbers.")
    values = shares
    places = add_share(np.arange(count, dtype=np.uint64), parties, dealer.source)
    while values.shape[1] > 1:
        values, places = _round(values, places, dealer)
    return int(add_reveal(places)[0])


def _round(values: Elements, places: Elements, dealer: BitDealer) -> tuple[Elements, Elements]:
    """Neighbours meet; the larger goes on, an odd one out goes on as it is."""
    pairs = values.shape[1] // 2
    left, right = values[:, : 2 * pairs : 2], values[:, 1 : 2 * pairs : 2]
    second = is_negative(subtract(left, right), dealer)
    triples = dealer.triples
    best = add(left, multiply(second, subtract(right, left), triples.triples(pairs)))
    here, there = places[:, : 2 * pairs : 2], places[:, 1 : 2 * pairs : 2]
    where = add(here, multiply(second, subtract(there, here), triples.triples(pairs)))
    odd = slice(2 * pairs, None)
    return (
        np.concatenate([best, values[:, odd]], axis=1),
        np.concatenate([where, places[:, odd]], axis=1),
    )
