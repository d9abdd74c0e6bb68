"""Sums and histograms that no party sees a term of: every input is shared, shares are added."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anabranch.privacy.multiparty.additive import add_reveal, add_share
from anabranch.privacy.multiparty.field import (
    Elements,
    Source,
    add,
    bad,
    elements,
    signed,
)

__all__ = ["secure_histogram", "secure_sum"]


def secure_sum(
    inputs: Sequence[ArrayLike], parties: int = 3, source: Source = os.urandom
) -> NDArray[np.int64]:
    """The sum of whole numbers of many owners, computed by ``parties`` that see shares only.

    Raises:
        AnabranchError: AB-977 without inputs, with shapes that differ, or with numbers that are
            not whole or too large.

    >>> secure_sum([[1, 2], [3, -5]]).tolist()
    [4, -3]
    """
    held: Elements | None = None
    for given in inputs:
        shares = add_share(elements(given), parties, source)
        if held is not None and held.shape != shares.shape:
            raise bad("Inputs have different shapes.")
        held = shares if held is None else add(held, shares)
    if held is None:
        raise bad("There is no sum of no inputs.")
    return signed(add_reveal(held))


def secure_histogram(
    values: Sequence[float], edges: Sequence[float], parties: int = 3, source: Source = os.urandom
) -> NDArray[np.int64]:
    """How many owners' values lie in each bin; a value is one owner's, shared as a one-hot vector.

    Args:
        values: one for each owner; those outside of all bins are counted in the nearest one.
        edges: ascending, bins are [e_i, e_(i+1)).

    Raises:
        AnabranchError: AB-977 if edges do not ascend or a value is not a number.

    >>> secure_histogram([0.1, 0.5, 0.6, 2.0], edges=[0.0, 0.5, 1.0]).tolist()
    [1, 3]
    """
    limits = np.asarray(edges, np.float64)
    if limits.size < 2 or not np.all(np.diff(limits) > 0):
        raise bad("The edges of a histogram ascend, and there are two or more.")
    bins = limits.size - 1
    rows = []
    for value in values:
        if not value == value:
            raise bad("A value is not a number.")
        place = int(np.clip(np.searchsorted(limits, value, side="right") - 1, 0, bins - 1))
        row = np.zeros(bins, np.int64)
        row[place] = 1
        rows.append(row)
    return secure_sum(rows, parties, source)
