"""Sums of bounded vectors as releases: statistics for preprocessing, scores of a model.

Each unit's vector is divided by the bound and rounded to the lattice of updates, so that its norm
in steps is an exact integer comparison; sums are integers, and the noise is a discrete Gaussian
from secret randomness. The clip norm of the charge is the bound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anabranch.privacy.mechanisms.lattice import UnitLattice
from anabranch.privacy.noise import DiscreteGaussian, SecretStream
from anabranch.updates.sections import Kind, Section, Statistics, Update, Weighting
from anabranch.updates.total import Total

__all__ = ["BoundedSums"]


@dataclass(frozen=True)
class BoundedSums:
    """Sums of vectors of ``dim`` coordinates and norm at most ``bound``.

    Attributes:
        name: of the section.
        dim: coordinates.
        bound: on one unit's vector; what the noise multiplier is a multiple of.

    >>> sums = BoundedSums("scores", dim=2, bound=2.0)
    >>> exact = sums.exact(np.array([[1.0, 0.0], [0.5, -1.0]]))
    >>> np.round(sums.values(exact), 2).tolist()
    [1.5, -1.0]
    """

    name: str
    dim: int
    bound: float

    def sections(self) -> tuple[Section, ...]:
        """All that leaves a client."""
        return (Section(self.name, self.dim, Kind.COUNT, Weighting.UNIFORM, quantum=1.0),)

    def exact(self, rows: NDArray[np.float64]) -> Statistics:
        """The integer sum over units, in steps; shape (dim,)."""
        lattice, total = UnitLattice(self.dim), np.zeros(self.dim)
        for row in rows:
            total += lattice.rounded(row, self.bound)
        return total

    def noise(self, multiplier: float, stream: SecretStream) -> Statistics:
        """Integer noise with standard deviation ``multiplier`` bounds; shape (dim,)."""
        drawn = DiscreteGaussian.worth(multiplier * UnitLattice(self.dim).steps)
        return drawn.sample(stream, self.dim).astype(np.float64)

    def update(self, steps: Statistics) -> Update:
        """As it leaves a client."""
        if self.dim == 1:
            return Update({}, {self.name: float(steps[0])})
        return Update({self.name: steps}, {})

    def steps(self, total: Total) -> Statistics:
        """The sum over clients, in steps."""
        return np.atleast_1d(np.asarray(total.sums[self.name], np.float64))

    def values(self, steps: Statistics) -> Statistics:
        """In the units of the vectors."""
        return np.asarray(steps * (self.bound / UnitLattice(self.dim).steps))

    def deviation(self, multiplier: float, parts: int = 1) -> float:
        """Standard deviation of the noise in one coordinate, where ``parts`` noises were added."""
        return multiplier * self.bound * math.sqrt(parts)
