"""Feature skew: noise that grows from client to client, on top of any partition."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from anabranch.data.federation import Ragged
from anabranch.values import Value

__all__ = ["FeatureNoise"]


class FeatureNoise(Value):
    """Client i of N (from 1) gets Gaussian noise of variance ``level * i / N`` on its features.

    Li et al., "Federated Learning on Non-IID Data Silos" (ICDE 2022), section 4.2.
    """

    level: float = Field(gt=0, json_schema_extra={"unit": "variance of a feature"})
    """Variance at the last client."""

    @property
    def description(self) -> str:
        return f"feature noise up to variance {self.level:g}"

    def apply(self, data: Ragged, rng: np.random.Generator) -> Ragged:
        """Noisy features of every client, as new arrays; targets are shared."""
        clients = len(data)
        deviation = np.sqrt(self.level * np.arange(1, clients + 1) / max(clients, 1))
        x = data.x.astype(np.float32)
        for client in range(clients):
            rows = slice(int(data.offsets[client]), int(data.offsets[client + 1]))
            noise = rng.standard_normal(x[rows].shape, dtype=np.float32)
            x[rows] += np.float32(deviation[client]) * noise
        return Ragged(x, data.y, data.offsets, data.subjects)
