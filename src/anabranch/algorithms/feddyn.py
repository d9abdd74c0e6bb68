r"""FedDyn: a dynamic regulariser makes the clients' optima agree with the global one.

Acar, Zhao, Matas Navarro, Mattina, Whatmough, Saligrama, "Federated Learning Based on Dynamic
Regularization", ICLR 2021, Algorithm 1::

    client i:   minimises f_i(v) - <h_i, v> + alpha/2 ||v - w||^2,
                so each gradient is g - h_i + alpha (v - w)
                h_i <- h_i - alpha Delta_i
    server:     h  <- h - (alpha/N) sum_{i in S} Delta_i               N: *all* clients
                w  <- w + (1/|S|) sum_{i in S} Delta_i - h / alpha

h is the mean of the h_i of all clients; where the model rests it is zero, every h_i is the client's
own gradient there, and so the gradients add up to zero: a stationary point of the uniform mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from pydantic import Field

from anabranch.algorithms.base import (
    Algorithm,
    Broadcast,
    ClientMemory,
    Correction,
    LocalWork,
    Requirement,
    RoundContext,
    SectionValues,
    ServerState,
    elementwise,
)
from anabranch.updates.sections import Section, Statistics, Vector, Weighting
from anabranch.updates.total import Total

__all__ = ["FedDyn", "FedDynState"]


@dataclass(frozen=True)
class FedDynState(ServerState):
    """The model and the mean of the clients' gradient estimates."""

    gradient: Vector


class FedDyn(Algorithm):
    """Dynamic regularisation."""

    name: ClassVar[str] = "feddyn"
    state_type: ClassVar[type[ServerState]] = FedDynState

    server_learning_rate: float = Field(
        default=1.0, gt=0, le=1, json_schema_extra={"unit": "factor on the step"}
    )
    """Damping of the server's whole step, mean update and -h/alpha alike; the paper has 1. Times
    the plan's server schedule."""
    alpha: float = Field(default=0.1, gt=0, json_schema_extra={"unit": "1 / learning rate"})
    """Strength of the regulariser; try 0.001, 0.01, 0.1. Small values react fast and can make h
    grow without bound."""

    def requirement(self) -> Requirement:
        return Requirement(uniform_mean=True, client_memory=True)

    def sections(self, dim: int) -> tuple[Section, ...]:
        return (Section.vector("delta", dim, Weighting.UNIFORM),)

    def memory_sections(self, dim: int) -> tuple[Section, ...]:
        """The client's gradient estimate h_i."""
        return (Section.vector("gradient", dim),)

    def init(self, model: Vector) -> FedDynState:
        return FedDynState(model, gradient=np.zeros_like(model))

    def client_correction(self, broadcast: Broadcast, memory: ClientMemory) -> Correction:
        return Correction(pull=self.alpha, drift=-memory["gradient"])

    def client_update(
        self, broadcast: Broadcast, memory: ClientMemory, work: LocalWork
    ) -> tuple[SectionValues, ClientMemory]:
        (gradient,) = elementwise(
            lambda h, delta: (h - self.alpha * delta,), memory["gradient"], work.delta
        )
        return {"delta": work.delta}, {"gradient": gradient}

    def server_update(self, state: ServerState, total: Total, context: RoundContext) -> ServerState:
        state = FedDynState.of(state)
        rate = self.server_learning_rate * context.rate_factor

        def rule(w: Statistics, h: Statistics, sum_delta: Statistics) -> tuple[Statistics, ...]:
            h = h - self.alpha * sum_delta / context.clients
            return w + rate * (sum_delta / total.contributors - h / self.alpha), h

        model, gradient = elementwise(rule, state.model, state.gradient, total.sums["delta"])
        return FedDynState(model, gradient)
