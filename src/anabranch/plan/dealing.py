"""How a promise is dealt to the rounds of a plan: noise and epsilon after each, before training.

What a run will really have spent stands in the ledger (`anabranch privacy status`); this is the
same arithmetic on rounds that have not happened.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from anabranch.errors import AnabranchError
from anabranch.plan.privacy import LocalDpSgd
from anabranch.plan.promise import Promise
from anabranch.plan.schema import Plan
from anabranch.privacy.budget import AdaptiveAllocation
from anabranch.privacy.events import GaussianEvent
from anabranch.privacy.ledger import Charge, MatrixEvent, charges_of, epsilon_of

__all__ = ["Dealt", "dealt", "shown_rounds"]

_SHOWN = 10


@dataclass(frozen=True)
class Dealt:
    """A round's part of the budget.

    Attributes:
        round: from 1.
        noise: standard deviation of the round's own noise, in clip norms; with correlated noise
            before it is correlated.
        epsilon: that the dearest unit has spent on the model after this round.
    """

    round: int
    noise: float
    epsilon: float


def shown_rounds(count: int) -> tuple[int, ...]:
    """The first round and every tenth part of a run.

    >>> shown_rounds(20)
    (1, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20)
    """
    parts = {math.ceil(count * part / _SHOWN) for part in range(1, _SHOWN + 1)}
    return tuple(sorted({1, *parts}))


def dealt(plan: Plan, promise: Promise, *, resting: bool = False) -> tuple[Dealt, ...]:
    """What the shown rounds of a run cost and have; fewer when the budget does not last.

    Nothing for noise that sites add, each for itself: it has its own lines.

    Args:
        plan: with a table ``[privacy]``.
        promise: of the plan.
        resting: for an adaptive allocation, whether the watched metric rests from the first
            evaluation on; otherwise it never does. Other allocations do not look at it.

    Raises:
        AnabranchError: AB-901 dp-accounting is not installed.
    """
    if plan.privacy is None or isinstance(plan.privacy.mechanism, LocalDpSgd):
        return ()
    charges: list[Charge] = []
    spent: list[float] = []
    found = []
    shown = shown_rounds(plan.rounds.count)
    for round_ in range(1, plan.rounds.count + 1):
        progress = _progress(plan, round_, resting)
        try:
            charge = promise.model_charge(round_, progress, spent)
        except AnabranchError as error:
            if error.code != "AB-920":
                raise
            break
        charges.append(charge)
        if isinstance(charge, GaussianEvent):
            spent.append(1 / charge.noise_to_sensitivity**2)
        if round_ in shown:
            found.append(Dealt(round_, charge.noise_multiplier, _epsilon(promise, charges, spent)))
    return tuple(found)


def _progress(plan: Plan, round_: int, resting: bool) -> Sequence[float]:
    """The metric as it stands before ``round_``: it rose at every evaluation, or never."""
    privacy = plan.privacy
    if privacy is None or not isinstance(privacy.allocation, AdaptiveAllocation):
        return ()
    times = sum(plan.evaluation.due(earlier, plan.rounds.count) for earlier in range(1, round_))
    return [0.0] * times if resting else [float(number) for number in range(times)]


def _epsilon(promise: Promise, charges: Sequence[Charge], spent: Sequence[float]) -> float:
    """Epsilon of the unit that took part in the dearest rounds so far."""
    last = charges[-1]
    if isinstance(last, MatrixEvent):
        return epsilon_of(charges_of([last]), promise.delta)
    if promise.shares is None:
        most = promise.limit.most if promise.limit is not None else len(charges)
        return epsilon_of([replace(last, rounds=min(most, len(charges)))], promise.delta)
    dearest = math.fsum(sorted(spent)[-promise.shares.participations :])
    noise = last.relation.sensitivity / math.sqrt(dearest)
    return epsilon_of([replace(last, noise_multiplier=noise, rounds=1)], promise.delta)
