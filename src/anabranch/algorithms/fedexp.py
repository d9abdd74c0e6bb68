r"""FedExP: the server step grows when the clients disagree about the direction.

Jhunjhunwala, Wang, Joshi, "FedExP: Speeding Up Federated Averaging via Extrapolation", ICLR 2023,
Algorithm 1, with D = sum_i p_i Delta_i::

    server:     eta = max(1, sum_i p_i ||Delta_i||^2 / (2 (||D||^2 + epsilon)))
                w   <- w + eta_s * eta * D

The iterates swing around the valley, so what is evaluated is the mean of the last two. With few
clients or many local steps eta stays 1 and this is FedAvg. The squared norms are a section of
their own, folded in float64, so no single norm needs to be seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pydantic import Field

from anabranch.algorithms.base import (
    Algorithm,
    Broadcast,
    ClientMemory,
    LocalWork,
    Requirement,
    RoundContext,
    SectionValues,
    ServerState,
    elementwise,
)
from anabranch.updates.norm import squared_norm
from anabranch.updates.sections import Section, Vector, Weighting
from anabranch.updates.total import Total

__all__ = ["FedExP", "FedExPState"]


@dataclass(frozen=True)
class FedExPState(ServerState):
    """The last two iterates."""

    previous: Vector


class FedExP(Algorithm):
    """FedAvg with an extrapolated server step."""

    name: ClassVar[str] = "fedexp"
    state_type: ClassVar[type[ServerState]] = FedExPState

    epsilon: float = Field(
        default=1e-3, gt=0, json_schema_extra={"unit": "squared norm of an update"}
    )
    """Keeps the step finite when the mean update vanishes; try 0.001 to 0.1."""

    def requirement(self) -> Requirement:
        return Requirement(individual_norms=True)

    def sections(self, dim: int) -> tuple[Section, ...]:
        """The delta and its squared Euclidean norm, both by weight."""
        return (
            Section.vector("delta", dim),
            Section.statistic("sq_norm", weighting=Weighting.BY_WEIGHT),
        )

    def init(self, model: Vector) -> FedExPState:
        return FedExPState(model, previous=model)

    def client_update(
        self, broadcast: Broadcast, memory: ClientMemory, work: LocalWork
    ) -> tuple[SectionValues, ClientMemory]:
        return {"delta": work.delta, "sq_norm": squared_norm(work.delta)}, {}

    def extrapolation(self, total: Total) -> float:
        """The step eta, at least 1."""
        mean_square = float(total.mean("sq_norm")[0])
        square_of_mean = squared_norm(total.sums["delta"]) / total.denominator("delta") ** 2
        return max(1.0, mean_square / (2 * (square_of_mean + self.epsilon)))

    def server_update(self, state: ServerState, total: Total, context: RoundContext) -> ServerState:
        rate = self.server_learning_rate * context.rate_factor * self.extrapolation(total)
        scale = rate / total.denominator("delta")
        (model,) = elementwise(
            lambda w, sum_delta: (w + scale * sum_delta,), state.model, total.sums["delta"]
        )
        return FedExPState(model, previous=state.model)

    def evaluated_model(self, state: ServerState) -> Vector:
        """The mean of the last two iterates (of the first one before round 1)."""
        state = FedExPState.of(state)
        (mean,) = elementwise(lambda a, b: ((a + b) / 2,), state.model, state.previous)
        return mean
