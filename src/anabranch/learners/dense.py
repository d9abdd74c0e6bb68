"""Stacks of dense layers with ReLU between them: shapes, names, order and initial values.

The NumPy learner and the built-in PyTorch models both start here, so one plan means one model:
the same names in the same order, and bitwise the same initial vector.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from anabranch.learners.plan import ModelPlan
from anabranch.randomness import generator
from anabranch.updates.layout import Layout, Parameter
from anabranch.updates.sections import Vector

__all__ = ["DenseStack", "Draw", "dense_stack", "drawn"]


@dataclass(frozen=True, slots=True)
class Draw:
    """How one parameter of a built-in model starts: uniform in [-bound, bound], or normal(0, 1)."""

    name: str
    shape: tuple[int, ...]
    bound: float
    normal: bool = False


@dataclass(frozen=True)
class DenseStack:
    """Layers y = W x + b with ReLU between them.

    Attributes:
        sizes: inputs, hidden sizes, outputs.
        names: names of the layers; parameters are ``name.weight`` and ``name.bias``.

    >>> DenseStack((784, 200, 10), ("hidden1", "output")).layout(ModelPlan(name="mlp")).size
    159010
    """

    sizes: tuple[int, ...]
    names: tuple[str, ...]

    def draws(self) -> tuple[Draw, ...]:
        """Uniform in +-1/sqrt(inputs) for weights and biases, as PyTorch's dense layers start."""
        found = []
        for name, inputs, outputs in zip(self.names, self.sizes, self.sizes[1:], strict=False):
            bound = 1 / math.sqrt(inputs)
            found.append(Draw(f"{name}.weight", (outputs, inputs), bound))
            found.append(Draw(f"{name}.bias", (outputs,), bound))
        return tuple(found)

    def layout(self, plan: ModelPlan) -> Layout:
        """The layout under the plan's policies."""
        return Layout.of(
            Parameter(draw.name, draw.shape, plan.policy_of(draw.name)) for draw in self.draws()
        )


def dense_stack(inputs: int, hidden: Iterable[int], outputs: int) -> DenseStack:
    """The built-in stack: ``hidden1``, ``hidden2`` ... and ``output``."""
    hidden = tuple(hidden)
    names = tuple(f"hidden{i + 1}" for i in range(len(hidden)))
    return DenseStack((inputs, *hidden, outputs), (*names, "output"))


def drawn(draws: Iterable[Draw], layout: Layout, seed: int) -> Vector:
    """Initial values; each parameter has a generator of its own, so policies change nothing."""
    vector = np.zeros(layout.size, np.float32)
    for draw in draws:
        source = generator(seed, "initial", client=draw.name)
        size = math.prod(draw.shape)
        values = source.standard_normal(size) if draw.normal else source.uniform(-1, 1, size)
        scale = 1.0 if draw.normal else draw.bound
        layout.view(vector, draw.name)[...] = (values * scale).reshape(draw.shape)
    return vector
