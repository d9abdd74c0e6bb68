"""Norm clipping: the client scales its delta down to a Euclidean norm of at most ``max_norm``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from anabranch.updates.norm import squared_norm
from anabranch.updates.sections import Update, Vector
from anabranch.updates.stages import EncodeContext, Stage, StageContract

__all__ = ["Clip"]


class Clip(Stage):
    """delta <- delta * min(1, max_norm / ||delta||), computed in float64 (not linear, biased).

    >>> import numpy as np
    >>> update = Update({"delta": np.float32([3, 4])}, {})
    >>> Clip(max_norm=1.0).clipped(update).vectors["delta"].round(5)
    array([0.6, 0.8], dtype=float32)
    """

    name: ClassVar[str] = "clip"
    kind: Literal["clip"] = "clip"
    max_norm: float = Field(gt=0, json_schema_extra={"unit": "Euclidean norm of the delta"})
    """Largest norm of an update that leaves a client."""

    def contract(self) -> StageContract:
        return StageContract(linear=False, unbiased=False, norm_bound=self.max_norm)

    def clipped(self, update: Update) -> Update:
        """The update with its ``delta`` inside the ball."""
        delta = update.vectors["delta"]
        norm = math.sqrt(squared_norm(delta))
        if not self.max_norm < norm < math.inf:  # what is not finite, the fold refuses and names
            return update
        # One ulp less, so that rounding to float32 cannot push the norm above the bound again.
        factor = self.max_norm / norm * (1 - 2.0**-23)
        clipped = (delta.astype(np.float64) * factor).astype(np.float32)
        return Update({**update.vectors, "delta": clipped}, update.scalars)

    def encode(
        self, update: Update, memory: Mapping[str, Vector], context: EncodeContext
    ) -> tuple[Update, Mapping[str, Vector]]:
        return self.clipped(update), {}
