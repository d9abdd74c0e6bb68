"""Additive sharing: n random numbers whose sum is the secret; fewer than n of them say nothing."""

from __future__ import annotations

import os

import numpy as np

from anabranch.privacy.multiparty.field import (
    PRIME,
    Elements,
    Source,
    add,
    bad,
    multiply_mod,
    random_elements,
    subtract,
)

__all__ = ["add_public", "add_reveal", "add_share", "scale"]


def add_share(values: Elements, parties: int, source: Source = os.urandom) -> Elements:
    """Shares of every value, shape (parties, ...).

    Raises:
        AnabranchError: AB-977 with fewer than two parties.

    >>> from anabranch.privacy.multiparty.field import elements, signed
    >>> shares = add_share(elements([5, -7]), 3)
    >>> shares.shape, signed(add_reveal(shares)).tolist()
    ((3, 2), [5, -7])
    """
    if parties < 2:
        raise bad(f"A secret is shared among two parties or more, not {parties}.")
    others = random_elements((parties - 1, *values.shape), source)
    first = values
    for share in others:
        first = subtract(first, share)
    return np.concatenate([first[None], others])


def add_reveal(shares: Elements) -> Elements:
    """The values, from the shares of all parties."""
    total: Elements = shares[0]
    for share in shares[1:]:
        total = add(total, share)
    return total


def add_public(shares: Elements, values: Elements) -> Elements:
    """Shares of the secret plus public values: the first party adds them."""
    changed = shares.copy()
    changed[0] = add(shares[0], values)
    return changed


def scale(shares: Elements, factor: int) -> Elements:
    """Shares of the secret times a public number."""
    return multiply_mod(shares, np.full_like(shares, factor % PRIME))
