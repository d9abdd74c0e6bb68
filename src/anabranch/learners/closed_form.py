r"""Local training of dense stacks with hand-written gradients: no autograd, no allocation per step.

Activations stand in columns, shape (units, rows). With d_l the derivative of the loss by the
outputs of layer l before its ReLU, scaled by rate / rows::

    z_l = W_l h_(l-1) + b_l,   h_l = max(z_l, 0),   h_0 = x^T
    d_L = residual(z_L, t) * rate / rows
    d_(l-1) = (W_l^T d_l) * [h_(l-1) > 0]
    W_l <- W_l - d_l h_(l-1)^T,   b_l <- b_l - d_l 1

Every product, sum and update is bound to its buffers once for each batch size and step kind; a
step only calls them. Plain SGD writes straight into the flat vector; other optimizers collect the
gradient in one flat vector and use `anabranch.learners.optim`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from anabranch.data.federation import Examples
from anabranch.learners.base import LocalResult, TrainingJob, batch_orders
from anabranch.learners.flat import Call, aligned, trained_ranges
from anabranch.learners.kernels import Kernels
from anabranch.learners.losses import Loss
from anabranch.learners.optim import Descent, Pull
from anabranch.learners.record import LossRecord
from anabranch.learners.training import SGD, LocalTraining
from anabranch.updates.layout import Layout, Policy
from anabranch.updates.sections import Vector

__all__ = ["DenseEngine", "DenseLayer", "StepKind", "step_kind"]

_KEPT_SIZES = 128  # batch sizes whose prepared calls are kept


@dataclass(frozen=True, slots=True)
class DenseLayer:
    """One layer: names of its parameters in the layout, and whether a ReLU follows."""

    weight: str
    bias: str | None
    relu: bool


@dataclass(frozen=True, slots=True)
class StepKind:
    """Which step is prepared.

    Attributes:
        fused: plain SGD straight into the parameters; else the gradient is collected.
        pull: fused with w <- (1 - rate * pull) w before the step.
        shift: fused with w <- w + c before the step.
    """

    fused: bool
    pull: bool = False
    shift: bool = False


def step_kind(training: LocalTraining, job: TrainingJob) -> StepKind:
    """The cheapest step that does what the job asks."""
    plain = isinstance(training.optimizer, SGD) and training.optimizer.plain
    if not plain or training.clip_norm is not None:
        return StepKind(fused=False)
    pull = job.correction.pull != 0
    return StepKind(True, pull, pull or job.correction.drift is not None)


@dataclass(frozen=True)
class _Prepared:
    """The calls of one step for one number of rows, and the buffers that it reads."""

    x: NDArray[np.float32]
    targets: Vector
    outputs: Vector
    calls: tuple[Call, ...]


class DenseEngine:
    """Trains a stack of dense layers.

    Args:
        layers: from input to output.
        layout: of their parameters.
        loss: what is minimised.
        kernels: the matrix products for each layer.
    """

    def __init__(
        self, layers: Sequence[DenseLayer], layout: Layout, loss: Loss, kernels: Kernels
    ) -> None:
        self._layers, self._layout, self._loss, self._kernels = tuple(layers), layout, loss, kernels
        self._w = aligned((layout.size,))
        self._views = layout.views(self._w)
        self._ranges = trained_ranges(layout)
        counts = [part.stop - part.start for part in self._ranges]
        self._gradient = aligned((sum(counts),))
        self._shift = aligned((counts[0],))
        self._decay = np.ones((), np.float32)
        self._scale = np.ones((), np.float32)
        self._targets = loss.targets()
        self._record = LossRecord(loss)
        self._memory: dict[str, Vector] = {}
        self._prepared: dict[tuple[int, StepKind], _Prepared] = {}
        self._frozen = {p.name for p in layout.parameters if p.policy is Policy.FREEZE}

    @property
    def inputs(self) -> int:
        """Length of one flattened example."""
        return int(self._views[self._layers[0].weight].shape[1])

    def train(self, start: Vector, data: Examples, job: TrainingJob) -> LocalResult:
        """Train from ``start``; see `Learner.train`. Labels and shapes were checked before."""
        kind = step_kind(job.training, job)
        np.copyto(self._w, start)
        descent = self._begin(start, job, kind)
        count = len(data)
        x = data.x.reshape(count, -1)
        record = self._record
        record.begin()
        rate = job.learning_rate if kind.fused else 1.0
        steps, rows = 0, 0
        with np.errstate(all="ignore"):  # a diverging client is named when its update is checked
            for batch in batch_orders(count, job):
                y = data.y[batch]
                if len(y) != rows:
                    rows = len(y)
                    ready = self._ready(rows, kind)
                    self._scale[...] = rate / rows
                # The copy reads the batch in order; the products then find it in the cache.
                if isinstance(batch, slice):
                    np.copyto(ready.x, x[batch])
                else:
                    np.take(x, batch, 0, ready.x, "clip")
                self._targets.write(y, ready.targets)
                for call in ready.calls:
                    call()
                record.add(ready.outputs, ready.targets)
                if descent is not None:
                    descent.step()
                steps += 1
        return LocalResult(
            self._w.copy(), steps, steps * job.learning_rate, record.total(), record.rows
        )

    def _begin(self, start: Vector, job: TrainingJob, kind: StepKind) -> Descent[Vector] | None:
        """Set the correction's buffers, or make the optimizer."""
        first, second = self._ranges
        correction, rate = job.correction, job.learning_rate
        anchor = start if correction.anchor is None else correction.anchor
        drift = None if correction.drift is None else correction.drift[first]
        if kind.fused:
            self._decay[...] = 1 - rate * correction.pull
            if kind.shift:
                np.multiply(anchor[first], rate * correction.pull, out=self._shift)
            if drift is not None:
                self._shift -= drift * np.float32(rate)
            return None
        parts = [
            self._w[part] for part in (first, second) if part.stop > part.start or part is first
        ]
        pull = Pull(correction.pull, anchor[first], drift)
        return Descent(job.training, rate, parts, self._gradient, pull, np.zeros_like)

    def _buffer(self, name: str, shape: tuple[int, int]) -> Vector:
        """A buffer that batches of every size share, so that it stays in the cache."""
        size = shape[0] * shape[1]
        if name not in self._memory or self._memory[name].size < size:
            self._memory[name] = aligned((size,))
        return self._memory[name][:size].reshape(shape)

    def _ready(self, rows: int, kind: StepKind) -> _Prepared:
        key = (rows, kind)
        if key not in self._prepared:
            if len(self._prepared) >= _KEPT_SIZES:
                self._prepared.clear()
            self._prepared[key] = self._prepare(rows, kind)
        return self._prepared[key]

    def _prepare(self, rows: int, kind: StepKind) -> _Prepared:
        x = self._buffer("x", (rows, self.inputs))
        calls, hidden = self._forward(x)
        outputs = hidden[-1]
        targets = self._buffer("targets", (rows, len(outputs)))
        derivative = self._buffer("derivative", (len(outputs), rows))
        calls += self._loss.residual(outputs, targets.T, derivative, self._kernels)
        calls.append(partial(np.multiply, derivative, self._scale, out=derivative))
        backward, derivatives = self._backward(hidden, derivative)
        calls += backward
        averaged = self._w[self._ranges[0]]
        if kind.pull:
            calls.append(partial(np.multiply, averaged, self._decay, out=averaged))
        if kind.shift:
            calls.append(partial(np.add, averaged, self._shift, out=averaged))
        below = [x.T, *hidden]
        for number, d in derivatives.items():
            calls += self._move(number, d, below[number], kind)
        return _Prepared(x, targets, outputs, tuple(calls))

    def _forward(self, x: Vector) -> tuple[list[Call], list[Vector]]:
        hidden: list[Vector] = []
        calls: list[Call] = []
        below = x.T
        for layer in self._layers:
            weight = self._views[layer.weight]
            z = self._buffer(f"z {layer.weight}", (len(weight), len(x)))
            calls += self._kernels.product(weight, below, z)
            if layer.bias is not None:
                calls.append(partial(np.add, z, self._views[layer.bias][:, None], out=z))
            if layer.relu:
                calls.append(partial(np.maximum, z, np.zeros((), np.float32), out=z))
            hidden.append(z)
            below = z
        return calls, hidden

    def _backward(self, hidden: list[Vector], top: Vector) -> tuple[list[Call], dict[int, Vector]]:
        """Derivatives by layer number, from the last layer to the lowest one that is trained."""
        trained = [i for i, layer in enumerate(self._layers) if self._trained(layer)]
        calls: list[Call] = []
        number = len(self._layers) - 1
        derivatives = {number: top} if trained else {}
        while trained and number > trained[0]:
            weight, below = self._views[self._layers[number].weight], hidden[number - 1]
            d = self._buffer(f"d {number}", (len(below), below.shape[1]))
            calls += self._kernels.product(weight.T, derivatives[number], d)
            number -= 1
            if self._layers[number].relu:
                # h is 0 or positive, so its sign is exactly the derivative of the ReLU.
                gate = self._buffer("gate", (len(below), below.shape[1]))
                calls.append(partial(np.sign, below, out=gate))
                calls.append(partial(np.multiply, d, gate, out=d))
            derivatives[number] = d
        return calls, derivatives

    def _trained(self, layer: DenseLayer) -> bool:
        names = {layer.weight, *([layer.bias] if layer.bias else [])}
        return not names <= self._frozen

    def _gradient_of(self, name: str) -> Vector:
        """The part of the gradient vector that belongs to a trained parameter."""
        offset, view = self._layout.offsets[name], self._views[name]
        first, second = self._ranges
        start = offset if offset < first.stop else offset - second.start + first.stop
        return self._gradient[start : start + view.size].reshape(view.shape)

    def _move(self, number: int, d: Vector, below: Vector, kind: StepKind) -> tuple[Call, ...]:
        """Updates of one layer, or its part of the gradient."""
        layer, kernels = self._layers[number], self._kernels
        calls: tuple[Call, ...] = ()
        if layer.weight not in self._frozen and kind.fused:
            calls = kernels.descend(self._views[layer.weight], d, below.T)
        elif layer.weight not in self._frozen:
            calls = kernels.product(d, below.T, self._gradient_of(layer.weight))
        if layer.bias is None or layer.bias in self._frozen:
            return calls
        ones = np.ones(d.shape[1], np.float32)
        if not kind.fused:
            return (*calls, partial(np.matmul, d, ones, out=self._gradient_of(layer.bias)))
        bias = self._views[layer.bias]
        change = np.empty_like(bias)
        move = partial(np.subtract, bias, change, out=bias)
        return (*calls, partial(np.matmul, d, ones, out=change), move)
