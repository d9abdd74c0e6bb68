"""Learning-rate schedules over rounds, for clients and for the server: one factor a round."""

from __future__ import annotations

import math
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from anabranch.values import Value

__all__ = ["Constant", "Cosine", "Exponential", "Schedule", "Stepwise"]


class Constant(Value):
    """Factor 1 in every round."""

    kind: Literal["constant"] = "constant"

    def factor(self, round_: int, rounds: int) -> float:
        """The factor in round ``round_`` (from 1) of ``rounds``."""
        return 1.0


class Exponential(Value):
    """Factor gamma ** (round - 1)."""

    kind: Literal["exponential"] = "exponential"
    gamma: float = Field(gt=0, le=1, json_schema_extra={"unit": "factor per round"})
    """Multiplied on once a round."""

    def factor(self, round_: int, rounds: int) -> float:
        return float(self.gamma ** (round_ - 1))


class Cosine(Value):
    """Half a cosine from 1 in round 1 to ``final`` in the last round."""

    kind: Literal["cosine"] = "cosine"
    final: float = Field(default=0.0, ge=0, le=1, json_schema_extra={"unit": "factor"})
    """Factor in the last round."""

    def factor(self, round_: int, rounds: int) -> float:
        progress = (round_ - 1) / max(rounds - 1, 1)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


class Stepwise(Value):
    """Factor gamma ** (number of milestones passed)."""

    kind: Literal["stepwise"] = "stepwise"
    milestones: tuple[int, ...] = Field(json_schema_extra={"unit": "rounds"})
    """Rounds after which the factor drops."""
    gamma: float = Field(default=0.1, gt=0, le=1, json_schema_extra={"unit": "factor"})
    """Multiplied on at each milestone."""

    def factor(self, round_: int, rounds: int) -> float:
        return float(self.gamma ** sum(round_ > milestone for milestone in self.milestones))


Schedule: TypeAlias = Annotated[
    Constant | Exponential | Cosine | Stepwise, Field(discriminator="kind")
]
"""Any schedule, told apart by ``kind``."""
