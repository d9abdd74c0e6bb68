r"""FedNova: normalised averaging, so that clients may do different amounts of work.

Wang, Liu, Liang, Joshi, Poor, "Tackling the Objective Inconsistency Problem in Heterogeneous
Federated Optimization", NeurIPS 2020, section 4::

    client i:   Delta_i = - eta sum_k a_ik g_ik,    a_i = ||a_i||_1  (the real local optimizer's)
    server:     tau = sum_i p_i a_i,     w <- w + eta_s * tau * sum_i p_i Delta_i / a_i

For SGD a_i is the number of steps K_i; with momentum rho it is
[K - rho (1 - rho^K) / (1 - rho)] / (1 - rho); with a proximal term (1 - (1 - eta mu)^K) / (eta mu).
The learner's `gradient_coefficient` computes it for what was really run; a wrong a_i silently
rescales a client.
"""

from __future__ import annotations

from typing import ClassVar

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
from anabranch.updates.sections import Section, Weighting
from anabranch.updates.total import Total

__all__ = ["FedNova"]


class FedNova(Algorithm):
    """Averaging of updates that are divided by the client's own amount of work."""

    name: ClassVar[str] = "fednova"

    mu: float = Field(default=0.0, ge=0, json_schema_extra={"unit": "1 / learning rate"})
    """Strength of an optional proximal term in local training (FedProx's); 0 leaves it out.
    Useful values are those of FedProx and below."""

    def requirement(self) -> Requirement:
        return Requirement(known_coefficients=True)

    def sections(self, dim: int) -> tuple[Section, ...]:
        """Delta_i / a_i and a_i, both by weight."""
        return (
            Section.vector("delta", dim),
            Section.statistic("coefficient", weighting=Weighting.BY_WEIGHT),
        )

    def client_correction(self, broadcast: Broadcast, memory: ClientMemory) -> Correction:
        return Correction(pull=self.mu)

    def client_update(
        self, broadcast: Broadcast, memory: ClientMemory, work: LocalWork
    ) -> tuple[SectionValues, ClientMemory]:
        (normalised,) = elementwise(lambda delta: (delta / work.coefficient,), work.delta)
        return {"delta": normalised, "coefficient": float(work.coefficient)}, {}

    def server_update(self, state: ServerState, total: Total, context: RoundContext) -> ServerState:
        effective_steps = float(total.mean("coefficient")[0])
        rate = self.server_learning_rate * context.rate_factor * effective_steps
        scale = rate / total.denominator("delta")
        (model,) = elementwise(
            lambda w, sum_normalised: (w + scale * sum_normalised,),
            state.model,
            total.sums["delta"],
        )
        return ServerState(model)
