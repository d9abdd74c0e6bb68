r"""FedAvgM: server momentum on FedAvg.

Hsu, Qi, Brown, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual
Classification", 2019::

    server:     m <- beta m + sum_i p_i Delta_i,     w <- w + eta_s m            m = 0 at first

A constant mean update is amplified to eta_s / (1 - beta) of it, so eta_s = 1 - beta is FedAvg's
speed and the default here; the paper's eta_s = 1 with beta = 0.9 moves ten times as far.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from pydantic import Field

from anabranch.algorithms.base import Algorithm, RoundContext, ServerState, elementwise
from anabranch.updates.sections import Vector
from anabranch.updates.total import Total

__all__ = ["FedAvgM", "MomentumState"]


@dataclass(frozen=True)
class MomentumState(ServerState):
    """The model and the server's momentum buffer."""

    momentum: Vector


class FedAvgM(Algorithm):
    """Weighted averaging with server momentum."""

    name: ClassVar[str] = "fedavgm"
    state_type: ClassVar[type[ServerState]] = MomentumState

    server_learning_rate: float = Field(
        default=0.1, gt=0, json_schema_extra={"unit": "factor on the momentum buffer"}
    )
    """Step size on the buffer; times the plan's server schedule. 1 - beta is FedAvg's speed."""
    beta: float = Field(default=0.9, ge=0, lt=1, json_schema_extra={"unit": "factor per round"})
    """Part of the buffer that is kept; the paper tries 0, 0.7, 0.9, 0.97, 0.99 and 0.997."""

    def init(self, model: Vector) -> MomentumState:
        return MomentumState(model, momentum=np.zeros_like(model))

    def server_update(self, state: ServerState, total: Total, context: RoundContext) -> ServerState:
        state = MomentumState.of(state)
        rate, weight = self.server_learning_rate * context.rate_factor, total.denominator("delta")

        def rule(w: np.ndarray, m: np.ndarray, sum_delta: np.ndarray) -> tuple[np.ndarray, ...]:
            m = self.beta * m + sum_delta / weight
            return w + rate * m, m

        model, momentum = elementwise(rule, state.model, state.momentum, total.sums["delta"])
        return MomentumState(model, momentum)
