"""What the server sees of the updates of a group: their sums, and how finely it may look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from anabranch.updates.sections import WEIGHT, Sections, Statistics, Weighting

__all__ = ["Finest", "Total"]


class Finest(IntEnum):
    """The finest thing a rule or a stage needs to see; larger means more is revealed."""

    TOTAL = 0
    GROUPS = 1
    INDIVIDUALS = 2


@dataclass(frozen=True)
class Total:
    """A finished fold.

    Attributes:
        sections: the type of what was folded.
        sums: float64 sums by section name.
        contributors: number of updates inside.
    """

    sections: Sections
    sums: Mapping[str, Statistics]
    contributors: int

    @property
    def weight(self) -> float:
        """Sum of the weights of the contributors."""
        return self.scalar(WEIGHT) if WEIGHT in self.sections else float(self.contributors)

    def scalar(self, name: str) -> float:
        """The sum of a scalar section."""
        return float(self.sums[name][0])

    def mean(self, name: str) -> Statistics:
        """The weighted (or uniform, as declared) mean of a section over the contributors."""
        return self.sums[name] / self.denominator(name)

    def denominator(self, name: str) -> float:
        """What turns the sum of ``name`` into a mean."""
        by_weight = self.sections[name].weighting is Weighting.BY_WEIGHT
        return self.weight if by_weight else float(self.contributors)

    def plus(self, other: Total) -> Total:
        """The total over both (exact).

        Raises:
            ValueError: the sections differ.
        """
        if self.sections != other.sections:
            raise ValueError("totals of different sections cannot be added")
        sums = {name: value + other.sums[name] for name, value in self.sums.items()}
        return Total(self.sections, sums, self.contributors + other.contributors)
