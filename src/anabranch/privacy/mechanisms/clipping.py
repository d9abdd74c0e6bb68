r"""How far one unit can move the sum: a fixed clip norm, or one that follows the updates.

Adaptive clipping (Andrew, Thakkar, McMahan and Ramaswamy 2021, "Differentially Private Learning
with Adaptive Clipping", algorithm 1): every client also says whether its update was not longer than
C_t. With b the noisy share of those that were not,

    C_{t+1} = C_t exp(-eta (b - gamma))

The bits are a release of their own. Sent as +1 or -1 a bit moves their sum by 1, and noise of
standard deviation 2 sigma_b on it is sigma_b on the count. Update and bit together are one Gaussian
release with multiplier z if the update's is (theorem 1 of the paper)

    z_update = (z^-2 - (2 sigma_b)^-2)^(-1/2)
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from anabranch.errors import AnabranchError
from anabranch.values import Value

__all__ = ["AdaptiveClip", "ClipRule", "FixedClip"]

_SMALLEST, _LARGEST = 1e-6, 1e6


class FixedClip(Value):
    """Every update is scaled down to at most this L2 norm."""

    kind: Literal["fixed"] = "fixed"
    norm: float = Field(gt=0, json_schema_extra={"unit": "L2 norm"})
    """Largest norm of one unit's contribution to a round."""

    @property
    def first(self) -> float:
        """The norm of the first round."""
        return self.norm


class AdaptiveClip(Value):
    """The norm follows a quantile of the updates' norms, at its own cost (Andrew et al. 2021).

    After each round C is multiplied by exp(-rate (b - quantile)), b the noisy share of the clients
    whose update was not longer than C. The noise on b is a release in the ledger.
    """

    kind: Literal["adaptive"] = "adaptive"
    initial: float = Field(default=0.1, gt=0, json_schema_extra={"unit": "L2 norm"})
    """The norm of the first round."""
    quantile: float = Field(default=0.5, gt=0, lt=1, json_schema_extra={"unit": "fraction"})
    """Share of the updates that should not be clipped."""
    rate: float = Field(default=0.2, gt=0, le=1, json_schema_extra={"unit": "of the logarithm"})
    """How fast the norm follows."""
    count_noise: float | None = Field(
        default=None, gt=0, json_schema_extra={"unit": "clients, standard deviation"}
    )
    """Noise on the count of unclipped updates. Left out: a twentieth of the cohort."""

    @property
    def first(self) -> float:
        """The norm of the first round."""
        return self.initial

    def noise_on_count(self, cohort: float) -> float:
        """sigma_b: standard deviation of the noise on the count of a cohort.

        >>> AdaptiveClip().noise_on_count(100)
        5.0
        """
        return self.count_noise if self.count_noise is not None else cohort / 20

    def update_noise(self, multiplier: float, cohort: float) -> float:
        """z_update: what is left for the update when both together have ``multiplier``.

        Raises:
            AnabranchError: AB-933 when the count takes the whole budget.

        >>> round(AdaptiveClip().update_noise(1.0, 100), 4)
        1.005
        """
        rest = multiplier**-2 - (2 * self.noise_on_count(cohort)) ** -2
        if rest <= 0:
            raise AnabranchError(
                "AB-933",
                f"noise of {self.noise_on_count(cohort):g} on the count of unclipped updates takes "
                f"the whole budget of a round (noise multiplier {multiplier:.4g}).",
                fix=f"set clip.count_noise above {multiplier / 2:.3g}, take a larger cohort, or "
                "clip at a fixed norm.",
                kept="Nothing was started.",
            )
        return 1 / math.sqrt(rest)

    def after(self, norm: float, unclipped: float) -> float:
        """The next norm, from the noisy share of unclipped updates; kept within 1e-6 and 1e6.

        >>> round(AdaptiveClip(rate=0.2).after(1.0, unclipped=0.0), 4)
        1.1052
        """
        moved = norm * math.exp(-self.rate * (min(max(unclipped, 0.0), 1.0) - self.quantile))
        return min(max(moved, _SMALLEST), _LARGEST)


ClipRule: TypeAlias = Annotated[FixedClip | AdaptiveClip, Field(discriminator="kind")]
"""How far one unit can move the sum of a round."""
