"""Whether a model can be learnt through the noise: an honest answer before anything starts."""

from __future__ import annotations

import math

from anabranch.errors import AnabranchError

__all__ = ["check_reachable", "noise_to_signal"]


def noise_to_signal(error: float, dim: int, cohort: int, rounds: int) -> float:
    """Norm of the noise in the last model, divided by the farthest that the updates could move it.

    If every update of every round had the largest norm and the same direction, the model would
    move by ``rounds`` clip norms. The noise in it has norm ``error * sqrt(dim) / cohort``.

    Args:
        error: standard deviation of the noise in the sum over all rounds, in clip norms: z times
            the root of the rounds for fresh noise, less for correlated noise.
        dim: coordinates.
        cohort: planned clients in a round.
        rounds: of the run.

    >>> round(noise_to_signal(9.0, 7850, 100, 100), 3)
    0.08
    """
    return error * math.sqrt(dim) / (cohort * rounds)


def check_reachable(error: float, dim: int, cohort: int, rounds: int, unit: str) -> None:
    """Refuse a run whose model would be noise.

    Raises:
        AnabranchError: AB-942 when the noise is at least as large as any signal can be.
    """
    ratio = noise_to_signal(error, dim, cohort, rounds)
    if ratio < 1:
        return
    wanted = math.ceil(cohort * ratio * 10)
    raise AnabranchError(
        "AB-942",
        f"this promise cannot be kept usefully: {cohort} {unit}s a round hide one of them only in "
        f"noise {ratio:.3g} times as large as the farthest that {rounds} rounds could move the "
        f"{dim} parameters.",
        fix=f"take about {wanted} {unit}s a round, or a larger epsilon, or fewer parameters. With "
        "few sites protect the people inside them instead: privacy.unit = 'example' or 'subject' "
        "with the mechanism 'dp-sgd'.",
        kept="Nothing was started, and nothing was spent.",
    )
