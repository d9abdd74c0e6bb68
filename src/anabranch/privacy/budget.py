"""A privacy budget as a planned resource: how it is dealt to rounds, and when it will be used up.

A budget is spent in *cost*: for Gaussian releases without sampling the squares of 1 / (noise /
sensitivity) add up exactly (they are one Gaussian release, Dong, Roth and Su 2022, "Gaussian
Differential Privacy", corollary 3.3), so a share of the budget is a share of that sum, and the
noise multiplier of a round is the base noise divided by the square root of its relative share.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from anabranch.values import Value

__all__ = [
    "AdaptiveAllocation",
    "Allocation",
    "DecayingAllocation",
    "ParticipationLimit",
    "Projection",
    "Shares",
    "UniformAllocation",
    "projection",
]


class UniformAllocation(Value):
    """Every round gets the same share of the budget."""

    kind: Literal["uniform"] = "uniform"

    def weight(self, round_: int, rounds: int, progress: Sequence[float] = ()) -> float:
        """Relative share of the budget of ``round_`` (from 1) of ``rounds``.

        >>> UniformAllocation().weight(3, 10)
        1.0
        """
        return 1.0


class DecayingAllocation(Value):
    """The share changes by one factor a round; above 1, late rounds are less noisy."""

    kind: Literal["decaying"] = "decaying"
    factor: float = Field(default=1.02, gt=0.5, lt=2, json_schema_extra={"unit": "factor a round"})
    """Share of a round divided by the share of the round before: above 1 early rounds are noisier,
    below 1 late ones are."""

    def weight(self, round_: int, rounds: int, progress: Sequence[float] = ()) -> float:
        """Relative share of the budget of ``round_`` (from 1) of ``rounds``.

        >>> round(DecayingAllocation(factor=1.1).weight(3, 10), 6)
        1.21
        """
        return math.pow(self.factor, round_ - 1)


class AdaptiveAllocation(Value):
    """Rounds get more of the budget once validation stops improving.

    The share starts low and is multiplied by ``boost`` each time when the validation metric, which
    must itself be public or released through the ledger, has not improved for ``patience``
    evaluations. What is left is dealt out so that the run never exceeds its budget.
    """

    kind: Literal["adaptive"] = "adaptive"
    boost: float = Field(default=1.5, gt=1, le=4, json_schema_extra={"unit": "factor"})
    """Multiplied on the share when progress stops."""
    patience: int = Field(default=3, ge=1, json_schema_extra={"unit": "evaluations"})
    """Evaluations without improvement after which the share is raised."""
    most: float = Field(
        default=8.0, ge=1, le=64, json_schema_extra={"unit": "times the first share"}
    )
    """Largest share of a round, as a multiple of the first."""

    def weight(self, round_: int, rounds: int, progress: Sequence[float] = ()) -> float:
        """Relative share of the budget of ``round_``.

        Args:
            round_: the round, from 1.
            rounds: rounds of the run.
            progress: values of the validation metric so far, more is better, in order.

        >>> AdaptiveAllocation(patience=2).weight(5, 10, [0.5, 0.6, 0.6, 0.6])
        1.5
        """
        best, waited, share = -math.inf, 0, 1.0
        for value in progress:
            if value > best:
                best, waited = value, 0
                continue
            waited += 1
            if waited == self.patience:
                share, waited = min(share * self.boost, self.most), 0
        return share


Allocation: TypeAlias = Annotated[
    UniformAllocation | DecayingAllocation | AdaptiveAllocation, Field(discriminator="kind")
]
"""How a run's budget is dealt to its rounds, told apart by ``kind``."""


@dataclass(frozen=True)
class ParticipationLimit:
    """How often, and how soon again, one unit may take part.

    Attributes:
        most: rounds over the whole run.
        separation: least difference between the numbers of two of its rounds.
    """

    most: int
    separation: int = 1

    def allows(self, rounds: Sequence[int], round_: int) -> bool:
        """Whether a unit that took part in ``rounds`` may take part in ``round_`` as well.

        >>> limit = ParticipationLimit(most=2, separation=5)
        >>> limit.allows([1], 5), limit.allows([1], 6), limit.allows([1, 6], 11)
        (False, True, False)
        """
        near = any(abs(round_ - other) < self.separation for other in rounds)
        return len(rounds) < self.most and not near


@dataclass(frozen=True)
class Shares:
    """A budget of plain Gaussian releases, dealt to rounds.

    The budget is a total share S = 1 / z^2, z the noise-to-sensitivity of the one release that all
    together are. Round t gets s_t, its noise-to-sensitivity is 1 / sqrt(s_t). A unit that takes
    part in at most k rounds costs at most the k largest shares, so these may add up to S.

    Attributes:
        total: S.
        rounds: of the run.
        participations: k; at most the rounds.
        allocation: how it is dealt.
    """

    total: float
    rounds: int
    participations: int
    allocation: Allocation

    def planned(self) -> tuple[float, ...]:
        """The shares of all rounds, for an allocation that is known beforehand.

        >>> Shares(1.0, 4, 2, UniformAllocation()).planned()
        (0.5, 0.5, 0.5, 0.5)
        """
        weights = [self.allocation.weight(t, self.rounds) for t in range(1, self.rounds + 1)]
        largest = math.fsum(sorted(weights)[-self.participations :])
        return tuple(self.total * weight / largest for weight in weights)

    def share(self, round_: int, progress: Sequence[float], spent: Sequence[float]) -> float:
        """The share of ``round_``, given what earlier rounds spent.

        An adaptive allocation starts at half of the uniform share, so that there is something to
        raise; it never takes so much that the rounds after it could not have that half as well.

        Args:
            round_: from 1.
            progress: validation metric so far, more is better.
            spent: shares of the rounds before.
        """
        if not isinstance(self.allocation, AdaptiveAllocation):
            return self.planned()[round_ - 1]
        first = self.total / self.participations / 2
        wanted = first * self.allocation.weight(round_, self.rounds, progress)
        later = min(self.participations - 1, self.rounds - round_)
        before = sorted(spent, reverse=True)[: self.participations - 1]
        # Any k rounds must fit: the dearest so far with this one, and this one with cheap ones.
        mixed = sorted([*before, *[first] * later], reverse=True)[: self.participations - 1]
        return max(0.0, min(wanted, self.total - math.fsum(mixed)))


@dataclass(frozen=True)
class Projection:
    """When a budget will be used up.

    Attributes:
        rounds: rounds that the budget still allows at the present noise.
        epsilon: after the planned rounds.
        exhausted_at: round after which the next one would exceed the budget; None if that is not
            within the planned rounds.
    """

    rounds: int
    epsilon: float
    exhausted_at: int | None


def projection(
    epsilon_after: Callable[[int], float], budget: float, done: int, planned: int
) -> Projection:
    """How far a budget reaches.

    Args:
        epsilon_after: epsilon after so many rounds; it never falls.
        budget: epsilon that may be spent.
        done: rounds so far.
        planned: rounds of the whole run.

    >>> projection(lambda rounds: rounds / 10, budget=1.0, done=4, planned=12)
    Projection(rounds=6, epsilon=1.2, exhausted_at=10)
    """
    low, high = done, max(planned, done + 1)
    while epsilon_after(high) <= budget and high < 1 << 20:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if epsilon_after(middle) <= budget else (low, middle)
    exhausted = low if low < planned else None
    return Projection(low - done, epsilon_after(planned), exhausted)
