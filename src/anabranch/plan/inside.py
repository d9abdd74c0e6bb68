"""What a plan with noise inside sites (DP-SGD) costs each site, before anything is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass

from anabranch.plan.privacy import LocalDpSgd
from anabranch.plan.promise import Promise
from anabranch.plan.schema import Plan
from anabranch.privacy.events import GaussianEvent, PoissonSampling

__all__ = ["SiteSteps", "site_steps"]


@dataclass(frozen=True)
class SiteSteps:
    """The steps of one site.

    Attributes:
        site: its name.
        rate: probability of a unit to be in a step.
        steps: of the whole run.
        noise: standard deviation of the noise on a step's sum, in clip norms.
        ratio: norm of the noise in a step's mean gradient, in clip norms: z sqrt(parameters) /
            batch. The mean of clipped gradients is at most 1 long.
    """

    site: str
    rate: float
    steps: int
    noise: float
    ratio: float


def site_steps(plan: Plan, promise: Promise, dim: int) -> tuple[SiteSteps, ...]:
    """The steps of every site, by name.

    Args:
        plan: with noise inside sites.
        promise: of the plan, with the sites' lines.
        dim: trained parameters.

    Raises:
        ValueError: the plan makes no noise inside sites.
    """
    mechanism = plan.privacy.mechanism if plan.privacy is not None else None
    if not isinstance(mechanism, LocalDpSgd):
        raise ValueError("the plan makes no noise inside sites")
    found = []
    for line in promise.lines:
        for charge in line.charges if line.purpose == "model" else ():
            if not isinstance(charge, GaussianEvent):
                raise TypeError("noise inside a site is charged as Gaussian noise")
            sampling = charge.sampling
            rate = sampling.rate if isinstance(sampling, PoissonSampling) else 1.0
            noise = charge.noise_multiplier
            ratio = noise * math.sqrt(dim) / mechanism.batch
            found.append(SiteSteps(line.site, rate, charge.rounds, noise, ratio))
    return tuple(sorted(found, key=lambda one: one.site))
