"""From the table ``[privacy]`` to the mechanism that clients and coordinator run."""

from __future__ import annotations

import math

from anabranch.fleet.selection import largest_cohort
from anabranch.plan.privacy import CentralGaussian, DistributedNoise, MatrixMechanism
from anabranch.plan.promise import Promise
from anabranch.plan.schema import Plan
from anabranch.privacy import mechanisms
from anabranch.privacy.events import PoissonSampling
from anabranch.privacy.ledger import MatrixEvent
from anabranch.privacy.mechanisms import Mechanism

__all__ = ["mechanism_of", "most_updates"]


def most_updates(plan: Plan, clients: int) -> int:
    """The most updates that one round can merge: with coins more may fall than are wanted."""
    if plan.privacy is not None and getattr(plan.privacy.mechanism, "sampling", "") == "poisson":
        return min(clients, largest_cohort(plan.rounds.wanted(clients)))
    return plan.rounds.most(clients)


def mechanism_of(plan: Plan, promise: Promise, dim: int, clients: int) -> Mechanism | None:
    """The mechanism of a plan; None for noise that is made inside local training (DP-SGD).

    Args:
        plan: with a table ``[privacy]``.
        promise: its numbers.
        dim: coordinates of an update.
        clients: enrolled clients.

    Raises:
        AnabranchError: AB-932 to AB-935, the numbers do not go together.
        ValueError: the plan has no ``[privacy]``.
    """
    if plan.privacy is None:
        raise ValueError("the plan promises nothing")
    stated, cohort = plan.privacy.mechanism, plan.rounds.wanted(clients)
    if isinstance(stated, MatrixMechanism):
        charge = promise.model_charge(1)
        if not isinstance(charge, MatrixEvent):
            raise TypeError("a matrix mechanism is charged as one")
        return mechanisms.MatrixNoise(dim, cohort, stated.clip, charge.bands)
    if isinstance(stated, CentralGaussian):
        central = mechanisms.CentralNoise(dim, cohort, stated.clip)
        central.check(promise.model_charge(1).noise_multiplier)
        return central
    if isinstance(stated, DistributedNoise):
        return _distributed(plan, stated, promise, dim, clients)
    return None


def _distributed(
    plan: Plan, stated: DistributedNoise, promise: Promise, dim: int, clients: int
) -> mechanisms.DistributedNoise:
    cohort = plan.rounds.wanted(clients)
    survivors = math.ceil(cohort * (1 - stated.dropout_share))
    if isinstance(promise.sampling, PoissonSampling):
        # Few coins may fall: a cohort below this happens in one round of 30,000.
        survivors = math.ceil((cohort - 4 * math.sqrt(cohort)) * (1 - stated.dropout_share))
    return mechanisms.DistributedNoise(
        dim=dim,
        cohort=cohort,
        most=most_updates(plan, clients),
        fewest=max(survivors, 1),
        corrupt=math.ceil(cohort * stated.corrupt_share),
        clip=stated.clip,
        multiplier=_rounded_up(promise.model_charge(1).noise_multiplier),
        bits=stated.bits,
        noise=stated.noise,
    )


def _rounded_up(multiplier: float) -> float:
    """Five digits, upwards: all clients must compute the same scale.

    >>> _rounded_up(3.73063163)
    3.7307
    """
    unit = 10.0 ** (math.floor(math.log10(multiplier)) - 4)
    return round(math.ceil(multiplier / unit) * unit, 12)
