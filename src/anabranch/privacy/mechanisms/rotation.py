"""A public random rotation that makes every update flat, so that the modulus can be small.

Random signs, then the discrete Hartley transform

    y_k = sum_j x_j (cos(2 pi j k / m) + sin(2 pi j k / m)) / sqrt(m)

which is orthogonal and its own inverse, and costs one real FFT. No coordinate is added, where a
Hadamard matrix would need the next power of two. Lengths with large prime factors are covered by
two overlapping transforms of the next smaller length 2^a 3^b 5^c 7^d.

Privacy never rests on the rotation: norms are checked after it. A coordinate of the rotated vector
exceeds t times norm / sqrt(d) with probability at most 2 exp(-t^2 / 4) (each entry is at most
sqrt(2 / m); Hoeffding), whatever the update.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from anabranch.randomness import derived_seed
from anabranch.updates.sections import Vector

__all__ = ["Rotation", "hartley", "smooth_length"]


@dataclass(frozen=True)
class Rotation:
    """The rotation of one round; public.

    Attributes:
        dim: length of the vectors.
        seed: the plan's public seed.
        round: number from which the signs derive.
    """

    dim: int
    seed: int
    round: int

    def forward(self, vector: Vector) -> Vector:
        """The rotated vector, float32."""
        flat = vector.astype(np.float32)
        for part, place in enumerate(self._places()):
            flat[place] = hartley(flat[place] * self._signs(part, place))
        return flat

    def backward(self, vector: Vector) -> Vector:
        """The inverse of `forward`, up to rounding in float32."""
        flat = vector.astype(np.float32)
        for part, place in reversed(list(enumerate(self._places()))):
            flat[place] = hartley(flat[place]) * self._signs(part, place)
        return flat

    def _places(self) -> tuple[slice, ...]:
        length = smooth_length(self.dim)
        if length == self.dim:
            return (slice(0, self.dim),)
        return slice(0, length), slice(self.dim - length, self.dim)

    def _signs(self, part: int, place: slice) -> Vector:
        """Random signs from raw words of PCG64, which are fixed by its definition."""
        count = place.stop - place.start
        words = np.random.PCG64(derived_seed(self.seed, f"rotation {part}", self.round))
        bits = np.unpackbits(
            words.random_raw(-(-count // 64)).astype("<u8").view(np.uint8), count=count
        )
        return np.float32(1) - 2 * bits.astype(np.float32)


def hartley(vector: Vector) -> Vector:
    """The orthogonal discrete Hartley transform of a float32 vector; its own inverse.

    >>> hartley(np.float32([1, 0, 0, 0]))
    array([0.5, 0.5, 0.5, 0.5], dtype=float32)
    """
    length = len(vector)
    if length < 2:
        return vector.copy()
    spectrum = np.fft.rfft(vector)
    scale = np.float32(1 / math.sqrt(length))
    out = np.empty(length, np.float32)
    half = len(spectrum)
    np.subtract(spectrum.real, spectrum.imag, out=out[:half], casting="unsafe")
    mirrored = slice(length - half, 0, -1)  # frequencies length - k, for k = half .. length - 1
    np.add(spectrum.real[mirrored], spectrum.imag[mirrored], out=out[half:], casting="unsafe")
    out *= scale
    return out


def smooth_length(dim: int) -> int:
    """The largest number up to ``dim`` without a prime factor above 7.

    >>> smooth_length(1_200_000), smooth_length(7850), smooth_length(11)
    (1200000, 7840, 10)
    """
    length = dim
    while length > 1 and not _smooth(length):
        length -= 1
    return length


def _smooth(number: int) -> bool:
    for prime in (2, 3, 5, 7):
        while number % prime == 0:
            number //= prime
    return number == 1
