r"""Gradients of single examples for stacks of dense layers, by hand.

With d_l the derivative of one example's loss by the outputs of layer l before its ReLU (see
`anabranch.learners.closed_form`), its gradient is d_l h_(l-1)^T for the weight, d_l for the bias.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from anabranch.learners.closed_form import DenseLayer
from anabranch.learners.flat import trained_ranges
from anabranch.learners.kernels import Kernels
from anabranch.learners.losses import Loss
from anabranch.updates.layout import Layout
from anabranch.updates.sections import Vector

__all__ = ["DenseGradients"]


class DenseGradients:
    """Gradients of single examples.

    Args:
        layers: from input to output.
        layout: of their parameters.
        loss: what is minimised.
        kernels: computes the softmax.
    """

    def __init__(
        self, layers: Sequence[DenseLayer], layout: Layout, loss: Loss, kernels: Kernels
    ) -> None:
        self._layers, self._layout, self._loss, self._kernels = tuple(layers), layout, loss, kernels
        self._targets = loss.targets()
        # Where each trained coordinate of the flat vector stands in a row of gradients.
        self._place: dict[str, slice] = {}
        position = 0
        for part in trained_ranges(layout):
            for p in layout.parameters:
                offset = layout.offsets[p.name]
                if part.start <= offset < part.stop:
                    begin = position + offset - part.start
                    self._place[p.name] = slice(begin, begin + p.size)
            position += part.stop - part.start
        self._width = position

    @property
    def layout(self) -> Layout:
        """Of the parameters."""
        return self._layout

    def gradients(
        self, w: Vector, x: NDArray[np.generic], y: NDArray[np.generic]
    ) -> NDArray[np.float32]:
        """One row for each example, shape (n, trained parameters)."""
        rows = np.zeros((len(y), self._width), np.float32)
        views = self._layout.views(w)
        hidden = [np.asarray(x, np.float32).reshape(len(y), -1).T]
        with np.errstate(all="ignore"):  # what is not finite counts as zero when it is clipped
            for layer in self._layers:
                z = views[layer.weight] @ hidden[-1]
                if layer.bias is not None:
                    z += views[layer.bias][:, None]
                hidden.append(np.maximum(z, 0) if layer.relu else z)
            d = self._derivative(hidden[-1], y)
            for number in range(len(self._layers) - 1, -1, -1):
                self._write(rows, self._layers[number], d, hidden[number])
                if number:
                    d = views[self._layers[number].weight].T @ d
                    if self._layers[number - 1].relu:
                        d = d * np.sign(hidden[number])
        return rows

    def _derivative(self, z: Vector, y: NDArray[np.generic]) -> Vector:
        targets = np.empty((len(y), len(z)), np.float32)
        self._targets.write(y, targets)
        out = np.empty_like(z)
        for call in self._loss.residual(z, targets.T, out, self._kernels):
            call()
        return out

    def _write(
        self, rows: NDArray[np.float32], layer: DenseLayer, d: Vector, below: Vector
    ) -> None:
        if layer.weight in self._place:
            outer = np.einsum("or,ir->roi", d, below)
            rows[:, self._place[layer.weight]] = outer.reshape(len(rows), -1)
        if layer.bias is not None and layer.bias in self._place:
            rows[:, self._place[layer.bias]] = d.T
