"""Mask streams: AES-128-CTR keystream as integers modulo 2^b, added to a vector tile by tile.

A seed of 32 bytes is the key (first half) and the initial counter block (second half). The
keystream is read as little-endian lanes of 32 or 64 bits; reduction modulo 2^b is a final mask,
since 2^b divides the size of a lane. All streams of a vector advance together over one tile that
stays in the processor's cache, so that memory does not grow with the number of streams.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from anabranch.privacy.secure_aggregation.primitives import KEY_BYTES
from anabranch.privacy.secure_aggregation.refusals import bad_parameters

__all__ = ["Lanes", "add_streams", "keystream", "lane_dtype", "reduce_lanes"]

Lanes = NDArray[np.uint32 | np.uint64]
"""A vector of integers modulo 2^b: 32-bit lanes for b <= 32, 64-bit lanes above."""

_TILE_BYTES = 1 << 18


def lane_dtype(bits: int) -> np.dtype[np.uint32 | np.uint64]:
    """The lane that holds integers modulo 2^bits, little endian on every machine.

    Raises:
        AnabranchError: AB-952 unless 8 <= bits <= 64.
    """
    if not 8 <= bits <= 64:
        raise bad_parameters(f"The modulus has {bits} bits, wanted 8 to 64.")
    return np.dtype("<u4") if bits <= 32 else np.dtype("<u8")


def reduce_lanes(vector: Lanes, bits: int) -> None:
    """Reduce a vector modulo 2^bits, in place."""
    if bits not in (32, 64):
        np.bitwise_and(vector, vector.dtype.type((1 << bits) - 1), out=vector)


def keystream(seed: bytes, length: int, bits: int = 32) -> Lanes:
    """The first ``length`` integers modulo 2^bits of one stream."""
    vector = np.zeros(length, lane_dtype(bits))
    add_streams(vector, [seed], [], bits)
    return vector


def add_streams(
    vector: Lanes, plus: Iterable[bytes], minus: Iterable[bytes], bits: int, *, threads: int = 1
) -> None:
    """Add the streams of ``plus`` and subtract those of ``minus``, in place, modulo 2^bits.

    Args:
        vector: lanes of ``lane_dtype(bits)``, contiguous and writeable.
        plus: seeds of 32 bytes.
        minus: seeds of 32 bytes.
        bits: b of the modulus.
        threads: streams that are made at the same time, each with a sum of its own (memory grows
            by a vector for each); the cipher and the additions run outside of the interpreter's
            lock. The result does not depend on it.
    """
    work = [(np.add, seed) for seed in plus] + [(np.subtract, seed) for seed in minus]
    if any(len(seed) != KEY_BYTES for _, seed in work):
        raise bad_parameters(f"A mask seed does not have {KEY_BYTES} bytes.")
    shares = min(threads, len(work), -(-vector.nbytes // _TILE_BYTES))
    if shares < 2:
        _add_all(vector, work, bits)
        return
    sums = [vector, *(np.zeros_like(vector) for _ in range(shares - 1))]
    with ThreadPoolExecutor(shares) as pool:
        parts = [
            pool.submit(_add_all, total, work[first::shares], bits)
            for first, total in enumerate(sums)
        ]
        for part in parts:
            part.result()
    for total in sums[1:]:
        np.add(vector, total, out=vector)
    reduce_lanes(vector, bits)


def _add_all(vector: Lanes, work: Sequence[tuple[np.ufunc, bytes]], bits: int) -> None:
    """Add or subtract some streams, a tile of the vector at a time."""
    streams = [(step, _stream(seed)) for step, seed in work]
    tile = _TILE_BYTES // vector.itemsize
    zeros = memoryview(bytes(_TILE_BYTES))
    # Room for one block more than a tile: what older versions of the cipher demand.
    buffer = bytearray(_TILE_BYTES + 16)
    keys = np.frombuffer(buffer, vector.dtype)
    for first in range(0, vector.size, tile):
        part = vector[first : first + tile]
        here, lanes = zeros[: part.nbytes], keys[: part.size]
        for step, update in streams:
            update(here, buffer)
            step(part, lanes, part)
        reduce_lanes(part, bits)


def _stream(seed: bytes) -> Callable[[memoryview, bytearray], int]:
    """Writes the next bytes of the keystream of a seed over a buffer."""
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.algorithms import AES
    from cryptography.hazmat.primitives.ciphers.modes import CTR

    return Cipher(AES(seed[:16]), CTR(seed[16:])).encryptor().update_into
