"""The losses of `anabranch.learners.losses` in PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from anabranch.learners.losses import Loss

__all__ = ["mean_loss", "residual"]


def mean_loss(loss: Loss, outputs: Tensor, y: Tensor) -> Tensor:
    """The mean loss of a batch for autograd; outputs (rows, outputs), y (rows,)."""
    if loss.name == "cross-entropy":
        return functional.cross_entropy(outputs, y.long())
    values, y = outputs.reshape(-1), y.to(outputs.dtype)
    if loss.name == "binary-cross-entropy":
        return functional.binary_cross_entropy_with_logits(values, y)
    if loss.name == "mse":
        return functional.mse_loss(values, y)
    return functional.huber_loss(values, y)


def residual(loss: Loss, outputs: Tensor, targets: Tensor) -> Tensor:
    """Derivative of each example's loss by the outputs, shape (rows, outputs)."""
    if loss.name == "cross-entropy":
        return torch.softmax(outputs, 1) - targets
    if loss.name == "binary-cross-entropy":
        return torch.sigmoid(outputs) - targets
    if loss.name == "mse":
        return (outputs - targets) * 2
    return (outputs - targets).clamp(-1, 1)
