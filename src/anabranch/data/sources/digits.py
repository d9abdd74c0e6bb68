"""Handwritten digits of scikit-learn: small images for quick experiments."""

from __future__ import annotations

import gzip
import io
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np

from anabranch.data.federation import Card
from anabranch.data.schema import DataSchema
from anabranch.data.sources.base import Pool, missing_package, sha256_of
from anabranch.values import Value

__all__ = ["Digits"]


class Digits(Value):
    """1,797 handwritten digits of 8 x 8 pixels in ten classes; no natural clients."""

    shape: Literal["flat", "image"] = "flat"
    """Features as (64,) or as (1, 8, 8)."""

    def load(self, seed: int, schema: DataSchema | None = None) -> Pool:
        """Read the copy that scikit-learn ships, without importing it (that takes seconds)."""
        content = _file().read_bytes()
        rows = np.loadtxt(io.BytesIO(gzip.decompress(content)), np.float32, delimiter=",")
        pixels = np.ascontiguousarray(rows[:, :-1]) / np.float32(16.0)
        y = np.ascontiguousarray(rows[:, -1], np.int64)
        card = Card(
            name="digits",
            title="Handwritten digits, 8 x 8 pixels",
            origin="UCI Machine Learning Repository, doi 10.24432/C50P49; as in scikit-learn",
            licence="CC BY 4.0",
            citation="Alpaydin, Kaynak: Optical Recognition of Handwritten Digits. UCI, 1998.",
            partition="none",
            sha256=sha256_of([content]),
            notes=("The writers are not stored, so every division among clients is synthetic.",),
        )
        x = pixels.reshape(-1, 1, 8, 8) if self.shape == "image" else pixels
        return Pool(card, x, y, classes=10, test_fraction=0.2)


def _file() -> Path:
    """Where scikit-learn keeps the digits.

    Raises:
        AnabranchError: AB-206 when scikit-learn is not installed.
    """
    spec = find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        raise missing_package("sklearn", "digits")
    return Path(spec.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"
