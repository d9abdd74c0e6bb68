"""From the table ``[privacy]`` to the mechanism that clients and coordinator run."""

from __future__ import annotations

import math
from dataclasses import replace

from anabranch.data.bounded import bound, length, require_bounds
from anabranch.data.schema import DataSchema
from anabranch.errors import AnabranchError
from anabranch.fleet.selection import largest_cohort
from anabranch.plan.privacy import (
    CentralGaussian,
    DistributedNoise,
    LocalDpSgd,
    MatrixMechanism,
)
from anabranch.plan.promise import Promise, promise_of
from anabranch.plan.schema import Plan
from anabranch.privacy import mechanisms
from anabranch.privacy.accounting import banded_toeplitz, rdp_epsilon
from anabranch.privacy.events import PoissonSampling
from anabranch.privacy.ledger import Charge, MatrixEvent, charges_of
from anabranch.privacy.mechanisms import Mechanism

__all__ = [
    "check_promise",
    "mechanism_of",
    "most_updates",
    "scores_of",
    "site_scores_of",
    "statistics_of",
]


def scores_of(plan: Plan, classes: int) -> mechanisms.PrivateScores | None:
    """What clients of a private run tell of the model's quality; None where they tell nothing.

    Raises:
        AnabranchError: AB-937 the task has no accuracy, which is all that they may tell.
    """
    if plan.privacy is None or plan.evaluation.on not in ("clients", "both"):
        return None
    if isinstance(plan.privacy.mechanism, LocalDpSgd):
        return None  # a site tells its units' scores, see `site_scores_of`
    if not classes:
        raise AnabranchError(
            "AB-937",
            "clients of a private run tell their accuracy and nothing else, and a regression has "
            "none.",
            fix="measure on examples of the coordinator: evaluation.on = 'holdout'.",
            kept="Nothing was started.",
        )
    return mechanisms.PrivateScores()


def site_scores_of(plan: Plan, classes: int) -> mechanisms.SiteScores | None:
    """What sites that add the noise tell of the model's quality; None where they tell nothing."""
    if plan.privacy is None or plan.evaluation.on not in ("clients", "both"):
        return None
    if not isinstance(plan.privacy.mechanism, LocalDpSgd):
        return None
    return mechanisms.SiteScores(plan.privacy.loss_bound, decides=classes > 0)


def statistics_of(plan: Plan, schema: DataSchema) -> mechanisms.BoundedSums | None:
    """Statistics of columns as a release; None where no budget pays for them.

    Raises:
        AnabranchError: AB-989 a column has no range or no codes.
    """
    if plan.privacy is None or not plan.privacy.statistics_share:
        return None
    require_bounds(schema)
    return mechanisms.BoundedSums("statistics", length(schema), bound(schema))


def most_updates(plan: Plan, clients: int) -> int:
    """The most updates that one round can merge: with coins more may fall than are wanted."""
    if plan.privacy is not None and getattr(plan.privacy.mechanism, "sampling", "") == "poisson":
        return min(clients, largest_cohort(plan.rounds.wanted(clients)))
    return plan.rounds.most(clients)


def mechanism_of(plan: Plan, dim: int, clients: int | None = None) -> Mechanism | None:
    """The mechanism of a plan; None without one, and where noise is made inside local training.

    Args:
        plan: what to do.
        dim: coordinates of an update.
        clients: enrolled clients; left out at a client, which knows its own half alone: noise in
            parts then needs ``privacy.population_size``, unless the cohort is a plain number.

    Raises:
        AnabranchError: AB-932 to AB-935, the numbers do not go together; AB-901 dp-accounting is
            not installed (noise of clients without ``noise_multiplier``).
    """
    if plan.privacy is None:
        return None
    if clients is None:
        stated_size, cohort = plan.privacy.population_size, plan.rounds.cohort
        clients = stated_size or (cohort if isinstance(cohort, int) else 1)
    stated, cohort = plan.privacy.mechanism, plan.rounds.wanted(clients)
    if isinstance(stated, MatrixMechanism):
        rounds = plan.rounds.count
        separation = stated.separation or max(1, rounds // stated.participations)
        bands = min(stated.bands or separation, separation, rounds)
        return mechanisms.MatrixNoise(dim, cohort, stated.clip, bands)
    if isinstance(stated, CentralGaussian):
        return mechanisms.CentralNoise(dim, cohort, stated.clip)
    if isinstance(stated, DistributedNoise):
        return _distributed(plan, stated, dim, clients)
    return None


def _distributed(
    plan: Plan, stated: DistributedNoise, dim: int, clients: int
) -> mechanisms.DistributedNoise:
    cohort, promise = plan.rounds.wanted(clients), promise_of(plan, clients)
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
        allowance=_renyi_allowance(promise) if stated.noise == "skellam" else 1.0,
    )


def _renyi_allowance(promise: Promise) -> float:
    """How much more noise keeps the promise by Rényi divergences, in steps of a hundredth.

    Skellam noise is as good as Gaussian noise there (up to 3 / variance in steps), but not known to
    be on the exact curve that everything else is counted with.
    """
    line = promise.lines[0]
    events = charges_of(line.charges, line.participations)
    factor = 1.01
    while True:
        noisier = [replace(event, noise_multiplier=event.noise * factor) for event in events]
        if rdp_epsilon(noisier, promise.delta) <= promise.epsilon:
            return factor
        factor = round(factor + 0.01, 2)


def check_promise(plan: Plan, promise: Promise, mechanism: Mechanism, clients: int) -> None:
    """Refuse, before anything is spent, a promise that leaves nothing to learn.

    Raises:
        AnabranchError: AB-933 a clipping bit that costs more than a round may; AB-942 the noise is
            larger than any signal.
    """
    charge = promise.model_charge(1)
    if isinstance(mechanism, mechanisms.CentralNoise):
        mechanism.check(charge.noise_multiplier)
    cohort, rounds = plan.rounds.wanted(clients), plan.rounds.count
    unit = plan.privacy.unit.value if plan.privacy is not None else "client"
    mechanisms.check_reachable(_error(charge, rounds), mechanism.dim, cohort, rounds, unit)


def _error(charge: Charge, rounds: int) -> float:
    """Standard deviation of the noise in the sum over all rounds, in clip norms."""
    if not isinstance(charge, MatrixEvent):
        return charge.noise_multiplier * math.sqrt(rounds)
    # One participation everywhere: the error itself does not depend on who comes how often.
    made = banded_toeplitz(rounds, rounds, 1, charge.bands)
    return charge.noise_multiplier * made.max_error / made.sensitivity


def _rounded_up(multiplier: float) -> float:
    """Five digits, upwards: all clients must compute the same scale.

    >>> _rounded_up(3.73063163)
    3.7307
    """
    unit = 10.0 ** (math.floor(math.log10(multiplier)) - 4)
    return round(math.ceil(multiplier / unit) * unit, 12)
