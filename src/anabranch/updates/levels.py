"""A decoded vector that is still whole numbers and one step, for who only wants to add it up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Levels"]


@dataclass(frozen=True, slots=True)
class Levels:
    """The vector float32(symbols) * step.

    The fold takes it in pieces that stay in a core's cache, so the whole vector never exists; every
    piece has the bits that the whole vector would have.

    Attributes:
        symbols: whole numbers, int32.
        step: what one of them is worth, finite and at least zero.

    >>> Levels(np.int32([0, -2, 1]), np.float32(0.5)).vector().tolist()
    [0.0, -1.0, 0.5]
    """

    symbols: NDArray[np.int32]
    step: np.float32

    def __len__(self) -> int:
        return len(self.symbols)

    def piece(self, start: int, stop: int) -> NDArray[np.float32]:
        """Coordinates from ``start`` to before ``stop``."""
        values = self.symbols[start:stop].astype(np.float32)
        values *= self.step
        return values

    def vector(self) -> NDArray[np.float32]:
        """All coordinates."""
        return self.piece(0, len(self.symbols))

    @property
    def largest(self) -> float:
        """The largest absolute coordinate; inf when one leaves the range of float32."""
        ends = np.array([self.symbols.min(initial=0), self.symbols.max(initial=0)], np.float32)
        with np.errstate(over="ignore"):
            return float(np.abs(ends * self.step).max())
