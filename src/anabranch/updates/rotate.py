"""EDEN: a random rotation makes any update look Gaussian; then one codebook fits every block.

Vargaftik et al., "EDEN: Communication-Efficient and Robust Distributed Mean Estimation for
Federated Learning" (2022); with one bit it is DRIVE (2021). For each block x of the update

    y = H D x / sqrt(n)      random signs D, Hadamard matrix H
    q = nearest Lloyd-Max level of the standard normal to y sqrt(n) / |x|
    S = |x|^2 / <y, q>       decoded: D H (S q) / sqrt(n)

With that S the decoded block has exactly the projection |x|^2 on x. Under a uniformly random
rotation this makes it unbiased; random signs and a Hadamard matrix come close to one.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from anabranch.updates.codec import Codec, codec_contract
from anabranch.updates.packed import FRAME_BYTES, Reader, Writer, inconsistent
from anabranch.updates.sections import Statistics, Vector
from anabranch.updates.stages import EncodeContext, StageContract

__all__ = ["EDEN", "LEVELS", "hadamard"]

Codes = NDArray[np.uint8]

LEVELS: dict[int, tuple[float, ...]] = {
    1: (0.7978845608,),
    2: (0.4527800398, 1.5104176087),
    3: (0.2450941789, 0.7560052489, 1.3439092613, 2.1519457917),
    4: (
        0.1283950280,
        0.3880482994,
        0.6567590957,
        0.9423404451,
        1.2562311512,
        1.6180464659,
        2.0690172840,
        2.7326368644,
    ),
}
"""Positive Lloyd-Max levels of the standard normal by number of bits (Max, 1960)."""

_INNER = 64
_TOGETHER = 16  # blocks of 4096 that stay in a core's second-level cache

_LONGEST = 2.0
"""Largest growth of a block's norm; reached with vanishing probability."""


