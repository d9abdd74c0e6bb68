"""Tracing the gradient of one batch shape into a graph of tensor operations, or saying why not.

The trace holds forward pass, derivative of the loss and backward pass; autograd is not needed when
it runs. A short last batch is filled up with rows of weight zero, so that one shape is enough. That
the filling changes nothing is proved on real examples before the trace is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx

from anabranch.learners.flatten import FlatModel, batch_norms
from anabranch.learners.losses import Loss
from anabranch.learners.torch_losses import residual

__all__ = ["Batch", "Refused", "trace_gradient"]

_MOST_NODES = 20_000
_CLOSE = 1e-3


class Refused(Exception):  # noqa: N818 - an answer, not a failure
    """A module cannot be traced; the text says why."""


@dataclass(frozen=True)
class Batch:
    """The buffers that a step reads.

    Attributes:
        x: examples, shape (rows, ...).
        t: targets, shape (rows, outputs).
        weight: of each row in the gradient, shape (rows, 1); 1 / rows, or 0 for a filled row.
    """

    x: Tensor
    t: Tensor
    weight: Tensor


Gradient = Callable[..., tuple[Tensor | None, ...]]


def trace_gradient(
    module: nn.Module, flat: FlatModel, values: dict[str, Tensor], batch: Batch, loss: Loss
) -> GraphModule:
    """Trace outputs and gradients: inputs are ``values`` in order, then x, t and weight.

    Args:
        module: in training mode.
        flat: names the trained parameters.
        values: parameters by name, in the dtype of the arithmetic.
        batch: real examples without filled rows; the trace holds for this shape.
        loss: what is minimised.

    Raises:
        Refused: with the reason.
    """
    mixing = [name for name, layer in batch_norms(module).items() if layer.training]
    if mixing:
        raise Refused(f"batch normalisation ({', '.join(mixing)}) mixes the examples of a batch")
    if any(isinstance(layer, nn.RNNBase) for layer in module.modules()):
        raise Refused("a recurrent layer becomes one operation for each position and gate")
    names = tuple(values)
    gradient = _gradient(module, names, flat.trained, loss)
    inputs = (*values.values(), batch.x, batch.t, batch.weight)
    before = _state(module)
    _run(gradient, inputs)
    if before != _state(module):
        raise Refused("the module changes its own attributes or buffers while it computes")
    graph = _traced(gradient, inputs)
    _check_graph(graph)
    _prove_filling(graph, gradient, tuple(values.values()), batch)
    return graph


def _gradient(
    module: nn.Module, names: Sequence[str], trained: Sequence[str], loss: Loss
) -> Gradient:
    def gradient(*inputs: Tensor) -> tuple[Tensor | None, ...]:
        *given, x, t, weight = inputs
        values = {name: value.detach() for name, value in zip(names, given, strict=True)}
        leaves = [values[name].requires_grad_() for name in trained]
        outputs = functional_call(module, values, (x,))
        outputs = outputs.reshape(len(t), loss.outputs)
        detached = outputs.detach().float()
        derivative = (residual(loss, detached, t) * weight).to(outputs.dtype)
        found = torch.autograd.grad(outputs, leaves, derivative, allow_unused=True)
        return (detached, *found)

    return gradient


def _traced(function: Gradient, inputs: tuple[Tensor, ...]) -> GraphModule:
    try:
        graph = make_fx(function)(*inputs)
        if any(_mutates(node) for node in graph.graph.nodes):
            graph = make_fx(torch.func.functionalize(graph, remove="mutations"))(*inputs)
    except Exception as error:  # whatever a user's module may raise: the reference engine decides
        text = str(error).strip().splitlines() or [type(error).__name__]
        raise Refused(f"tracing failed: {text[0]}") from error
    graph.graph.eliminate_dead_code()
    return graph


def _mutates(node: Node) -> bool:
    target = node.target
    return isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable


def _check_graph(graph: GraphModule) -> None:
    nodes = list(graph.graph.nodes)
    if len(nodes) > _MOST_NODES:
        raise Refused(f"the trace has {len(nodes)} operations")
    for node in nodes:
        if not isinstance(node.target, torch._ops.OpOverload):
            continue
        if torch.Tag.nondeterministic_seeded in node.target.tags and not _never_drops(node):
            raise Refused(f"random operation {node.target} does not fit filled batches")
        if node.target._schema.is_mutable:
            raise Refused(f"operation {node.target} changes its input")


def _never_drops(node: Node) -> bool:
    """Whether an operation with optional dropout (attention) has it switched off."""
    assert isinstance(node.target, torch._ops.OpOverload)
    for index, argument in enumerate(node.target._schema.arguments):
        if argument.name == "dropout_p":
            given = node.args[index] if index < len(node.args) else argument.default_value
            return bool(node.kwargs.get("dropout_p", given) == 0)
    return False


def _state(module: nn.Module) -> list[object]:
    """Plain attributes and buffer contents: what a side effect of ``forward`` would change."""
    found: list[object] = []
    for layer in module.modules():
        plain = (bool, int, float, str, tuple)
        found += [(k, v) for k, v in vars(layer).items() if isinstance(v, plain)]
        found += [len(v) for v in vars(layer).values() if isinstance(v, list | dict)]
        found += [(b._version, float(b.double().sum())) for b in layer.buffers(recurse=False)]
    return found


def _prove_filling(
    graph: GraphModule, gradient: Gradient, values: tuple[Tensor, ...], batch: Batch
) -> None:
    """Refuse unless garbage in filled rows is without effect and the short batch is right."""
    rows = len(batch.x)
    kept = max(1, rows // 2) if rows > 1 else 1
    weight = torch.zeros_like(batch.weight)
    weight[:kept] = 1 / kept
    garbage = batch.x.clone()
    garbage[kept:] = batch.x[:kept].flip(0).repeat_interleave(rows, 0)[: rows - kept]
    if garbage.is_floating_point():
        garbage[kept:] = garbage[kept:] * -3 + 1
    wrong = batch.t.clone()
    wrong[kept:] = batch.t[kept:].flip(0) + 1
    first = _run(graph, (*values, batch.x, batch.t, weight))
    second = _run(graph, (*values, garbage, wrong, weight))
    short = (batch.x[:kept], batch.t[:kept], weight[:kept])
    reference = _run(gradient, (*values, *short))
    for one, other, truth in zip(first[1:], second[1:], reference[1:], strict=True):
        if one is None or other is None or truth is None:
            continue
        if not _close(one, other):
            raise Refused("rows of weight zero change the gradient: examples of a batch are mixed")
        if not _close(one, truth):
            raise Refused("a filled batch gives another gradient than the short one")


def _run(function: Gradient, inputs: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
    try:
        return function(*inputs)
    except Exception as error:  # a shape written into the module, for example
        text = str(error).strip().splitlines() or [type(error).__name__]
        raise Refused(f"the module fails: {text[0]}") from error


def _close(one: Tensor, other: Tensor) -> bool:
    loose = 5e-2 if one.dtype == torch.bfloat16 else _CLOSE
    one, other = one.double(), other.double()
    limit = loose * float(other.norm()) + 1e-6
    return float((one - other).norm()) <= limit or not bool(other.isfinite().all())
