"""Rounding at random, kept only when the result is not too long.

Kairouz, Liu and Steinke 2021, algorithm 1: every coordinate is rounded up with the probability of
its fraction, so that the expectation is the vector; the whole vector is rounded again until its
norm is at most D_2. The bound then holds always, not only probably.
"""

from __future__ import annotations

import math

import numpy as np

from anabranch.privacy.mechanisms.modulus import rounded_norm
from anabranch.privacy.noise import SecretStream
from anabranch.updates.norm import squared_norm
from anabranch.updates.sections import Statistics, Vector

__all__ = ["conditionally_rounded"]


def conditionally_rounded(vector: Vector, scale: float, stream: SecretStream) -> Statistics:
    """``vector`` (norm at most 1) times ``scale``, rounded at random to norm at most D_2.

    Args:
        vector: float32, shape (d,); scaled down when its norm is above 1.
        scale: s, in steps.
        stream: where the random fractions come from.

    Returns:
        float64 integers whose squared norm is at most `rounded_norm` squared, exactly.
    """
    bound = rounded_norm(scale, 1.0, len(vector)) ** 2
    factor = scale / max(1.0, math.sqrt(squared_norm(vector)))
    wanted = vector.astype(np.float64)
    wanted *= factor
    while True:  # each try succeeds with probability at least exp(-1/2), whatever the vector
        rounded = wanted + stream.fractions(len(wanted))
        np.floor(rounded, out=rounded)
        if squared_norm(rounded) <= bound:
            return rounded
