"""A learner for any PyTorch module: closed-form, traced or reference engine.

Results do not depend on what the learner trained before, nor on the worker: every client starts
with fresh optimizer state and fully overwritten buffers. One intra-op thread is assumed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from anabranch.algorithms.base import Correction
from anabranch.data.federation import Examples
from anabranch.learners.base import LocalResult, TrainingJob
from anabranch.learners.checks import check_shape, chunk_rows
from anabranch.learners.closed_form import DenseEngine, DenseLayer, step_kind
from anabranch.learners.dense_units import DenseGradients
from anabranch.learners.eager import EagerEngine
from anabranch.learners.flatten import FlatModel, batch_norms, module_layout, module_vector
from anabranch.learners.losses import Loss
from anabranch.learners.models import filled, probe
from anabranch.learners.plan import ModelPlan
from anabranch.learners.private_sgd import ExampleGradients, train_privately
from anabranch.learners.torch_kernels import HybridKernels
from anabranch.learners.torch_units import TorchGradients
from anabranch.learners.trace import Refused
from anabranch.learners.traced import TracedEngine
from anabranch.learners.training import LocalTraining
from anabranch.randomness import derived_seed
from anabranch.updates.layout import Layout, Policy
from anabranch.updates.sections import Vector

__all__ = ["EngineName", "EngineReport", "TorchLearner", "dense_layers_of"]

EngineName: TypeAlias = Literal["auto", "closed-form", "traced", "eager"]
"""How gradients are computed."""

_STEPS_A_CHECK = 2048
"""About one step in so many is done twice; that costs less than 2 % even of the smallest steps."""


@dataclass(frozen=True, slots=True)
class EngineReport:
    """Which engine trains, and why not a faster one.

    Attributes:
        engine: in use now.
        reason: why a faster engine was refused; empty when none was.
        checks: clients whose first step was compared with the reference engine.
        mismatches: comparisons that failed; after the first one the reference engine is used.
    """

    engine: EngineName
    reason: str = ""
    checks: int = 0
    mismatches: int = 0


Engine: TypeAlias = DenseEngine | TracedEngine | EagerEngine


class TorchLearner:
    """Local training and prediction for one module and one loss.

    Args:
        factory: makes the module; called under a seeded generator.
        plan: policies of the parameters.
        loss: what is minimised.
        input_shape: of one example.
        initial: own rule for initial vectors (built-in models); None for the module's own.
        engine: ``auto`` takes the fastest that fits.
        tokens: examples are integers (text); otherwise integers become float32.
        precision: ``bfloat16`` computes in bfloat16 with float32 parameters.
        device: where modules run; only the CPU is tested.
    """

    def __init__(
        self,
        factory: Callable[[], nn.Module],
        plan: ModelPlan,
        loss: Loss,
        input_shape: tuple[int, ...],
        *,
        initial: Callable[[Layout, int], Vector] | None = None,
        engine: EngineName = "auto",
        tokens: bool = False,
        precision: Literal["float32", "bfloat16"] = "float32",
        device: str = "cpu",
    ) -> None:
        self._factory, self._plan, self._loss, self._initial = factory, plan, loss, initial
        self._input_shape, self._tokens = input_shape, tokens
        self._dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        self._device = torch.device(device)
        self._module = seeded_module(factory, 0).to(self._device)
        self._layout = module_layout(self._module, plan)
        self._flat = FlatModel(self._layout, self._device)
        self._evaluated = copy.deepcopy(self._module).eval()
        _set_training(self._module, self._layout)
        self._eager = EagerEngine(self._module, self._flat, loss, self._dtype)
        self._engine: Engine = self._eager
        self._report = EngineReport("eager")
        self._choose(engine)

    def _choose(self, wanted: EngineName) -> None:
        layers = dense_layers_of(self._module)
        on_cpu, plain = self._device.type == "cpu", self._dtype == torch.float32
        if wanted == "eager":
            return
        if wanted in ("auto", "closed-form") and layers and on_cpu and plain:
            kernels = HybridKernels()
            self._engine = DenseEngine(layers, self._layout, self._loss, kernels)
            self._report = EngineReport("closed-form")
            return
        reason = ""
        if wanted == "closed-form":
            reason = "closed-form needs a stack of dense layers with ReLU, in float32 on the CPU"
        if not on_cpu:
            self._report = EngineReport("eager", f"traced steps run on the CPU only. {reason}")
            return
        self._engine = TracedEngine(self._module, self._flat, self._loss, self._dtype)
        self._report = EngineReport("traced", reason)

    @property
    def layout(self) -> Layout:
        """Names, shapes and policies of the parameters."""
        return self._layout

    @property
    def loss(self) -> Loss:
        """The loss that is minimised."""
        return self._loss

    @property
    def engine_report(self) -> EngineReport:
        """Which engine trains, and why not a faster one."""
        return self._report

    def initial(self, seed: int) -> Vector:
        """Initial parameters: a pure function of ``seed``."""
        if self._initial is not None:
            return self._initial(self._layout, seed)
        return module_vector(seeded_module(self._factory, seed), self._layout)

    def train(self, start: Vector, data: Examples, job: TrainingJob) -> LocalResult:
        """Train from ``start`` on ``data``.

        Raises:
            AnabranchError: AB-302 labels, AB-306 no examples, AB-308 shape of an example.
        """
        check_shape(data, self._input_shape, self._loss, job.client)
        data = Examples(self._inputs(data.x), data.y, data.subjects)
        if job.private is not None:
            return train_privately(self._singles(), start, data, job, job.private)
        if self._engine is not self._eager and self._is_due(len(data), job):
            self._check(start, data, job)
        try:
            return self._engine.train(start, data, job)
        except Refused as refused:
            self._engine = self._eager
            self._report = EngineReport("eager", f"AB-312: {refused}")
            return self._eager.train(start, data, job)

    def _singles(self) -> ExampleGradients:
        """Gradients of single examples: by hand for dense stacks, else by `torch.func`."""
        if isinstance(self._engine, DenseEngine):
            layers = dense_layers_of(self._module)
            return DenseGradients(layers, self._layout, self._loss, HybridKernels())
        return TorchGradients(self._module, self._flat, self._loss)

    def _inputs(self, x: NDArray[np.generic]) -> NDArray[np.generic]:
        """Examples in the type that the module reads."""
        return x.astype(np.int64 if self._tokens else np.float32, copy=False)

    def _is_due(self, examples: int, job: TrainingJob) -> bool:
        """Whether to compare with the reference: the first client, then a public draw."""
        if not self._report.checks:
            return True
        training = job.training
        batches = -(-examples // (training.batch_size or examples))
        steps = training.steps or (training.epochs or 1) * batches
        return job.draws % _STEPS_A_CHECK < steps

    def _check(self, start: Vector, data: Examples, job: TrainingJob) -> None:
        """Compare one plain step with the reference; a mismatch ends the use of the engine."""
        size = job.training.batch_size
        # An enormous clipping norm clips nothing, but takes the path that collects the gradient.
        clip = None if step_kind(job.training, job).fused else 1e30
        step = LocalTraining(steps=1, batch_size=size, shuffle=False, clip_norm=clip)
        one = replace(job, training=step, correction=Correction())
        try:
            fast = self._engine.train(start, data, one).end
        except Refused:
            return
        truth = self._eager.train(start, data, one).end
        error = float(np.linalg.norm(fast - truth))
        moved, size_of = float(np.linalg.norm(truth - start)), float(np.linalg.norm(truth))
        loose = 5e-2 if self._dtype == torch.bfloat16 else 2e-3
        good = error <= loose * moved + 1e-6 * size_of or not np.isfinite(error)
        report = replace(self._report, checks=self._report.checks + 1)
        if not good:
            reason = f"AB-311: a step differed from the reference by {error:.3g}"
            report = replace(report, engine="eager", reason=reason, mismatches=1)
            self._engine = self._eager
        self._report = report

    def predict(self, vector: Vector, x: NDArray[np.generic]) -> NDArray[np.float32]:
        """Outputs in evaluation mode, shape (n, outputs), in chunks and without gradients."""
        self._flat.w.copy_(torch.from_numpy(np.require(vector, np.float32, ["C", "W"])))
        result = np.empty((len(x), self._loss.outputs), np.float32)
        rows = chunk_rows(int(np.prod(self._input_shape)))
        with torch.no_grad():
            for start in range(0, len(x), rows):
                part = torch.from_numpy(self._inputs(np.array(x[start : start + rows])))
                outputs = functional_call(
                    self._evaluated, self._flat.views, (part.to(self._device),)
                )
                found = outputs.float().reshape(len(part), -1).cpu()
                result[start : start + rows] = found.numpy()
        return result

    def training_flops(self) -> float:
        """Floating-point operations of one training example, forward and backward, counted."""
        module = seeded_module(self._factory, 0)
        free = {p.name for p in self._layout.parameters if p.policy is not Policy.FREEZE}
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name in free)
        examples = probe(self._input_shape, self._tokens)
        with FlopCounterMode(display=False) as counter:
            module(examples).float().sum().backward()
        return float(counter.get_total_flops()) / len(examples)

    def module(self, vector: Vector) -> nn.Module:
        """A new module with the parameters in ``vector``, in evaluation mode."""
        return filled(seeded_module(self._factory, 0), self._layout.views(vector))


def seeded_module(factory: Callable[[], nn.Module], seed: int) -> nn.Module:
    """A new module whose random initial values depend on ``seed`` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, "initial"))
        return factory()


