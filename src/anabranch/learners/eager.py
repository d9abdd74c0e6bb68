"""The reference engine: autograd on every batch, for any module."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from anabranch.data.federation import Examples
from anabranch.learners.base import LocalResult, TrainingJob, batch_orders
from anabranch.learners.flatten import FlatModel, batch_norms
from anabranch.learners.losses import Loss
from anabranch.learners.optim import Descent, Pull
from anabranch.learners.torch_losses import mean_loss
from anabranch.updates.sections import Vector

__all__ = ["EagerEngine", "make_descent"]


class EagerEngine:
    """Trains any module with `torch.autograd.grad` over views of the flat vector.

    Random layers draw from PyTorch's generator, seeded with ``job.draws`` and restored afterwards:
    the same client in the same round draws the same numbers in every worker. A batch of one example
    has no variance: batch normalisation then uses its running statistics.

    Args:
        module: in training mode; its own parameters are not used.
        flat: parameters and gradient.
        loss: what is minimised.
        dtype: of the arithmetic; parameters stay float32.
    """

    def __init__(self, module: nn.Module, flat: FlatModel, loss: Loss, dtype: torch.dtype) -> None:
        self._module, self._flat, self._loss, self._dtype = module, flat, loss, dtype
        self._device = flat.w.device
        self._mixing = [layer for layer in batch_norms(module).values() if layer.training]
        # Buffers outside the vector (counters, a module's own memory) start over for each client.
        self._buffers = [b for name, b in module.named_buffers() if name not in flat.views]
        self._fresh = [b.clone() for b in self._buffers]

    def train(self, start: Vector, data: Examples, job: TrainingJob) -> LocalResult:
        """Train from ``start``; see `Learner.train`."""
        flat = self._flat
        flat.w.copy_(torch.from_numpy(np.require(start, np.float32, ["C", "W"])))
        for buffer, value in zip(self._buffers, self._fresh, strict=True):
            buffer.copy_(value)
        descent = make_descent(flat, start, job)
        x, y = torch.from_numpy(_own(data.x)), torch.from_numpy(_own(data.y))
        steps, rows, loss_sum = 0, 0, 0.0
        with torch.random.fork_rng(devices=_devices(self._device)):
            torch.manual_seed(job.draws)
            for batch in batch_orders(len(data), job):
                index = batch if isinstance(batch, slice) else torch.from_numpy(batch)
                inputs, labels = x[index].to(self._device), y[index].to(self._device)
                loss = self.gradient(inputs, labels)
                loss_sum += loss * len(labels)
                rows += len(labels)
                descent()
                steps += 1
        end: Vector = flat.w.to("cpu", copy=True).numpy()
        return LocalResult(end, steps, steps * job.learning_rate, loss_sum, rows)

    def gradient(self, x: Tensor, y: Tensor) -> float:
        """Write the gradient of the batch's mean loss to the flat gradient; returns the loss."""
        flat = self._flat
        values = {name: view.detach() for name, view in flat.views.items()}
        leaves = []
        for name in flat.trained:
            values[name] = values[name].to(self._dtype).requires_grad_()
            leaves.append(values[name])
        if x.is_floating_point():
            x = x.to(self._dtype)
        outputs = self._outputs(values, x)
        loss = mean_loss(self._loss, outputs.float(), y)
        gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
        with torch.no_grad():
            for name, gradient in zip(flat.trained, gradients, strict=True):
                if gradient is None:
                    flat.gradients[name].zero_()
                else:
                    flat.gradients[name].copy_(gradient)
        return float(loss.detach())

    def _outputs(self, values: dict[str, Tensor], x: Tensor) -> Tensor:
        for layer in self._mixing:
            layer.train(len(x) > 1)
        outputs: Tensor = functional_call(self._module, values, (x,))
        for layer in self._mixing:
            layer.train()
        return outputs


def make_descent(flat: FlatModel, start: Vector, job: TrainingJob) -> Callable[[], None]:
    """The optimizer step of one client over the flat model."""
    first, correction = flat.ranges[0], job.correction
    anchor = (start if correction.anchor is None else correction.anchor)[first]
    drift = None if correction.drift is None else correction.drift[first]
    training, rate = job.training, job.learning_rate
    if flat.w.device.type == "cpu":
        parts = [part.numpy() for part in flat.parts]
        pull = Pull(correction.pull, anchor, drift)
        return Descent(training, rate, parts, flat.g.numpy(), pull, np.zeros_like).step
    device = flat.w.device
    there = None if drift is None else torch.from_numpy(_own(drift)).to(device)
    moved = Pull(correction.pull, torch.from_numpy(_own(anchor)).to(device), there)
    return Descent(training, rate, flat.parts, flat.g, moved, torch.zeros_like).step


def _own(array: np.ndarray) -> np.ndarray:
    """An array that PyTorch accepts without a warning: contiguous and writable."""
    return np.require(array, requirements=["C", "W"])


def _devices(device: torch.device) -> list[torch.device]:
    return [device] if device.type == "cuda" else []
