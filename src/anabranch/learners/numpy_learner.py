"""A learner without PyTorch: logistic and linear models and MLPs in NumPy."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from anabranch.data.federation import Examples
from anabranch.learners.base import LocalResult, TrainingJob
from anabranch.learners.checks import check_data, chunk_rows
from anabranch.learners.closed_form import DenseEngine, DenseLayer
from anabranch.learners.dense import DenseStack, drawn
from anabranch.learners.dense_units import DenseGradients
from anabranch.learners.kernels import Kernels, NumpyKernels
from anabranch.learners.losses import Loss
from anabranch.learners.plan import ModelPlan
from anabranch.learners.private_sgd import train_privately
from anabranch.updates.layout import Layout
from anabranch.updates.sections import Vector

__all__ = ["NumpyLearner", "dense_layers"]


def dense_layers(stack: DenseStack) -> tuple[DenseLayer, ...]:
    """The layers of a built-in stack for the closed-form engine."""
    last = len(stack.names) - 1
    return tuple(
        DenseLayer(f"{name}.weight", f"{name}.bias", relu=index < last)
        for index, name in enumerate(stack.names)
    )


class NumpyLearner:
    """Trains a stack of dense layers with hand-written gradients.

    The same plan gives the PyTorch learner the same layout, the same initial vector (bitwise) and
    the same training up to rounding.

    Args:
        stack: the model.
        plan: policies of the parameters.
        loss: what is minimised.
        kernels: where products are computed.
    """

    engine = "closed-form"

    def __init__(
        self, stack: DenseStack, plan: ModelPlan, loss: Loss, kernels: Kernels | None = None
    ) -> None:
        self._stack, self._loss = stack, loss
        self._layout = stack.layout(plan)
        self._layers = dense_layers(stack)
        self._train = DenseEngine(self._layers, self._layout, loss, kernels or NumpyKernels())

    @property
    def layout(self) -> Layout:
        """Names, shapes and policies of the parameters."""
        return self._layout

    @property
    def loss(self) -> Loss:
        """The loss that is minimised."""
        return self._loss

    def initial(self, seed: int) -> Vector:
        """Uniform in +-1/sqrt(inputs) of each layer."""
        return drawn(self._stack.draws(), self._layout, seed)

    def train(self, start: Vector, data: Examples, job: TrainingJob) -> LocalResult:
        """Train from ``start`` on ``data``.

        Raises:
            AnabranchError: AB-302 labels, AB-306 no examples, AB-308 shape of an example.
        """
        check_data(data, self._stack.sizes[0], self._loss, job.client)
        if job.private is not None:
            source = DenseGradients(self._layers, self._layout, self._loss, NumpyKernels())
            return train_privately(source, start, data, job, job.private)
        data = Examples(data.x.astype(np.float32, copy=False), data.y)
        return self._train.train(start, data, job)

    def predict(self, vector: Vector, x: NDArray[np.generic]) -> NDArray[np.float32]:
        """Outputs, shape (n, outputs)."""
        flat = np.asarray(x, np.float32).reshape(len(x), -1)
        views = self._layout.views(vector)
        result = np.empty((len(x), self._loss.outputs), np.float32)
        rows = chunk_rows(flat.shape[1])
        for start in range(0, len(x), rows):
            h = flat[start : start + rows]
            for layer in self._layers:
                h = h @ views[layer.weight].T
                if layer.bias is not None:
                    h += views[layer.bias]
                if layer.relu:
                    np.maximum(h, 0, out=h)
            result[start : start + rows] = h
        return result

    def module(self, vector: Vector) -> object:
        """The model as a PyTorch module where PyTorch is installed, else its parameters by name."""
        parameters = {name: np.array(v) for name, v in self._layout.views(vector).items()}
        if find_spec("torch") is None:
            return parameters
        from anabranch.learners.models import dense_module, filled

        return filled(dense_module(self._stack), parameters)