def _set_training(module: nn.Module, layout: Layout) -> None:
    """Training mode, except for normalisation layers that are frozen altogether."""
    module.train()
    free = {p.name for p in layout.parameters if p.policy is not Policy.FREEZE}
    for name, layer in batch_norms(module).items():
        own = {f"{name}.{n}" for n, _ in layer.named_parameters(recurse=False)}
        own |= {f"{name}.{n}" for n, _ in layer.named_buffers(recurse=False)}
        if not own & free:
            layer.eval()


def dense_layers_of(module: nn.Module) -> tuple[DenseLayer, ...]:
    """The layers of a stack of `nn.Linear` with ReLU between them; empty for anything else."""
    found: list[DenseLayer] = []
    for name, layer in _leaves("", module):
        hooks = layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks
        if hooks:
            return ()
        if type(layer) is nn.Linear:
            found.append(DenseLayer(f"{name}weight", _bias(name, layer), relu=False))
        elif type(layer) is nn.ReLU and found and not found[-1].relu:
            found[-1] = replace(found[-1], relu=True)
        elif not (type(layer) is nn.Flatten and not found and layer.start_dim == 1):
            return ()
    names = [layer.weight for layer in found]
    shared = len(names) != sum(isinstance(m, nn.Linear) for m in module.modules())
    return () if not found or shared or found[-1].relu else tuple(found)


def _bias(name: str, layer: nn.Linear) -> str | None:
    return None if layer.bias is None else f"{name}bias"


def _leaves(prefix: str, module: nn.Module) -> Iterable[tuple[str, nn.Module]]:
    if type(module) is not nn.Sequential:
        yield (f"{prefix}." if prefix else ""), module
        return
    for name, child in module.named_children():
        yield from _leaves(f"{prefix}.{name}" if prefix else name, child)
