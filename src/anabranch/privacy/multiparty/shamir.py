"""Shamir sharing of arrays: any t of n holders give the values, fewer say nothing (Shamir 1979)."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Mapping, Sequence

import numpy as np

from anabranch.errors import AnabranchError
from anabranch.privacy.multiparty.field import (
    PRIME,
    Elements,
    Source,
    add,
    bad,
    inverse,
    multiply_mod,
    random_elements,
)

__all__ = ["lagrange", "shamir_reveal", "shamir_share"]

_MOST_SUBSETS = 5000


def shamir_share(
    values: Elements, threshold: int, holders: int, source: Source = os.urandom
) -> dict[int, Elements]:
    """Shares by holder, 1 to ``holders``: values of random polynomials of degree t - 1.

    Raises:
        AnabranchError: AB-977 unless 1 <= threshold <= holders < p.

    >>> from anabranch.privacy.multiparty.field import elements, signed
    >>> shares = shamir_share(elements([5, -7]), threshold=2, holders=3)
    >>> signed(shamir_reveal({1: shares[1], 3: shares[3]}, threshold=2)).tolist()
    [5, -7]
    """
    if not 1 <= threshold <= holders < PRIME:
        raise bad(f"A secret can not be shared {threshold} of {holders}.")
    coefficients = random_elements((threshold - 1, *values.shape), source)
    shares = {}
    for x in range(1, holders + 1):
        point = np.full(values.shape, x, np.uint64)
        share = np.zeros_like(values)
        for coefficient in coefficients[::-1]:
            share = multiply_mod(add(share, coefficient), point)
        shares[x] = add(share, values)
    return shares


def lagrange(holders: Sequence[int], at: int = 0) -> tuple[int, ...]:
    """The weights with which shares of these holders sum to the polynomial's value at ``at``."""
    weights = []
    for x in holders:
        above = math.prod((other - at) for other in holders if other != x)
        below = math.prod((other - x) for other in holders if other != x)
        weights.append(above % PRIME * inverse(below % PRIME) % PRIME)
    return tuple(weights)


def shamir_reveal(shares: Mapping[int, Elements], threshold: int) -> Elements:
    """The values, from t shares or more; more of them are a check.

    With t + 2 shares or more one wrong share is found and left out.

    Raises:
        AnabranchError: AB-977 with fewer than t shares or shares of different shapes; AB-978 when
            shares lie on no common polynomial and the wrong one can not be told.
    """
    if len(shares) < threshold or len({share.shape for share in shares.values()}) != 1:
        raise bad(f"{len(shares)} shares of equal shape were given, {threshold} are needed.")
    if _consistent(shares, threshold):
        return _combined(shares, threshold)
    wrong = _wrong_one(shares, threshold)
    if wrong is None:
        raise AnabranchError(
            "AB-978",
            "Shares do not lie on one polynomial: at least one was changed.",
            fix="ask for more shares, or share the secret again.",
            kept="Nothing was computed.",
        )
    return _combined({x: share for x, share in shares.items() if x != wrong}, threshold)


def _combined(shares: Mapping[int, Elements], threshold: int, at: int = 0) -> Elements:
    chosen = sorted(shares)[:threshold]
    total = np.zeros_like(shares[chosen[0]])
    for x, weight in zip(chosen, lagrange(chosen, at), strict=True):
        total = add(total, multiply_mod(shares[x], np.full_like(total, weight)))
    return total


def _consistent(shares: Mapping[int, Elements], threshold: int) -> bool:
    rest = sorted(shares)[threshold:]
    return all(np.array_equal(_combined(shares, threshold, at=x), shares[x]) for x in rest)


def _wrong_one(shares: Mapping[int, Elements], threshold: int) -> int | None:
    """The one holder without whose share the others fit; two candidates are none."""
    if len(shares) < threshold + 2:
        return None
    found = [
        wrong
        for wrong in itertools.islice(sorted(shares), _MOST_SUBSETS)
        if _consistent({x: s for x, s in shares.items() if x != wrong}, threshold)
    ]
    return found[0] if len(found) == 1 else None
