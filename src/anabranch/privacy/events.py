"""What a release costs: frozen values that describe one noisy release, or several equal ones.

The conventions live here, once:

- The **noise multiplier** is the standard deviation of the noise divided by the clip norm C,
  whatever the relation is. A relation under which one unit moves the sum by 2C does not change the
  number; it changes the sensitivity, which the accounting multiplies in.
- **add-or-remove**: neighbours differ by one unit that is there or is not; the sum moves by C.
- **zero-out**: a unit's contribution is replaced by zero, the number of units is public; the sum
  moves by C (Kairouz et al. 2021, "Practical and Private (Deep) Learning without Sampling or
  Shuffling", definition 1.1).
- **replace-one**: one unit is replaced by another; the sum moves by 2C, since one vector of norm C
  leaves it and another one enters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum

from anabranch.errors import AnabranchError

__all__ = [
    "FixedSizeSampling",
    "GaussianEvent",
    "Mechanism",
    "NoSampling",
    "PoissonSampling",
    "Relation",
    "Sampling",
    "Unit",
]


class Relation(StrEnum):
    """When two populations count as neighbours."""

    ADD_OR_REMOVE = "add-or-remove"
    REPLACE_ONE = "replace-one"
    ZERO_OUT = "zero-out"

    @property
    def sensitivity(self) -> float:
        """How far one unit can move a sum of clipped vectors, in clip norms.

        >>> Relation.REPLACE_ONE.sensitivity
        2.0
        """
        return 2.0 if self is Relation.REPLACE_ONE else 1.0


class Unit(StrEnum):
    """Whose presence is protected."""

    EXAMPLE = "example"
    SUBJECT = "subject"
    CLIENT = "client"
    SITE = "site"


class Mechanism(StrEnum):
    """How the noise is made."""

    GAUSSIAN = "gaussian"


@dataclass(frozen=True)
class NoSampling:
    """No amplification is claimed: everybody counts as present in every release. The default.

    It is right for any selection of clients, and the only right one when somebody whom the
    guarantee is to protect from sees who takes part.
    """

    def __str__(self) -> str:
        return "none"


@dataclass(frozen=True)
class PoissonSampling:
    """An independent secret coin for every enrolled unit in every release.

    Attributes:
        rate: probability of taking part, in (0, 1].
        cap: largest cohort; if more coins fall, a random subset of this size takes part. 0: no cap.
        A
            cap of m + 6 sqrt(m) for an expected cohort of m costs nothing that can be seen.
        population: enrolled units; needed with a cap.

    Raises:
        AnabranchError: AB-904 the rate is outside (0, 1], AB-913 a cap without a population.
    """

    rate: float
    cap: int = 0
    population: int = 0

    def __post_init__(self) -> None:
        _check_rate(self.rate)
        if self.cap < 0 or (self.cap and self.population < 1):
            raise AnabranchError(
                "AB-913",
                f"a cap of {self.cap} on the cohort of a population of {self.population}.",
                fix="give a positive cap together with the size of the population.",
            )

    def __str__(self) -> str:
        return f"poisson({self.rate:g})" + (f" capped at {self.cap}" if self.cap else "")


@dataclass(frozen=True)
class FixedSizeSampling:
    """A uniformly random cohort of fixed size in every release, drawn without replacement, secret.

    Attributes:
        rate: cohort divided by population, in (0, 1].

    Raises:
        AnabranchError: AB-904 the rate is outside (0, 1].
    """

    rate: float

    def __post_init__(self) -> None:
        _check_rate(self.rate)

    def __str__(self) -> str:
        return f"without-replacement({self.rate:g})"


Sampling = NoSampling | PoissonSampling | FixedSizeSampling


def _check_rate(rate: float) -> None:
    if not 0 < rate <= 1:
        raise AnabranchError(
            "AB-904",
            f"the sampling rate is {rate:g}; it is a probability in (0, 1].",
            fix="give the cohort divided by the population, for example 100 / 10000 = 0.01.",
        )


@dataclass(frozen=True)
class GaussianEvent:
    """``rounds`` equal releases of a sum of clipped vectors with Gaussian noise.

    Attributes:
        noise_multiplier: standard deviation of the noise that was planned, in clip norms.
        rounds: number of such releases.
        sampling: the sampling that may be claimed; none unless the caller states one.
        relation: the neighbouring relation.
        unit: whose presence is protected.
        clip: the clip norm C, in the units of the update. It does not change the cost.
        cohort: units asked in a release; 0 if unknown. It does not change the cost.
        realised_noise: the noise that was really added, in clip norms, when dropouts or missing
            shares made it differ from the plan; it is what counts.
        mechanism: how the noise is made.

    Raises:
        AnabranchError: AB-903 the noise is not positive, AB-904 the sampling rate is not in (0, 1],
            AB-906 the number of rounds is not positive, AB-907 sampling and relation do not go
            together.

    >>> GaussianEvent(4.0, relation=Relation.REPLACE_ONE).noise_to_sensitivity
    2.0
    """

    noise_multiplier: float
    rounds: int = 1
    sampling: Sampling = field(default_factory=NoSampling)
    relation: Relation = Relation.ADD_OR_REMOVE
    unit: Unit = Unit.CLIENT
    clip: float = 1.0
    cohort: int = 0
    realised_noise: float | None = None
    mechanism: Mechanism = Mechanism.GAUSSIAN

    def __post_init__(self) -> None:
        for name, value in (("noise multiplier", self.noise), ("clip norm", self.clip)):
            if not (value > 0 and math.isfinite(value)):
                raise AnabranchError(
                    "AB-903",
                    f"the {name} is {value:g}; without a positive, finite one nothing is private.",
                    fix="give a positive number, or ask `anabranch privacy calibrate` for one.",
                )
        if self.rounds < 1:
            raise AnabranchError(
                "AB-906",
                f"the number of rounds is {self.rounds}.",
                fix="count every release of the run: at least 1.",
            )
        if isinstance(self.sampling, FixedSizeSampling) and (
            self.relation is Relation.ADD_OR_REMOVE
        ):
            raise AnabranchError(
                "AB-907",
                "sampling without replacement has no meaning under add-or-remove: with one unit "
                "more or less the sampling rate itself would change.",
                fix="use the relation replace-one (or zero-out), or Poisson sampling.",
            )

    @property
    def noise(self) -> float:
        """The noise that counts, in clip norms: the realised one where it is known."""
        return self.noise_multiplier if self.realised_noise is None else self.realised_noise

    @property
    def noise_to_sensitivity(self) -> float:
        """Standard deviation of the noise divided by what one unit can move the sum."""
        return self.noise / self.relation.sensitivity
