r"""Losses as values: the loss of one example and its derivative by the model's output.

With z the output of the model and t the target (one-hot for classes)::

    cross-entropy          log sum exp z - z . t          softmax(z) - t
    binary-cross-entropy   log(1 + e^z) - z t             sigmoid(z) - t
    mse                    (z - t)^2                      2 (z - t)
    huber                  z-t within 1: (z-t)^2/2,       clip(z - t, -1, 1)
                           outside: |z - t| - 1/2

Outputs stand in *columns* here (shape (outputs, rows)): sums over few outputs are then sums of
contiguous rows, which is several times faster for small models.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from anabranch.errors import AnabranchError
from anabranch.learners.flat import Call
from anabranch.learners.kernels import Kernels
from anabranch.learners.plan import LossName
from anabranch.updates.sections import Statistics, Vector

__all__ = ["Loss", "resolve_loss"]

_EYE_LIMIT = 1024  # classes up to which one-hot rows are copied from an identity matrix


@dataclass(frozen=True)
class Loss:
    """A resolved loss.

    Attributes:
        name: which one; never ``auto``.
        outputs: outputs of the model: classes for cross-entropy, else 1.
    """

    name: LossName
    outputs: int

    @property
    def classes(self) -> int:
        """Number of classes of the labels; 0 for regression."""
        return {"cross-entropy": self.outputs, "binary-cross-entropy": 2}.get(self.name, 0)

    def check_labels(self, y: NDArray[np.generic], client: str) -> None:
        """Refuse labels that the model has no output for.

        Raises:
            AnabranchError: AB-302.
        """
        if not self.classes or not len(y):
            return
        if np.issubdtype(y.dtype, np.integer):
            # Seen as unsigned, a negative label is huge: one pass over the labels is enough.
            unsigned = y.view(np.dtype(f"u{y.dtype.itemsize}"))
            good = int(unsigned.max()) < self.classes
        else:
            good = bool((np.floor(y) == y).all() and y.min() >= 0 and y.max() < self.classes)
        if not good:
            raise AnabranchError(
                "AB-302",
                f"client {client!r} has a label outside 0..{self.classes - 1}.",
                fix="number the classes from 0, give the same number of classes at every client, "
                "or choose a regression loss.",
                kept="The client did not train.",
            )

    def targets(self) -> Targets:
        """What turns labels into the rows that the derivative needs."""
        return Targets(self)

    def residual(self, z: Vector, t: Vector, out: Vector, kernels: Kernels) -> tuple[Call, ...]:
        """Calls that write the derivative of each example's loss to ``out``.

        Args:
            z: outputs, shape (outputs, rows); kept as they are.
            t: targets, shape (outputs, rows).
            out: shape (outputs, rows).
            kernels: computes the softmax.
        """
        difference = partial(np.subtract, out, t, out=out)
        if self.name == "cross-entropy":
            return (*kernels.softmax(z, out), difference)
        if self.name == "binary-cross-entropy":
            # sigmoid(z) = (1 + tanh(z / 2)) / 2 cannot overflow.
            half = np.float32(0.5)
            return (
                partial(np.multiply, z, half, out=out),
                partial(np.tanh, out, out=out),
                partial(np.multiply, out, half, out=out),
                partial(np.add, out, half, out=out),
                difference,
            )
        plain = partial(np.subtract, z, t, out=out)
        if self.name == "mse":
            return (plain, partial(np.multiply, out, np.float32(2), out=out))
        return (plain, partial(np.clip, out, np.float32(-1), np.float32(1), out=out))

    def values(self, z: Vector, t: Vector) -> Statistics:
        """Losses of single examples, shape (rows,); z and t have shape (outputs, rows)."""
        if self.name == "cross-entropy":
            top = np.maximum.reduce(z, 0)
            spread = np.add.reduce(np.exp(z - top), 0)
            return np.asarray(np.log(spread) + top - np.add.reduce(z * t, 0), np.float64)
        z, t = z[0], t[0]
        if self.name == "binary-cross-entropy":
            values = np.maximum(z, 0) - z * t + np.log1p(np.exp(-np.abs(z)))
            return np.asarray(values, np.float64)
        error = np.asarray(np.abs(z - t), np.float64)
        squares: Statistics = error * error
        if self.name == "mse":
            return squares
        return np.where(error < 1, 0.5 * squares, error - 0.5)


class Targets:
    """Writes target rows into a reused buffer."""

    def __init__(self, loss: Loss) -> None:
        self._classes = loss.outputs if loss.name == "cross-entropy" else 0
        small = 0 < self._classes <= _EYE_LIMIT
        self._eye = np.eye(self._classes, dtype=np.float32) if small else None

    def write(self, y: NDArray[np.generic], out: Vector) -> None:
        """Write one row per label to ``out`` of shape (len(y), outputs)."""
        if self._eye is not None:
            # mode="clip" writes straight into ``out``; labels were checked before.
            np.take(self._eye, y.astype(np.int64, copy=False), 0, out, "clip")
        elif self._classes:
            out[...] = 0
            out[np.arange(len(y)), y.astype(np.int64)] = 1
        else:
            out[:, 0] = y


def resolve_loss(name: LossName, classes: int, outputs: int | None) -> Loss:
    """The loss that a plan means.

    Args:
        name: as in the plan.
        classes: of the data; 0 for regression.
        outputs: of the user's module; None when the model is made to fit (built-in models).

    Raises:
        AnabranchError: AB-301 when the module's outputs do not fit the labels.
    """
    if name == "auto" and not classes:
        name = "mse"
    elif name == "auto":
        single = outputs == 1 or (outputs is None and classes == 2)
        name = "binary-cross-entropy" if single and classes <= 2 else "cross-entropy"
    wanted = classes if name == "cross-entropy" else 1
    if (name == "cross-entropy" and classes < 2) or (
        name == "binary-cross-entropy" and classes not in (0, 2)
    ):
        raise AnabranchError(
            "AB-301",
            f"the loss {name!r} does not fit data with {classes} classes.",
            fix="choose loss = 'auto', or a loss for the labels that the data have.",
        )
    if outputs is not None and outputs != wanted:
        raise AnabranchError(
            "AB-301",
            f"the model has {outputs} outputs, the loss {name!r} for {classes} classes needs "
            f"{wanted}.",
            fix=f"give the last layer {wanted} outputs, or choose another loss.",
        )
    return Loss(name, wanted)
