"""Public random numbers for many clients at once, each a pure function of its address.

`anabranch.randomness.generator` makes one generator for one client; a fleet of 100,000 needs one
number for each of them thousands of times. Here the address (seed, purpose, draw) is hashed by
BLAKE2b as there, and the client and a lane are mixed in by SplitMix64's finaliser (Steele, Lea and
Flood 2014), in columns. Order and number of calls change nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anabranch.fleet.view import Column
from anabranch.randomness import derived_seed

__all__ = ["Draws"]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_LANE = np.uint64(0xD1B54A32D192ED03)
Words = NDArray[np.uint64]


def _mixed(words: Words) -> Words:
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


@dataclass(frozen=True)
class Draws:
    """The random numbers of one (seed, purpose, draw).

    >>> draws = Draws.of(0, "speed")
    >>> both = draws.uniforms(np.array([3, 9]))
    >>> bool(both[1] == draws.uniforms(np.array([9]))[0])
    True
    """

    key: int

    @staticmethod
    def of(seed: int, purpose: str, draw: int = 0) -> Draws:
        """The numbers for ``purpose``; equal arguments, equal numbers."""
        return Draws(derived_seed(seed, purpose, draw))

    def uniforms(self, rows: NDArray[np.integer], lane: int | NDArray[np.integer] = 0) -> Column:
        """One number in the open interval (0, 1) for each row (a client) and lane."""
        words = np.atleast_1d(np.asarray(rows)).astype(np.int64).view(np.uint64)
        lanes = np.broadcast_to(np.asarray(lane, np.int64), words.shape).copy().view(np.uint64)
        words = _mixed(words * _GOLDEN + np.uint64(self.key))
        words = _mixed(words + (lanes + np.uint64(1)) * _LANE)
        return ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53

    def normals(self, rows: NDArray[np.integer], lane: int | NDArray[np.integer] = 0) -> Column:
        """One standard normal number for each row and lane (Box and Muller 1958)."""
        first = self.uniforms(rows, 2 * np.asarray(lane, np.int64))
        second = self.uniforms(rows, 2 * np.asarray(lane, np.int64) + 1)
        return np.asarray(np.sqrt(-2.0 * np.log(first)) * np.cos(2.0 * np.pi * second))

    def exponentials(
        self, rows: NDArray[np.integer], lane: int | NDArray[np.integer] = 0
    ) -> Column:
        """One exponential number of mean 1 for each row and lane."""
        return np.asarray(-np.log(self.uniforms(rows, lane)))
