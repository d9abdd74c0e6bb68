"""Local optimizers over flat vectors, in place; one text for NumPy arrays and torch tensors.

A step of any of them, with g the gradient of the batch::

    g <- g * min(1, clip_norm / ||g||)           over all trained parameters
    g <- g + pull * (w - anchor) + drift         on the averaged parameters (the correction)
    w <- optimizer(w, g)

The correction belongs to the algorithm, not to the batch, so it is added behind the clipping.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from anabranch.learners.training import SGD, Adam, LocalTraining

if TYPE_CHECKING:
    import torch

__all__ = ["Descent", "Pull"]

V = TypeVar("V", NDArray[np.float32], "torch.Tensor")


@dataclass(frozen=True, slots=True)
class Pull(Generic[V]):
    """A correction, cut to the trained coordinates of the averaged prefix.

    Attributes:
        strength: pull towards the anchor.
        anchor: where to, shape (averaged and trained,).
        drift: constant addition to the gradient, same shape; None means zero.
    """

    strength: float
    anchor: V
    drift: V | None

    def add(self, w: V, g: V) -> None:
        """Add the correction to ``g`` in place; ``w`` are the averaged trained coordinates."""
        if self.strength:
            difference = w - self.anchor
            difference *= self.strength
            g += difference
        if self.drift is not None:
            g += self.drift


class Descent(Generic[V]):
    """One client's optimizer; its state starts at zero.

    Args:
        training: the plan's local training.
        rate: learning rate after the schedule.
        parts: views of the trained coordinates; the first are the averaged ones.
        gradient: shape (sum of the parts,); every step overwrites it.
        pull: the correction of the averaged part.
        zeros: a new vector of zeros like the one given.
    """

    def __init__(
        self,
        training: LocalTraining,
        rate: float,
        parts: Sequence[V],
        gradient: V,
        pull: Pull[V],
        zeros: Callable[[V], V],
    ) -> None:
        self._clip = training.clip_norm
        self._optimizer = training.optimizer
        self._rate = rate
        self._gradient: V = gradient
        self._pull: Pull[V] = pull
        self._parts: Sequence[V] = parts
        self._gradients: list[V] = []
        start = 0
        for part in parts:
            self._gradients.append(gradient[start : start + len(part)])
            start += len(part)
        adam = isinstance(self._optimizer, Adam)
        momentum = isinstance(self._optimizer, SGD) and self._optimizer.momentum > 0
        self._first: list[V] = [zeros(g) for g in self._gradients] if adam or momentum else []
        self._second: list[V] = [zeros(g) for g in self._gradients] if adam else []
        self._steps = 0

    def step(self) -> None:
        """Move the parameters by the gradient that stands in the gradient vector."""
        if self._clip is not None:
            norm = float(self._gradient @ self._gradient) ** 0.5
            if norm > self._clip:
                self._gradient *= self._clip / norm
        self._pull.add(self._parts[0], self._gradients[0])
        self._steps += 1
        for index in range(len(self._parts)):
            if isinstance(self._optimizer, SGD):
                self._sgd(self._optimizer, index)
            else:
                self._adam(self._optimizer, index)

    def _sgd(self, rule: SGD, index: int) -> None:
        w, g = self._parts[index], self._gradients[index]
        if rule.weight_decay:
            g += w * rule.weight_decay
        if rule.momentum:
            velocity = self._first[index]
            velocity *= rule.momentum
            velocity += g
            if rule.nesterov:
                g += velocity * rule.momentum
            else:
                g = velocity
        w -= g * self._rate

    def _adam(self, rule: Adam, index: int) -> None:
        w, g = self._parts[index], self._gradients[index]
        first, second = self._first[index], self._second[index]
        if rule.weight_decay and rule.decoupled:
            w *= 1 - self._rate * rule.weight_decay
        elif rule.weight_decay:
            g += w * rule.weight_decay
        first *= rule.beta1
        first += g * (1 - rule.beta1)
        second *= rule.beta2
        g *= g
        g *= 1 - rule.beta2
        second += g
        scale = second / (1 - rule.beta2**self._steps)
        scale **= 0.5
        scale += rule.eps
        move = first / scale
        move *= self._rate / (1 - rule.beta1**self._steps)
        w -= move
