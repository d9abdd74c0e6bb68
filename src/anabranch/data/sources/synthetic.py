"""Generated data for scale tests: logistic regression at any number of clients."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from anabranch.data.federation import Card, Examples
from anabranch.data.partition import NaturalKey
from anabranch.data.schema import DataSchema
from anabranch.data.sources.base import Pool, sha256_of
from anabranch.randomness import generator
from anabranch.values import Value

__all__ = ["SyntheticLogistic"]

Floats: TypeAlias = NDArray[np.float32]

_CHUNK = 4096  # clients generated at once: tens of MB of scratch, whatever the number of clients


class SyntheticLogistic(Value):
    """Every client draws x ~ N(0, 1) and y ~ Bernoulli(sigmoid(x . w_i)).

    w_i = w + spread * u_i with w and u_i ~ N(0, sharpness^2 / features): a shared rule and a
    client's own deviation, as in the synthetic data of Li et al. (FedProx, MLSys 2020). All
    examples differ.
    """

    clients: int = Field(default=1000, ge=1, json_schema_extra={"unit": "clients"})
    """Number of clients."""
    features: int = Field(default=60, ge=1, json_schema_extra={"unit": "features"})
    """Inputs of an example."""
    examples: int = Field(default=20, ge=1, json_schema_extra={"unit": "examples per client"})
    """Examples of every client."""
    spread: float = Field(default=0.5, ge=0)
    """How much the clients' rules differ."""
    sharpness: float = Field(default=3.0, gt=0)
    """Standard deviation of the shared part of the logit: larger means less noisy labels."""
    holdout: int = Field(default=1000, ge=0, json_schema_extra={"unit": "examples"})
    """Further examples by the shared rule, kept at the coordinator."""

    def load(self, seed: int, schema: DataSchema | None = None) -> Pool:
        """Generate from ``seed``: 100,000 x 20 x 60 take a few seconds and 0.5 GB."""
        rng = generator(seed, "synthetic-logistic")
        shared = self._draw(rng, (self.features,))
        x = np.empty((self.clients * self.examples, self.features), np.float32)
        y = np.empty(len(x), np.int64)
        for start in range(0, self.clients, _CHUNK):
            stop = min(start + _CHUNK, self.clients)
            rows = slice(start * self.examples, stop * self.examples)
            rng.standard_normal(dtype=np.float32, out=x[rows])
            own = shared + np.float32(self.spread) * self._draw(rng, (stop - start, self.features))
            blocks = x[rows].reshape(stop - start, self.examples, self.features)
            y[rows] = self._labels(rng, (blocks @ own[:, :, None]).ravel())
        test = rng.standard_normal((self.holdout, self.features), dtype=np.float32)
        held = Examples(test, self._labels(rng, test @ shared)) if self.holdout else None
        width = len(str(self.clients - 1))
        return Pool(
            self._card(seed),
            x,
            y,
            np.repeat(np.arange(self.clients, dtype=np.int64), self.examples),
            tuple(f"client-{number:0{width}d}" for number in range(self.clients)),
            holdout=held,
            classes=2,
            partition=NaturalKey(),
        )

    def _draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
        weights = rng.standard_normal(shape, dtype=np.float32)
        return weights * np.float32(self.sharpness / np.sqrt(self.features))

    @staticmethod
    def _labels(rng: np.random.Generator, logits: Floats) -> NDArray[np.int64]:
        chance = 1 / (1 + np.exp(-logits))
        return (rng.random(len(logits), dtype=np.float32) < chance).astype(np.int64)

    def _card(self, seed: int) -> Card:
        recipe = f"synthetic-logistic {self.model_dump_json()} seed {seed}"
        return Card(
            name="synthetic-logistic",
            title=f"Generated logistic regression, {self.clients} clients",
            origin=recipe,
            licence="CC0 1.0",
            citation="Generated; after Li et al.: Federated Optimization in Heterogeneous "
            "Networks. MLSys 2020.",
            partition="synthetic: generated clients",
            # There are no bytes to read: the recipe determines every example.
            sha256=sha256_of([recipe.encode()]),
        )
