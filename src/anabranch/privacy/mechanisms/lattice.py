"""The lattice that clipped updates are rounded to, so that sums are integers and noise is discrete.

Noise in floating point betrays what it was added to: most outputs that x = 0 can give are
impossible for x = 1 (Mironov 2012, "On Significance of the Least Significant Bits for Differential
Privacy"). Here an update is divided by the clip norm and rounded to multiples of 2^-e, its norm in
steps is an integer calculation, and no rounding can make it longer than the clip norm: the ball
that it is scaled into is smaller by the most that rounding can add, sqrt(d) / 2 steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from anabranch.errors import AnabranchError
from anabranch.updates.norm import squared_norm
from anabranch.updates.sections import Statistics, Vector

__all__ = ["UnitLattice"]

_FINENESS = 10
_FINEST = 22  # an update in steps is exact in float32


@dataclass(frozen=True)
class UnitLattice:
    """Multiples of ``2^-exponent`` for vectors of ``dim`` coordinates and norm at most 1.

    >>> UnitLattice(10_000).steps, UnitLattice(10_000).inner > 0.9995
    (131072, True)
    """

    dim: int

    @property
    def steps(self) -> int:
        """Steps of the unit: the largest norm of an update in steps, an integer power of two."""
        root = math.ceil(math.log2(max(self.dim, 1)) / 2)
        if root + _FINENESS > _FINEST:
            raise AnabranchError(
                "AB-932",
                f"a model of {self.dim} parameters is too large for the lattice of one update.",
                fix="train fewer parameters (model.freeze); 16 million are possible.",
                kept="Nothing was started.",
            )
        return 1 << (root + _FINENESS)

    @property
    def quantum(self) -> float:
        """One step, in clip norms."""
        return 1.0 / self.steps

    @property
    def inner(self) -> float:
        """The norm that updates are scaled to before rounding, in clip norms."""
        return 1.0 - math.sqrt(self.dim) / 2 * self.quantum

    def rounded(self, delta: Vector, clip: float, fraction: float = 1.0) -> Statistics:
        """``delta`` divided by ``clip``, scaled into the unit ball and rounded, in steps.

        A vector that is not finite counts as zero: refusing it would tell of the data.

        Args:
            delta: the update, shape (dim,).
            clip: the clip norm C.
            fraction: the client's weight divided by the largest weight, in (0, 1].
        """
        wide = delta.astype(np.float64)
        norm = math.sqrt(squared_norm(wide))
        if not math.isfinite(norm):
            return np.zeros(len(delta))
        wide *= self.steps * fraction * self.inner / max(norm, clip)
        np.rint(wide, out=wide)
        # Integers below 2^53: the comparison is exact. It never fails, by the choice of `inner`.
        if squared_norm(wide) > float(self.steps) ** 2:
            raise ArithmeticError("an update is longer than its bound after rounding")
        return wide
