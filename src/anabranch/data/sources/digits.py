"""Handwritten digits of scikit-learn: small images for quick experiments."""

from __future__ import annotations

from typing import Literal

import numpy as np

from anabranch.data.federation import Card
from anabranch.data.schema import DataSchema
from anabranch.data.sources.base import Pool, require, sha256_of
from anabranch.values import Value

__all__ = ["Digits"]


class Digits(Value):
    """1,797 handwritten digits of 8 x 8 pixels in ten classes; no natural clients."""

    shape: Literal["flat", "image"] = "flat"
    """Features as (64,) or as (1, 8, 8)."""

    def load(self, seed: int, schema: DataSchema | None = None) -> Pool:
        """Read the copy that scikit-learn ships."""
        images, labels = require("sklearn.datasets", "digits").load_digits(return_X_y=True)
        pixels = np.ascontiguousarray(images, np.float32) / np.float32(16.0)
        y = np.ascontiguousarray(labels, np.int64)
        card = Card(
            name="digits",
            title="Handwritten digits, 8 x 8 pixels",
            origin="UCI Machine Learning Repository, doi 10.24432/C50P49; as in scikit-learn",
            licence="CC BY 4.0",
            citation="Alpaydin, Kaynak: Optical Recognition of Handwritten Digits. UCI, 1998.",
            partition="none",
            sha256=sha256_of([np.ascontiguousarray(images).data, y.data]),
            notes=("The writers are not stored, so every division among clients is synthetic.",),
        )
        x = pixels.reshape(-1, 1, 8, 8) if self.shape == "image" else pixels
        return Pool(card, x, y, classes=10, test_fraction=0.2)
