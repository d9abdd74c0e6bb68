r"""FedProx: FedAvg whose clients are pulled back to the model that they started from.

Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith, "Federated Optimization in Heterogeneous Networks",
MLSys 2020, Algorithm 2::

    client i:   minimises f_i(v) + mu/2 ||v - w||^2,   so each gradient is g + mu (v - w)
    server:     w  <- w + eta_s * sum_i p_i Delta_i                            (FedAvg's)

Its use is to let clients do unequal amounts of work. It does not remove the bias of FedAvg; with
K full-gradient steps on quadratics it moves the limit towards that of one step (K = 1).
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from anabranch.algorithms.base import Broadcast, ClientMemory, Correction
from anabranch.algorithms.fedavg import FedAvg

__all__ = ["FedProx"]


class FedProx(FedAvg):
    """FedAvg with a proximal term in local training.

    >>> FedProx(mu=0.1).client_correction({}, {})
    Correction(pull=0.1, anchor=None, drift=None)
    """

    name: ClassVar[str] = "fedprox"

    mu: float = Field(default=0.01, ge=0, json_schema_extra={"unit": "1 / learning rate"})
    """Strength of the proximal term; the paper searches 0.001, 0.01, 0.1 and 1. Local training
    diverges when mu times the local learning rate comes near 2."""

    def client_correction(self, broadcast: Broadcast, memory: ClientMemory) -> Correction:
        return Correction(pull=self.mu)