class EDEN(Codec):
    """Random rotation and Lloyd-Max levels, with the scale that makes it unbiased."""

    name: ClassVar[str] = "eden"
    codec: ClassVar[int] = 4
    kind: Literal["eden"] = "eden"
    bits: Literal[1, 2, 3, 4] = 1
    """Bits for each coordinate."""
    block: int = Field(default=4096, ge=16, le=2**20, json_schema_extra={"unit": "coordinates"})
    """Coordinates that are rotated together; a power of two."""

    @field_validator("block")
    @classmethod
    def _power_of_two(cls, block: int) -> int:
        if block & (block - 1):
            raise ValueError("must be a power of two")
        return block

    def contract(self) -> StageContract:
        return codec_contract(unbiased=True, inflation=_LONGEST)

    def write(self, delta: Vector, context: EncodeContext, writer: Writer) -> None:
        seed = int(context.generator.integers(2**32))
        size = self._size(len(delta))
        rows = _rows(delta, size)
        rotated = hadamard(rows * _signs(seed, rows.size).reshape(rows.shape))
        norms = np.sqrt(np.einsum("ij,ij->i", rotated, rotated, dtype=np.float64))
        codes, levels = self._nearest(rotated, norms)
        writer.number(seed, "<u4")
        writer.array(_scales(rotated, levels, norms), "<f4")
        writer.raw(self._bits(codes))

    def least_bytes(self, length: int) -> int:
        return FRAME_BYTES + 4 + (length * self.bits + 7) // 8

    def read(self, reader: Reader, length: int) -> Vector:
        size = self._size(length)
        seed, count = reader.integer("<u4"), -(-length // size)
        scales = reader.floats(count)
        if (scales < 0).any():
            raise inconsistent("a scale is negative")
        levels = self._table()[self._codes(reader, count * size)].reshape(count, size)
        levels *= scales[:, None]
        rotated = hadamard(levels)
        rotated *= _signs(seed, rotated.size).reshape(rotated.shape)
        return rotated.ravel()[:length]

    def _size(self, length: int) -> int:
        """Coordinates of a block: short vectors need no more than the next power of two."""
        return min(self.block, 1 << max(4, (length - 1).bit_length()))

    def _table(self) -> Vector:
        """Levels in rising order."""
        positive = np.array(LEVELS[self.bits])
        return np.concatenate([-positive[::-1], positive]).astype(np.float32)

    def _nearest(self, rotated: Vector, norms: Statistics) -> tuple[Codes, Vector]:
        """Index of the nearest level for each coordinate, and the levels."""
        table = self._table()
        factor = np.divide(
            math.sqrt(rotated.shape[1]), norms, out=np.zeros(len(norms)), where=norms > 0
        )
        codes: Codes = np.zeros(rotated.shape, np.uint8)
        normal = rotated * factor[:, None].astype(np.float32)
        for middle in (table[1:] + table[:-1]) / 2:
            codes += normal > middle
        return codes, table[codes]

    def _bits(self, codes: Codes) -> bytes:
        """The codes, ``bits`` each, highest bit first."""
        if self.bits != 3:  # blocks are multiples of a byte
            together = codes.reshape(-1, 8 // self.bits)
            packed = together[:, 0].copy()
            for place in range(1, together.shape[1]):
                packed <<= np.uint8(self.bits)
                packed |= together[:, place]
            return packed.tobytes()
        shifts = np.arange(self.bits - 1, -1, -1).astype(np.uint8)
        return np.packbits((codes.ravel()[:, None] >> shifts) & np.uint8(1)).tobytes()

    def _codes(self, reader: Reader, count: int) -> Codes:
        packed = np.frombuffer(reader.raw((count * self.bits + 7) // 8), np.uint8)
        if self.bits != 3:
            together: Codes = np.empty((len(packed), 8 // self.bits), np.uint8)
            for place in range(together.shape[1]):
                np.right_shift(packed, 8 - self.bits * (place + 1), out=together[:, place])
            together &= np.uint8((1 << self.bits) - 1)
            return together.ravel()
        planes = np.unpackbits(packed, count=count * self.bits).reshape(count, self.bits)
        codes: Codes = np.zeros(count, np.uint8)
        for bit in range(self.bits):
            codes <<= np.uint8(1)
            codes |= planes[:, bit]
        return codes


def hadamard(rows: Vector) -> Vector:
    """Each row times the Hadamard matrix over the root of its length (its own inverse).

    Only additions and subtractions in one fixed order, so every machine gets the same bits.

    >>> hadamard(np.float32([[1, 0, 0, 0]]))
    array([[0.5, 0.5, 0.5, 0.5]], dtype=float32)
    """
    result = np.array(rows, np.float32)
    for low in range(0, len(result), _TOGETHER):
        part = result[low : low + _TOGETHER]
        part[...] = _transformed(part)
    result *= np.float32(1 / math.sqrt(rows.shape[1]))
    return result


def _transformed(rows: Vector) -> Vector:
    """The transform without its factor.

    The matrix is a Kronecker product, so the low six bits of a place may be done on a transposed
    copy. Then every addition runs over long stretches of memory.
    """
    count, size = rows.shape
    if size <= _INNER:
        return _butterflies(rows.reshape(count, size, 1)).reshape(count, size)
    outer = _butterflies(rows.reshape(count, size // _INNER, _INNER))
    inner = _butterflies(np.ascontiguousarray(outer.transpose(0, 2, 1)))
    return inner.transpose(0, 2, 1).reshape(count, size)


def _butterflies(source: Vector) -> Vector:
    """The Hadamard matrix, without its factor, along the middle axis."""
    count, size, width = source.shape
    target = np.empty_like(source)
    spare = np.empty_like(source)
    half = 1
    while half < size:
        pairs = source.reshape(count, size // (2 * half), 2, half * width)
        into = target.reshape(pairs.shape)
        np.add(pairs[:, :, 0], pairs[:, :, 1], out=into[:, :, 0])
        np.subtract(pairs[:, :, 0], pairs[:, :, 1], out=into[:, :, 1])
        source, target, spare = target, spare, target
        half *= 2
    return source


def _signs(seed: int, count: int) -> Vector:
    """Public random signs from raw words of PCG64, which are fixed by its definition."""
    words = np.random.PCG64(seed).random_raw(-(-count // 64)).astype("<u8")
    bits = np.unpackbits(words.view(np.uint8), count=count)
    return np.float32(1) - 2 * bits.astype(np.float32)


def _scales(rotated: Vector, levels: Vector, norms: Statistics) -> Statistics:
    """S = |x|^2 / <y, q> for each block, bounded so that no block grows more than twofold."""
    with np.errstate(divide="ignore", invalid="ignore"):
        projection = np.einsum("ij,ij->i", rotated, levels, dtype=np.float64)
        lengths = np.sqrt(np.einsum("ij,ij->i", levels, levels, dtype=np.float64))
        scales = np.minimum(norms**2 / projection, _LONGEST * norms / lengths)
    return np.where(norms > 0, scales, 0.0)


def _rows(vector: Vector, size: int) -> Vector:
    short = -len(vector) % size
    padded = np.concatenate([vector, np.zeros(short, np.float32)]) if short else vector
    return padded.reshape(-1, size)
