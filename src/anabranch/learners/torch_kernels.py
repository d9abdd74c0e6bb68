"""The closed-form engine's arithmetic with PyTorch where PyTorch is faster, NumPy elsewhere."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from anabranch.learners.flat import Call
from anabranch.learners.kernels import NumpyKernels, is_wide
from anabranch.updates.sections import Vector

__all__ = ["HybridKernels"]


class HybridKernels(NumpyKernels):
    """PyTorch for wide layers and softmax, NumPy for the rest; both see the same memory."""

    def product(self, a: Vector, b: Vector, out: Vector) -> tuple[Call, ...]:
        if not _wide(a, b, out):
            return super().product(a, b, out)
        return (partial(torch.mm, *_tensors(a, b), out=torch.from_numpy(out)),)

    def descend(self, w: Vector, a: Vector, b: Vector) -> tuple[Call, ...]:
        if not _wide(a, b, w):
            return super().descend(w, a, b)
        weight = torch.from_numpy(w)
        return (partial(torch.addmm, weight, *_tensors(a, b), alpha=-1.0, out=weight),)

    def softmax(self, z: Vector, out: Vector) -> tuple[Call, ...]:
        return (partial(torch.softmax, torch.from_numpy(z), 0, out=torch.from_numpy(out)),)


def _wide(a: Vector, b: Vector, out: Vector) -> bool:
    """Whether the largest of the three matrices is a wide layer's weight (or its gradient)."""
    return is_wide(max((a, b, out), key=np.size).shape)


def _tensors(a: Vector, b: Vector) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(a), torch.from_numpy(b)
