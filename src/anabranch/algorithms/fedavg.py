r"""FedAvg: the weighted mean of the clients' local updates.

McMahan, Moore, Ramage, Hampson, Agüera y Arcas, "Communication-Efficient Learning of Deep Networks
from Decentralized Data", AISTATS 2017, Algorithm 1, with a server step size as in Reddi et al.
2021::

    client i:   w_i = w after K_i local steps,     Delta_i = w_i - w
    server:     w  <- w + eta_s * sum_i p_i Delta_i,     p_i = weight_i / sum of weights
"""

from __future__ import annotations

from typing import ClassVar

from anabranch.algorithms.base import Algorithm, RoundContext, ServerState, elementwise
from anabranch.updates.total import Total

__all__ = ["FedAvg"]


class FedAvg(Algorithm):
    """Weighted averaging of client updates."""

    name: ClassVar[str] = "fedavg"

    def server_update(self, state: ServerState, total: Total, context: RoundContext) -> ServerState:
        rate = self.server_learning_rate * context.rate_factor / total.denominator("delta")
        (model,) = elementwise(
            lambda w, sum_delta: (w + rate * sum_delta,), state.model, total.sums["delta"]
        )
        return ServerState(model)
