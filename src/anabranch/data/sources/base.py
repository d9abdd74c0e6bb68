"""What a source is, and what it gives: pooled rows with, where nature has one, a client key."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from anabranch.data.federation import Card, Examples
from anabranch.data.partition import TEN_IID, Partition
from anabranch.data.schema import DataSchema
from anabranch.data.table import Table
from anabranch.errors import AnabranchError

__all__ = ["Pool", "Source", "number_keys", "require", "sha256_of"]


@dataclass(frozen=True)
class Pool:
    """Rows of a source before they are divided, split and preprocessed.

    Attributes:
        card: provenance.
        x: a table that is still to be preprocessed, or finished features of shape (n, ...);
            unsigned bytes are turned into float32 and multiplied by ``scale`` later, so that the
            large copy is made once.
        y: targets, shape (n,): int64 classes or float32 values.
        key: number of the natural client of each row, shape (n,), or None.
        names: natural clients by number.
        subjects: person of each row, or None when every row is its own.
        holdout: a test set that the source itself keeps apart (in the form of ``x``).
        classes: number of classes; 0 for regression.
        features: names of the inputs, when ``x`` is an array.
        vocabulary: tokens by number.
        scale: see ``x``.
        partition: what is used when the plan names no partition and there is no natural key.
        test_fraction: what is used when the plan names none.
    """

    card: Card
    x: Table | NDArray[np.generic]
    y: NDArray[np.generic]
    key: NDArray[np.int64] | None = None
    names: tuple[str, ...] = ()
    subjects: NDArray[np.int64] | None = None
    holdout: Examples | None = None
    classes: int = 0
    features: tuple[str, ...] = ()
    vocabulary: tuple[str, ...] = field(default=(), repr=False)
    scale: float = 1.0
    partition: Partition = TEN_IID
    test_fraction: float = 0.0

    def __len__(self) -> int:
        return len(self.y)


class Source(Protocol):
    """A named origin of data; its fields are the options that a plan may set."""

    def load(self, seed: int, schema: DataSchema | None = None) -> Pool:
        """Read or generate the data.

        Args:
            seed: public seed, for sources that are generated.
            schema: the plan's own schema, for sources that are tables.

        Raises:
            AnabranchError: AB-206 or AB-207 when something is not installed or not there.
        """
        ...


def sha256_of(parts: Iterable[bytes | memoryview]) -> str:
    """SHA-256 of the bytes read, in the order read."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def require(module: str, source: str) -> ModuleType:
    """Import a package of the ``data`` extra, or say how to get it.

    Raises:
        AnabranchError: AB-206.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise missing_package(module.split(".")[0], source) from error


def missing_package(package: str, source: str) -> AnabranchError:
    """The error of a source whose package is not installed."""
    return AnabranchError(
        "AB-206",
        f"the data source {source!r} needs the package {package!r}, which is not installed.",
        fix='pip install "anabranch[data]".',
        kept="Nothing was read.",
    )


def number_keys(keys: NDArray[np.generic]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Clients as numbers, and their names in the order of first appearance.

    >>> key, names = number_keys(np.array(["va", "hu", "va"]))
    >>> key.tolist(), names
    ([0, 1, 0], ('va', 'hu'))
    """
    distinct, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank[inverse], tuple(str(name) for name in distinct[order].tolist())
