"""A whole DP-FTRL run as one charge: correlated noise is one Gaussian release, however long."""

from __future__ import annotations

import math
from dataclasses import dataclass

from anabranch.errors import AnabranchError
from anabranch.privacy.accounting.ftrl import banded_toeplitz
from anabranch.privacy.events import GaussianEvent, Relation, Unit

__all__ = ["MatrixEvent"]


@dataclass(frozen=True)
class MatrixEvent:
    """Prefix sums of clipped rounds with banded Toeplitz noise (Denisov et al. 2022).

    Attributes:
        noise_multiplier: standard deviation of the uncorrelated noise z in C^-1 z, in clip norms.
        rounds: rounds released; a run that ended early has fewer than it planned.
        separation: fewest rounds between two participations of a unit.
        participations: most participations of a unit, over the planned run.
        bands: diagonals of C.
        relation: the neighbouring relation.
        unit: whose presence is protected.
        clip: the clip norm, constant over the run.

    Raises:
        AnabranchError: AB-903 the noise is not positive, AB-911 the participations do not fit.

    >>> MatrixEvent(3.7306, rounds=100, separation=20, participations=5, bands=20).sensitivity
    3.17481...
    """

    noise_multiplier: float
    rounds: int
    separation: int
    participations: int
    bands: int
    relation: Relation = Relation.ZERO_OUT
    unit: Unit = Unit.CLIENT
    clip: float = 1.0

    def __post_init__(self) -> None:
        if not (self.noise_multiplier > 0 and math.isfinite(self.noise_multiplier)):
            raise AnabranchError(
                "AB-903",
                f"the noise multiplier is {self.noise_multiplier:g}; without a positive, finite "
                "one nothing is private.",
                fix="give a positive number, or leave it out.",
            )
        if min(self.rounds, self.separation, self.participations, self.bands) < 1 or (
            self.bands > self.separation
        ):
            raise AnabranchError(
                "AB-911",
                f"a DP-FTRL run cannot have {self.rounds} rounds, separation {self.separation}, "
                f"{self.participations} participations and {self.bands} bands.",
                fix="use at least 1 of each, and no more bands than the separation.",
            )

    @property
    def sensitivity(self) -> float:
        """L2 distance that one unit moves C x, in clip norms, before the relation's factor.

        With fewer rounds than planned a unit can have come fewer times.
        """
        possible = 1 + (self.rounds - 1) // self.separation
        taking_part = min(self.participations, possible)
        bands = min(self.bands, self.rounds)
        return banded_toeplitz(self.rounds, self.separation, taking_part, bands).sensitivity

    def as_gaussian(self) -> GaussianEvent:
        """The one Gaussian release that this is."""
        return GaussianEvent(
            self.noise_multiplier / self.sensitivity,
            relation=self.relation,
            unit=self.unit,
            clip=self.clip,
        )
