"""Whole numbers of any size as bytes: the high part entropy-coded, the low bits as they are.

A number v is split into floor(v / 2^s) and the s bits below. Where numbers spread over much more
than 2^s, their low bits are nearly uniform, so nothing is lost by not coding them; the high parts
are few symbols, and few symbols are decoded sooner. The encoder takes the largest s that is within
a sixteenth of a bit of the best, judged by a sample.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anabranch.updates.packed import Reader, Writer, inconsistent
from anabranch.updates.symbols import RADIUS, Symbols, read_symbols, write_symbols

__all__ = ["LARGEST", "read_integers", "write_integers"]

LARGEST = 2**30
"""Numbers beyond are refused."""

_MOST_SHIFT = 24
_SAMPLE = 1 << 14
_SLACK = 1 / 16
_ESCAPE_BITS = 40.0  # four bytes, and a rare symbol


def write_integers(values: Symbols, writer: Writer) -> None:
    """Append numbers of at most `LARGEST`: s (u8), one string of bits for each of the s low bits,
    and the high parts as symbols."""
    shift = _best_shift(values)
    writer.number(shift, "<u1")
    for bit in range(shift):
        writer.raw(np.packbits((values >> bit).astype(np.uint8) & np.uint8(1)).tobytes())
    write_symbols(values >> shift if shift else values, writer)


def read_integers(reader: Reader, length: int) -> Symbols:
    """Exactly ``length`` numbers.

    Raises:
        AnabranchError: AB-523 when the part is not what `write_integers` writes.
    """
    shift = reader.integer("<u1")
    if shift > _MOST_SHIFT:
        raise inconsistent("it has too many low bits")
    planes = [np.frombuffer(reader.raw((length + 7) // 8), np.uint8) for _ in range(shift)]
    values = read_symbols(reader, length)
    if length and max(int(values.max()), -int(values.min())) > LARGEST >> shift:
        raise inconsistent("a number is out of range")
    if shift:
        values <<= np.int32(shift)
    for bit, plane in enumerate(planes):
        values |= np.unpackbits(plane, count=length).astype(np.int32) << np.int32(bit)
    return values


def _best_shift(values: Symbols) -> int:
    """The number of low bits to leave as they are."""
    if not len(values):
        return 0
    sample = values[:: max(1, len(values) // _SAMPLE)]
    largest = max(int(values.max()), -int(values.min()))
    shifts = range(min(largest.bit_length(), _MOST_SHIFT) + 1)
    bits = [shift + _bits(sample >> shift) for shift in shifts]
    return max(shift for shift in shifts if bits[shift] <= min(bits) + _SLACK)


def _bits(sample: NDArray[np.int32]) -> float:
    """Bits of a number when symbols are coded, those out of range one by one."""
    inside = np.abs(sample) <= RADIUS
    coded = np.where(inside, sample, RADIUS + 1) + RADIUS
    counts = np.bincount(coded, minlength=1)
    part = counts[counts > 0] / len(sample)
    return float(-(part * np.log2(part)).sum() + _ESCAPE_BITS * (1 - inside.mean()))
