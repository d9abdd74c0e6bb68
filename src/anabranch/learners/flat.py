"""Small helpers around flat vectors and prepared calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from anabranch.updates.layout import Layout, Policy
from anabranch.updates.sections import Vector

__all__ = ["ALIGNMENT", "Call", "aligned", "trained_ranges"]

Call: TypeAlias = Callable[[], object]
"""A prepared call: function, buffers and output are bound, so that a step is only calls."""

ALIGNMENT = 64
"""Bytes. Some matrix libraries choose their kernel by alignment, and with it the rounding: equal
results in every worker need equally aligned inputs."""


def aligned(shape: tuple[int, ...], dtype: np.dtype[np.generic] | type = np.float32) -> Vector:
    """An uninitialised array whose first byte stands on a multiple of `ALIGNMENT`.

    >>> aligned((3, 5)).ctypes.data % ALIGNMENT
    0
    """
    dtype = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    raw = np.empty(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    array: Vector = raw[start : start + size].view(dtype).reshape(shape)
    return array


def trained_ranges(layout: Layout) -> tuple[slice, slice]:
    """Where the trained coordinates stand: those averaged, and those kept at the client.

    Learners order running statistics behind the trained parameters of the same policy, so each
    of the two is one range.
    """
    spans = []
    for policy in (Policy.AVERAGE, Policy.LOCAL):
        inside = [p for p in layout.parameters if p.policy is policy]
        start = layout.offsets[inside[0].name] if inside else layout.averaged
        spans.append(slice(start, start + sum(p.size for p in inside if p.trained)))
    return spans[0], spans[1]
