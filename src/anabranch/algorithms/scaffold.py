r"""SCAFFOLD: control variates remove the drift of the clients.

Karimireddy, Kale, Mohri, Reddi, Stich, Suresh, "SCAFFOLD: Stochastic Controlled Averaging for
Federated Learning", ICML 2020, Algorithm 1 with option II::

    client i:   each gradient is g - c_i + c
                c_i+ = c_i - c - Delta_i / s_i        s_i: sum of the learning rates of its steps
    server:     w  <- w + eta_s * (1/|S|) sum_{i in S} Delta_i
                c  <- c + (1/N) sum_{i in S} (c_i+ - c_i)              N: *all* clients

Both means are uniform. With the factor 1/N the server's c is the mean of the c_i of all clients in
every round; with 1/|S|, a common mistake, it is not, and training collapses at low participation.
With K equal steps, s_i = K eta and option II is the paper's formula.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

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
from anabranch.updates.sections import Section, Vector, Weighting
from anabranch.updates.total import Total

__all__ = ["Scaffold", "ScaffoldState"]


@dataclass(frozen=True)
class ScaffoldState(ServerState):
    """The model and the server's control variate."""

    control: Vector


class Scaffold(Algorithm):
    """Stochastic controlled averaging."""

    name: ClassVar[str] = "scaffold"
    state_type: ClassVar[type[ServerState]] = ScaffoldState

    def requirement(self) -> Requirement:
        return Requirement(uniform_mean=True, plain_sgd=True, client_memory=True)

    def sections(self, dim: int) -> tuple[Section, ...]:
        """The client's delta and the change of its control variate, both added without weight."""
        return (
            Section.vector("delta", dim, Weighting.UNIFORM),
            Section.vector("control", dim, Weighting.UNIFORM),
        )

    def broadcast_sections(self, dim: int) -> tuple[Section, ...]:
        return (Section.vector("model", dim), Section.vector("control", dim))

    def memory_sections(self, dim: int) -> tuple[Section, ...]:
        """The client's own control variate c_i."""
        return (Section.vector("control", dim),)

    def init(self, model: Vector) -> ScaffoldState:
        return ScaffoldState(model, control=np.zeros_like(model))

    def broadcast(self, state: ServerState) -> Broadcast:
        state = ScaffoldState.of(state)
        return {"model": state.model, "control": state.control}

    def client_correction(self, broadcast: Broadcast, memory: ClientMemory) -> Correction:
        return Correction(drift=broadcast["control"] - memory["control"])

    def client_update(
        self, broadcast: Broadcast, memory: ClientMemory, work: LocalWork
    ) -> tuple[SectionValues, ClientMemory]:
        (change,) = elementwise(
            lambda c, delta: (-c - delta / work.step_size_sum,), broadcast["control"], work.delta
        )
        # What is sent is what is added at home: server and client see the same rounded change.
        return {"delta": work.delta, "control": change}, {"control": memory["control"] + change}

    def server_update(self, state: ServerState, total: Total, context: RoundContext) -> ServerState:
        state = ScaffoldState.of(state)
        rate = self.server_learning_rate * context.rate_factor / total.contributors
        model, control = elementwise(
            lambda w, c, sum_delta, sum_change: (
                w + rate * sum_delta,
                c + sum_change / context.clients,
            ),
            state.model,
            state.control,
            total.sums["delta"],
            total.sums["control"],
        )
        return ScaffoldState(model, control)
