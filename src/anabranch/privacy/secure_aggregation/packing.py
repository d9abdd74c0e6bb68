"""Integers of b bits as a dense string of bytes, b bits each: what a masked vector travels as.

Eight integers fill exactly b bytes. The i-th integer takes the bits from i b on, least significant
bit first, so that the first 8 bits of the string are its first byte.
"""

from __future__ import annotations

import numpy as np

from anabranch.privacy.secure_aggregation.refusals import malformed
from anabranch.privacy.secure_aggregation.streams import Lanes, lane_dtype

__all__ = ["pack", "packed_bytes", "unpack"]


def packed_bytes(length: int, bits: int) -> int:
    """The size of ``length`` packed integers."""
    return -(-length * bits // 8)


def pack(vector: Lanes, bits: int) -> bytes:
    """Pack integers that are below 2^bits.

    >>> pack(np.array([1, 2], np.uint32), 12).hex()
    '012000'
    """
    if bits == 8 * vector.itemsize:
        return vector.tobytes()
    groups = _groups(vector)
    packed = np.zeros((groups.shape[0], bits), np.uint8)
    for byte, lane, shift in _overlaps(bits):
        # A cast to uint8 keeps the low bits, which are the ones that this byte takes.
        moved = groups[:, lane] >> -shift if shift <= 0 else groups[:, lane] << shift
        packed[:, byte] |= moved.astype(np.uint8)
    return packed.tobytes()[: packed_bytes(vector.size, bits)]


def unpack(content: bytes, length: int, bits: int) -> Lanes:
    """The integers that ``pack`` made bytes of.

    Raises:
        AnabranchError: AB-954 if the size is not that of ``length`` integers, or if bits that
            belong to no integer are set.
    """
    size = packed_bytes(length, bits)
    if len(content) != size:
        raise malformed(f"a vector has {len(content)} bytes, wanted {size}")
    dtype = lane_dtype(bits)
    if bits == 8 * dtype.itemsize:
        return np.frombuffer(content, dtype).copy()
    if length * bits % 8 and content[-1] >> (length * bits % 8):
        raise malformed("a vector has bits after its last integer")
    rows = -(-length // 8)
    flat = np.zeros(rows * bits, np.uint8)
    flat[:size] = np.frombuffer(content, np.uint8)
    packed = flat.reshape(rows, bits)
    groups = np.zeros((rows, 8), dtype)
    for byte, lane, shift in _overlaps(bits):
        moved = packed[:, byte].astype(dtype)
        groups[:, lane] |= moved << -shift if shift <= 0 else moved >> shift
    groups &= dtype.type((1 << bits) - 1)
    return groups.reshape(-1)[:length].copy()


def _groups(vector: Lanes) -> Lanes:
    rows = -(-vector.size // 8)
    padded = np.zeros(rows * 8, vector.dtype)
    padded[: vector.size] = vector
    return padded.reshape(rows, 8)


def _overlaps(bits: int) -> list[tuple[int, int, int]]:
    """Every byte of a group with each integer in it, and by how much that is shifted left."""
    return [
        (byte, lane, lane * bits - 8 * byte)
        for byte in range(bits)
        for lane in range(8)
        if lane * bits < 8 * byte + 8 and (lane + 1) * bits > 8 * byte
    ]
