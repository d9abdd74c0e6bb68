"""Euclidean norms that do not depend on the number of threads."""

from __future__ import annotations

import numpy as np

from anabranch.updates.sections import Statistics, Vector

__all__ = ["squared_norm"]


def squared_norm(vector: Vector | Statistics) -> float:
    """The sum of squares of a vector, in float64.

    Squares of float32 numbers are exact in float64, and NumPy adds pairwise in one fixed order. A
    BLAS dot product splits long vectors among its threads, so its last bits differ between a
    worker with one thread and a notebook with many.

    >>> squared_norm(np.float32([3, 4]))
    25.0
    """
    squares = vector.astype(np.float64)
    squares *= squares
    return float(np.add.reduce(squares))
