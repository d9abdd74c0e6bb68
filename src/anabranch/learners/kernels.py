"""Prepared matrix products and softmax for the closed-form engine.

A product is bound to its buffers once and called in every step. Which library multiplies is
decided by the *shape* alone, never by a measurement, so that every worker rounds alike.
"""

from __future__ import annotations

from functools import partial
from typing import Protocol

import numpy as np

from anabranch.learners.flat import Call
from anabranch.updates.sections import Vector

__all__ = ["Kernels", "NumpyKernels", "is_wide"]

_MANY_OUTPUTS = 48
_LARGE_MATRIX = 1 << 14


def is_wide(shape: tuple[int, ...]) -> bool:
    """Whether PyTorch multiplies by a matrix of this shape faster than NumPy.

    >>> is_wide((10, 784)), is_wide((200, 784))
    (False, True)
    """
    return min(shape) >= _MANY_OUTPUTS and shape[0] * shape[1] >= _LARGE_MATRIX


class Kernels(Protocol):
    """Where the arithmetic of the closed-form engine is done; outputs never overlap inputs."""

    def product(self, a: Vector, b: Vector, out: Vector) -> tuple[Call, ...]:
        """out = a @ b."""
        ...

    def descend(self, w: Vector, a: Vector, b: Vector) -> tuple[Call, ...]:
        """w -= a @ b."""
        ...

    def softmax(self, z: Vector, out: Vector) -> tuple[Call, ...]:
        """out = softmax of each column of z."""
        ...


class NumpyKernels:
    """NumPy alone; its products are the fastest that we know for few outputs."""

    def __init__(self) -> None:
        # A change is subtracted as soon as it is computed, so equal shapes can share its memory.
        self._changes: dict[tuple[int, ...], Vector] = {}

    def product(self, a: Vector, b: Vector, out: Vector) -> tuple[Call, ...]:
        return (partial(np.matmul, a, b, out=out),)

    def descend(self, w: Vector, a: Vector, b: Vector) -> tuple[Call, ...]:
        change = self._changes.setdefault(w.shape, np.empty(w.shape, np.float32))
        return (partial(np.matmul, a, b, out=change), partial(np.subtract, w, change, out=w))

    def softmax(self, z: Vector, out: Vector) -> tuple[Call, ...]:
        row = np.empty(z.shape[1], np.float32)
        return (
            partial(np.maximum.reduce, z, 0, None, row),
            partial(np.subtract, z, row, out=out),
            partial(np.exp, out, out=out),
            partial(np.add.reduce, out, 0, None, row),
            partial(np.divide, out, row, out=out),
        )
