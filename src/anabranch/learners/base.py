"""What a learner is: local training and prediction over one flat vector.

The rest of the system knows vectors; only learners know modules, autograd and devices. The
contract suite `anabranch.testing.LearnerContract` says what every learner must do.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from anabranch.algorithms.base import Correction
from anabranch.data.federation import Examples
from anabranch.learners.training import SGD, LocalTraining
from anabranch.updates.layout import Layout
from anabranch.updates.sections import Vector

if TYPE_CHECKING:  # only private runs need its arithmetic
    from anabranch.learners.private_sgd import PrivateSteps

__all__ = [
    "Learner",
    "LocalResult",
    "TrainingJob",
    "batch_orders",
    "capped_steps",
    "gradient_coefficient",
    "planned_steps",
]


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """One client's training in one round.

    Attributes:
        training: the plan's local training.
        learning_rate: after the schedule.
        correction: affine change of the gradient; vectors have the length of the averaged prefix.
        batches: public generator for the order of examples; None when they are not shuffled.
        draws: seed of the learner's own random operations (dropout), from (seed, round, client).
        client: identifier, for messages.
        fraction: share of the planned steps that is trained, above 0 and at most 1.
        private: how DP-SGD inside the site keeps its promise; None for plain training.
        ends: time of `time.monotonic` after which no step begins but the first; None for no end.
    """

    training: LocalTraining
    learning_rate: float
    correction: Correction
    batches: np.random.Generator | None
    draws: int
    client: str
    fraction: float = 1.0
    private: PrivateSteps | None = None
    ends: float | None = None


@dataclass(frozen=True, slots=True)
class LocalResult:
    """What training did.

    Attributes:
        end: the whole vector after training, shape (layout.size,); a new array.
        steps: optimizer steps taken.
        step_size_sum: sum of learning rates over the steps.
        loss_sum: sum of the batch losses times batch sizes, in the order met (before each step).
        examples_seen: examples the losses were summed over.
    """

    end: Vector
    steps: int
    step_size_sum: float
    loss_sum: float
    examples_seen: int


class Learner(Protocol):
    """Local training and prediction for one model and one loss."""

    @property
    def layout(self) -> Layout:
        """Names, shapes and policies of the parameters in the flat vector."""
        ...

    def initial(self, seed: int) -> Vector:
        """Initial parameters, shape (layout.size,): a pure function of ``seed``."""
        ...

    def train(self, start: Vector, data: Examples, job: TrainingJob) -> LocalResult:
        """Train from ``start`` (never changed) on ``data``.

        Raises:
            AnabranchError: AB-3xx when the data do not fit the model.
        """
        ...

    def predict(self, vector: Vector, x: NDArray[np.generic]) -> NDArray[np.float32]:
        """Outputs of the model (logits or values), shape (n, outputs), in evaluation mode."""
        ...


def batch_orders(examples: int, job: TrainingJob) -> Iterator[NDArray[np.int64] | slice]:
    """The index sets of the batches of one round, in order; equal for every learner.

    Without shuffling the batches are slices in the data's order. With ``steps`` the batches go
    round the data, each pass in a new order; with ``epochs`` there are that many passes. A job of
    less work takes the first batches of the whole job, so that what was trained is a prefix of it;
    so does one that ends before.
    """
    training = job.training
    size = training.batch_size or examples
    passes = training.epochs if training.epochs is not None else -1
    left = training.steps if training.steps is not None else -1
    if job.fraction < 1:
        left = capped_steps(planned_steps(training, examples), job.fraction)
    while passes != 0 and examples > 0:
        draw = job.batches if training.shuffle else None
        order = draw.permutation(examples) if draw is not None else None
        for start in range(0, examples, size):
            if left == 0:
                return
            stop = min(start + size, examples)
            yield slice(start, stop) if order is None else order[start:stop]
            left -= 1
            if job.ends is not None and time.monotonic() >= job.ends:
                return
        passes -= 1


def planned_steps(training: LocalTraining, examples: int) -> int:
    """Optimizer steps of the whole work on so many examples.

    >>> planned_steps(LocalTraining(epochs=2, batch_size=32), 70)
    6
    """
    if training.steps is not None:
        return training.steps
    size = training.batch_size or max(examples, 1)
    return (training.epochs or 1) * -(-examples // size)


def capped_steps(planned: int, fraction: float) -> int:
    """Steps of a fraction of the work: rounded down, at least one.

    >>> capped_steps(10, 0.25), capped_steps(10, 0.01), capped_steps(10, 1.0)
    (2, 1, 10)
    """
    # The slack keeps 0.3 * 10 = 2.9999999999999996 from becoming 2.
    return max(1, math.floor(planned * fraction + 1e-9))


def gradient_coefficient(training: LocalTraining, rate: float, steps: int, pull: float) -> float:
    r"""FedNova's ||a||_1: how much each local gradient counts in the final delta.

    delta = -rate * sum_k a_k g_k for SGD with momentum rho and proximal pull mu. With x_k = w_k -
    anchor the recursion is x <- x - rate * v, v <- rho v + g + mu x, which is linear, so a_k is
    found by running it on unit impulses (Wang et al. 2020, section 4.1: closed forms
    ``[tau - rho (1 - rho^tau)/(1 - rho)]/(1 - rho)`` and ``(1 - (1 - rate mu)^tau)/(rate mu)``).

    Raises:
        ValueError: the optimizer is not SGD, so the coefficients are not known beforehand.

    >>> gradient_coefficient(LocalTraining(), 0.1, 5, 0.0)
    5.0
    """
    optimizer = training.optimizer
    if not isinstance(optimizer, SGD):
        raise ValueError("gradient coefficients are known for SGD only")
    rho, pull = optimizer.momentum, pull + optimizer.weight_decay
    if not rho and not pull:
        return float(steps)
    # By time invariance a_k depends on steps - k only: one impulse response, summed.
    position, velocity, total = 0.0, 1.0, 0.0
    for step in range(steps):
        if step:
            velocity = rho * velocity - pull * rate * position
        look_ahead = velocity
        if optimizer.nesterov:
            gradient = 1.0 if step == 0 else -pull * rate * position
            look_ahead = gradient + rho * velocity
        position += look_ahead
        total += abs(position)
    return total
