"""The sum of training losses, computed from kept outputs many batches at a time."""

from __future__ import annotations

import numpy as np

from anabranch.learners.losses import Loss
from anabranch.updates.sections import Vector

__all__ = ["LossRecord"]

_BATCHES = 64
_NUMBERS = 1 << 15


class LossRecord:
    """Keeps the outputs of up to 64 full batches, then adds up their losses in one go.

    A loss per batch would cost as much Python as a step of a small model.

    Args:
        loss: the loss.
    """

    def __init__(self, loss: Loss) -> None:
        self._loss = loss
        self._memory = np.empty((2, _NUMBERS), np.float32)
        self.begin(1)

    def begin(self, size: int) -> None:
        """Start a client whose full batches have ``size`` rows."""
        self._size, self._kept, self._sum, self.rows = size, 0, 0.0, 0
        numbers = size * self._loss.outputs
        if numbers > self._memory.shape[1]:
            self._memory = np.empty((2, numbers), np.float32)
        batches = max(1, min(_BATCHES, self._memory.shape[1] // numbers))
        outputs, targets = self._memory[:, : batches * numbers]
        self._outputs = outputs.reshape(batches, self._loss.outputs, size)
        self._targets = targets.reshape(batches, size, self._loss.outputs)

    def add(self, outputs: Vector, targets: Vector) -> None:
        """One batch: outputs of shape (outputs, rows), targets of shape (rows, outputs)."""
        rows = len(targets)
        self.rows += rows
        if rows != self._size:
            self._sum += float(self._loss.values(outputs, targets.T).sum())
            return
        self._outputs[self._kept] = outputs
        self._targets[self._kept] = targets
        self._kept += 1
        if self._kept == len(self._outputs):
            self._flush()

    def _flush(self) -> None:
        targets = self._targets[: self._kept].swapaxes(1, 2)
        self._sum += float(self._loss.values(self._outputs[: self._kept], targets).sum())
        self._kept = 0

    def total(self) -> float:
        """Sum of the losses of all rows added."""
        if self._kept:
            self._flush()
        return self._sum
