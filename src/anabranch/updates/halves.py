"""float16 behind a common power of two, so that the size of an update does not matter.

The power brings the largest value near 2^15, just inside the range of float16; values down to 2^-29
of the largest keep their eleven bits.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from anabranch.updates.packed import Reader, Writer, inconsistent
from anabranch.updates.sections import Vector

__all__ = ["halves", "read_exponent", "read_halves", "whole", "write_halves"]

_TOP = 15
_FARTHEST = 200

Halves = NDArray[np.float16]


def halves(values: Vector) -> tuple[int, Halves]:
    """The exponent and the scaled values, each off by at most half of its eleventh bit."""
    largest = float(np.abs(values).max()) if len(values) else 0.0
    exponent = _TOP - math.frexp(largest)[1] if largest else 0
    return exponent, np.ldexp(values.astype(np.float64), exponent).astype(np.float16)


def whole(exponent: int, scaled: NDArray[np.floating]) -> Vector:
    """The inverse of `halves`."""
    with np.errstate(invalid="ignore"):  # a damaged half may be no number; the fold refuses it
        return np.ldexp(scaled.astype(np.float64), -exponent).astype(np.float32)


def write_halves(values: Vector, writer: Writer) -> None:
    """Append the exponent (i16) and the scaled values (f16)."""
    exponent, scaled = halves(values)
    writer.number(exponent, "<i2")
    writer.array(scaled, "<f2")


def read_halves(reader: Reader, count: int) -> Vector:
    """What `write_halves` has written.

    Raises:
        AnabranchError: AB-523 when it cannot come from there.
    """
    exponent = read_exponent(reader)
    return whole(exponent, reader.array(count, "<f2").astype(np.float16, copy=False))


def read_exponent(reader: Reader) -> int:
    """One exponent, inside the range that float32 numbers can need."""
    exponent = reader.integer("<i2")
    if abs(exponent) > _FARTHEST:
        raise inconsistent("its exponent is out of range")
    return exponent
