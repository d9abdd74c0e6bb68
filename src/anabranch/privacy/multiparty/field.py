"""Integers modulo the Mersenne prime p = 2^61 - 1, in arrays of uint64.

2^61 = 1 modulo p, so a number is reduced by adding its high bits to its low ones. A product of two
61-bit numbers has 122 bits; it is put together from halves of 32 and 29 bits, all inside 64 bits.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anabranch.errors import AnabranchError

__all__ = [
    "PRIME",
    "Elements",
    "Source",
    "add",
    "bad",
    "elements",
    "inverse",
    "multiply_mod",
    "negate",
    "random_elements",
    "signed",
    "subtract",
]

PRIME = (1 << 61) - 1
"""p = 2^61 - 1."""

Elements = NDArray[np.uint64]
"""Integers from 0 to p - 1."""

Source = Callable[[int], bytes]
"""Gives that many bytes nobody can predict, such as ``os.urandom``."""

_P = np.uint64(PRIME)
_61 = np.uint64(61)
_32 = np.uint64(32)
_29 = np.uint64(29)
_3 = np.uint64(3)
_LOW32 = np.uint64((1 << 32) - 1)
_LOW29 = np.uint64((1 << 29) - 1)


def bad(what: str) -> AnabranchError:
    """Parameters that do not go together."""
    return AnabranchError(
        "AB-977",
        what,
        fix="correct the parameter that the message names.",
        kept="Nothing was sent.",
    )


def elements(values: ArrayLike) -> Elements:
    """Whole numbers as field elements; negative ones from the top.

    Raises:
        AnabranchError: AB-977 if a number is not whole or its size exceeds (p - 1) / 2.

    >>> elements([3, -1]).tolist()
    [3, 2305843009213693950]
    """
    given = np.asarray(values)
    if given.dtype.kind not in "iu":
        raise bad("Field elements are made of whole numbers.")
    largest = int(np.max(np.abs(given.astype(np.float64)), initial=0.0))
    if largest > PRIME // 2:
        raise bad("A number is too large for the field.")
    whole = given.astype(np.int64)
    return np.where(whole < 0, whole + np.int64(PRIME), whole).astype(np.uint64)


def signed(values: Elements) -> NDArray[np.int64]:
    """The inverse of `elements`: those above (p - 1) / 2 are negative.

    >>> signed(elements([3, -1])).tolist()
    [3, -1]
    """
    whole = values.astype(np.int64)
    return np.where(whole > PRIME // 2, whole - np.int64(PRIME), whole)


def _reduced(values: Elements) -> Elements:
    """Numbers below 2^64, modulo p."""
    folded = (values & _P) + (values >> _61)
    return np.where(folded >= _P, folded - _P, folded)


def add(one: Elements, other: Elements) -> Elements:
    """Sum."""
    return _reduced(one + other)


def subtract(one: Elements, other: Elements) -> Elements:
    """Difference."""
    return _reduced(one + (_P - other))


def negate(one: Elements) -> Elements:
    """The additive inverse."""
    return _reduced(_P - one)


def multiply_mod(one: Elements, other: Elements) -> Elements:
    """Product.

    With a = a1 2^32 + a0 and b likewise: a b = a1 b1 2^64 + (a1 b0 + a0 b1) 2^32 + a0 b0, where
    2^64 = 8 and m 2^32 = (m >> 29) + (m mod 2^29) 2^32 modulo p.
    """
    a1, a0 = one >> _32, one & _LOW32
    b1, b0 = other >> _32, other & _LOW32
    high = (a1 * b1) << _3
    middle = a1 * b0 + a0 * b1
    low = a0 * b0
    total = _reduced(high) + (middle >> _29) + ((middle & _LOW29) << _32)
    return _reduced(_reduced(total) + _reduced(low))


def inverse(value: int) -> int:
    """The multiplicative inverse of one element that is not zero."""
    return pow(value, -1, PRIME)


def random_elements(shape: int | tuple[int, ...], source: Source = os.urandom) -> Elements:
    """Uniform elements: 61 bits at a time; the one draw in 2^61 that is p itself is drawn again."""
    count = int(np.prod(shape))
    drawn = np.frombuffer(source(8 * count), np.uint64) & _P
    while bool(np.any(wrong := drawn == _P)):
        drawn = drawn.copy()
        drawn[wrong] = np.frombuffer(source(8 * int(wrong.sum())), np.uint64) & _P
    return drawn.reshape(shape)
