r"""FedAdagrad, FedAdam and FedYogi: adaptive steps at the server.

Reddi, Charles, Zaheer, Garrett, Rush, Konečný, Kumar, McMahan, "Adaptive Federated Optimization",
ICLR 2021, Algorithm 2, with D = sum_i p_i Delta_i, squares and roots by coordinate::

    m <- beta1 m + (1 - beta1) D                                            m = 0 at first
    v <- v + D^2                                       FedAdagrad       v = tau^2 at first
    v <- beta2 v + (1 - beta2) D^2                     FedAdam
    v <- v - (1 - beta2) D^2 sign(v - D^2)             FedYogi
    w <- w + eta_s m / (sqrt(v) + tau)

There is no bias correction, as in the paper. D points downhill, so it is added. Each coordinate
moves by at most about eta_s a round whatever the size of D: tune eta_s between 0.001 and 0.1.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from pydantic import Field

from anabranch.algorithms.base import Algorithm, RoundContext, ServerState, elementwise
from anabranch.updates.sections import Statistics, Vector
from anabranch.updates.total import Total

__all__ = ["AdaptiveState", "FedAdagrad", "FedAdam", "FedYogi"]


@dataclass(frozen=True)
class AdaptiveState(ServerState):
    """The model and the first and second moments of the mean update."""

    momentum: Vector
    variance: Vector


class _Adaptive(Algorithm):
    """What the three share: everything but the rule for the second moment."""

    state_type: ClassVar[type[ServerState]] = AdaptiveState

    beta1: float = Field(default=0.9, ge=0, lt=1, json_schema_extra={"unit": "factor per round"})
    """Decay of the first moment; the paper uses 0.9 (FedAdagrad: 0)."""
    tau: float = Field(default=1e-3, gt=0, json_schema_extra={"unit": "size of an update"})
    """Degree of adaptivity: added to the root, and the first v is its square. Smaller adapts more;
    the paper recommends 0.001 and searches 1e-5 to 0.1."""

    @abstractmethod
    def second_moment(self, v: Statistics, square: Statistics) -> Statistics:
        """The next v from the last one and D^2."""

    def init(self, model: Vector) -> AdaptiveState:
        return AdaptiveState(
            model,
            momentum=np.zeros_like(model),
            variance=np.full_like(model, self.tau**2),
        )

    def server_update(self, state: ServerState, total: Total, context: RoundContext) -> ServerState:
        state = AdaptiveState.of(state)
        rate, weight = self.server_learning_rate * context.rate_factor, total.denominator("delta")

        def rule(
            w: Statistics, m: Statistics, v: Statistics, sum_delta: Statistics
        ) -> tuple[Statistics, ...]:
            delta = sum_delta / weight
            m = self.beta1 * m + (1 - self.beta1) * delta
            v = self.second_moment(v, delta * delta)
            return w + rate * m / (np.sqrt(v) + self.tau), m, v

        vectors = (state.model, state.momentum, state.variance, total.sums["delta"])
        return AdaptiveState(*elementwise(rule, *vectors))


class FedAdagrad(_Adaptive):
    """Adaptive steps that only shrink: v adds up every squared mean update."""

    name: ClassVar[str] = "fedadagrad"

    server_learning_rate: float = Field(
        default=0.03, gt=0, json_schema_extra={"unit": "largest step of a coordinate in a round"}
    )
    """eta_s; times the plan's server schedule. Try 0.01 to 0.1."""
    beta1: float = Field(default=0.0, ge=0, lt=1, json_schema_extra={"unit": "factor per round"})
    """Decay of the first moment; the paper uses 0."""

    def second_moment(self, v: Statistics, square: Statistics) -> Statistics:
        return v + square


class _Decaying(_Adaptive):
    """Adam's and Yogi's parameters."""

    server_learning_rate: float = Field(
        default=0.01, gt=0, json_schema_extra={"unit": "typical step of a coordinate in a round"}
    )
    """eta_s; times the plan's server schedule. Try 0.001 to 0.1."""
    beta2: float = Field(default=0.99, ge=0, lt=1, json_schema_extra={"unit": "factor per round"})
    """Decay of the second moment; the paper uses 0.99."""


class FedAdam(_Decaying):
    """Adaptive steps from a moving average of squared mean updates."""

    name: ClassVar[str] = "fedadam"

    def second_moment(self, v: Statistics, square: Statistics) -> Statistics:
        return self.beta2 * v + (1 - self.beta2) * square


class FedYogi(_Decaying):
    """FedAdam whose second moment moves by at most the squared update: it forgets more slowly."""

    name: ClassVar[str] = "fedyogi"

    def second_moment(self, v: Statistics, square: Statistics) -> Statistics:
        return v - (1 - self.beta2) * square * np.sign(v - square)
