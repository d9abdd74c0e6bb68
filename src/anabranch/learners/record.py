"""The sum of training losses, computed from kept outputs many batches at a time."""

from __future__ import annotations

import numpy as np

from anabranch.learners.losses import Loss
from anabranch.updates.sections import Vector

__all__ = ["LossRecord"]

_ROWS = 2048


class LossRecord:
    """Keeps outputs and targets, and adds up their losses about 2,000 rows at a time.

    A loss per batch would cost as much Python as a step of a small model.

    Args:
        loss: the loss.
    """

    def __init__(self, loss: Loss) -> None:
        self._loss = loss
        self._memory = np.empty((2, loss.outputs, _ROWS), np.float32)
        self.begin()

    def begin(self) -> None:
        """Start a client."""
        self._kept, self._sum, self.rows = 0, 0.0, 0

    def add(self, outputs: Vector, targets: Vector) -> None:
        """One batch: outputs of shape (outputs, rows), targets of shape (rows, outputs)."""
        rows = len(targets)
        if self._kept + rows > self._memory.shape[2]:
            self._flush()
            if rows > self._memory.shape[2]:
                self._memory = np.empty((2, self._loss.outputs, rows), np.float32)
        stop = self._kept + rows
        self._memory[0, :, self._kept : stop] = outputs
        self._memory[1, :, self._kept : stop] = targets.T
        self._kept = stop
        self.rows += rows

    def _flush(self) -> None:
        outputs, targets = self._memory[:, :, : self._kept]
        self._sum += float(self._loss.values(outputs, targets).sum())
        self._kept = 0

    def total(self) -> float:
        """Sum of the losses of all rows added."""
        if self._kept:
            self._flush()
        return self._sum
