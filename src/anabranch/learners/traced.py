"""The engine for any module that can be traced: prepared calls instead of autograd."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from anabranch.data.federation import Examples
from anabranch.learners.base import LocalResult, TrainingJob, batch_orders
from anabranch.learners.closed_form import StepKind, step_kind
from anabranch.learners.eager import make_descent
from anabranch.learners.flat import Call, aligned
from anabranch.learners.flatten import FlatModel, tensor_views
from anabranch.learners.losses import Loss, Targets
from anabranch.learners.lower import Program, lower
from anabranch.learners.record import LossRecord
from anabranch.learners.trace import Batch, trace_gradient
from anabranch.updates.sections import Vector

__all__ = ["TracedEngine", "rows_of"]


def rows_of(batch_size: int, examples: int) -> int:
    """Rows of the traced batch: the batch size, or a power of two for much smaller clients.

    It depends on the client alone, so every worker computes with the same shape.

    >>> rows_of(32, 600), rows_of(32, 5), rows_of(512, 60), rows_of(0, 100)
    (32, 32, 64, 128)
    """
    enough = 1 << (examples - 1).bit_length()
    return min(batch_size, max(64, enough)) if batch_size else enough


class _Loader:
    """The buffers of one batch shape; a short batch is filled with copies of its first row."""

    def __init__(self, rows: int, data: Examples, targets: Targets, outputs: int) -> None:
        self.x = aligned((rows, *data.x.shape[1:]), data.x.dtype)
        self.t = aligned((rows, outputs))
        self.weight = aligned((rows, 1))
        self._targets, self._filled = targets, 0
        # A real batch without filled rows, for the trace.
        sample = np.arange(rows) % len(data)
        np.take(data.x, sample, 0, self.x, "clip")
        targets.write(data.y[sample], self.t)
        self.weight[:] = 1 / rows

    def begin(self, scale: float) -> None:
        """Start a client; the weights of a batch will add up to ``scale``."""
        self._scale, self._filled = scale, 0

    def load(self, data: Examples, batch: slice | NDArray[np.int64]) -> int:
        """Read a batch; returns its rows."""
        y = data.y[batch]
        count = len(y)
        if isinstance(batch, slice):
            np.copyto(self.x[:count], data.x[batch])
        else:
            np.take(data.x, batch, 0, self.x[:count], "clip")
        self._targets.write(y, self.t[:count])
        if count != self._filled:
            self._filled = count
            self.weight[:count] = self._scale / count
            self.weight[count:] = 0
        if count != len(self.t):
            self.x[count:] = self.x[0]
            self.t[count:] = self.t[0]
        return count


class TracedEngine:
    """Trains a traced module.

    Args:
        module: in training mode.
        flat: parameters and gradient, on the CPU.
        loss: what is minimised.
        dtype: of the arithmetic; parameters stay float32.
    """

    def __init__(self, module: nn.Module, flat: FlatModel, loss: Loss, dtype: torch.dtype) -> None:
        self._module, self._flat, self._loss, self._dtype = module, flat, loss, dtype
        self._targets = loss.targets()
        self._record = LossRecord(loss)
        self._loaders: dict[tuple[int, ...], _Loader] = {}
        self._programs: dict[tuple[tuple[int, ...], bool], Program] = {}
        self._decay = np.ones((), np.float32)
        self._w = flat.w.numpy()
        self._averaged = self._w[flat.ranges[0]]
        self._shift = aligned(self._averaged.shape)
        self._narrow = None if dtype == torch.float32 else flat.w.to(dtype)

    def train(self, start: Vector, data: Examples, job: TrainingJob) -> LocalResult:
        """Train from ``start``; see `Learner.train`.

        Raises:
            Refused: the module cannot be traced (on the first client only).
        """
        training = job.training
        kind = step_kind(training, job)
        np.copyto(self._w, start)
        loader, program = self._ready(data, rows_of(training.batch_size, len(data)), kind)
        calls = (*program.compute, *self._correction(start, job, kind), *program.write)
        loader.begin(job.learning_rate if kind.fused else 1.0)
        descent = None if kind.fused else make_descent(self._flat, start, job)
        outputs, targets = program.outputs.numpy().T, loader.t
        record, steps = self._record, 0
        record.begin()
        with np.errstate(all="ignore"):  # a diverging client is named when its update is checked
            for batch in batch_orders(len(data), job):
                count = loader.load(data, batch)
                for call in calls:
                    call()
                record.add(outputs[:, :count], targets[:count])
                if descent is not None:
                    descent()
                steps += 1
        return LocalResult(
            self._w.copy(), steps, steps * job.learning_rate, record.total(), record.rows
        )

    def _correction(self, start: Vector, job: TrainingJob, kind: StepKind) -> tuple[Call, ...]:
        """w <- (1 - rate pull) w + rate (pull anchor - drift), between reading and writing w."""
        if not kind.shift:
            return ()
        first, correction, rate = self._flat.ranges[0], job.correction, job.learning_rate
        anchor = start if correction.anchor is None else correction.anchor
        np.multiply(anchor[first], np.float32(rate * correction.pull), out=self._shift)
        if correction.drift is not None:
            self._shift -= correction.drift[first] * np.float32(rate)
        w = self._averaged
        add = partial(np.add, w, self._shift, out=w)
        if not kind.pull:
            return (add,)
        self._decay[...] = 1 - rate * correction.pull
        return (partial(np.multiply, w, self._decay, out=w), add)

    def _ready(self, data: Examples, rows: int, kind: StepKind) -> tuple[_Loader, Program]:
        shape = (rows, *data.x.shape[1:])
        if shape not in self._loaders:
            self._loaders[shape] = _Loader(rows, data, self._targets, self._loss.outputs)
        key = (shape, kind.fused)
        if key not in self._programs:
            loader = _Loader(rows, data, self._targets, self._loss.outputs)
            self._loaders[shape] = loader
            for fused in (True, False):
                self._programs.pop((shape, fused), None)
            self._programs[key] = self._program(loader, fused=kind.fused)
        return self._loaders[shape], self._programs[key]

    def _program(self, loader: _Loader, *, fused: bool) -> Program:
        flat = self._flat
        values, before = dict(flat.views), list[Call]()
        if self._narrow is not None:
            self._narrow.copy_(flat.w)
            values = tensor_views(self._narrow, flat.layout)
            before.append(partial(self._narrow.copy_, flat.w))
        x = torch.from_numpy(loader.x)
        if x.is_floating_point() and self._dtype != torch.float32:
            wide, x = x, x.to(self._dtype)
            before.append(partial(x.copy_, wide))
        batch = Batch(x, torch.from_numpy(loader.t), torch.from_numpy(loader.weight))
        with torch.random.fork_rng(devices=[]):
            graph = trace_gradient(self._module, flat, values, batch, self._loss)
        inputs = (*values.values(), batch.x, batch.t, batch.weight)
        parameters = [flat.views[name] for name in flat.trained]
        gradients = None if fused else [flat.gradients[name] for name in flat.trained]
        program = lower(graph, inputs, parameters, gradients)
        return Program((*before, *program.compute), program.write, program.outputs)
