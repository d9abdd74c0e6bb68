"""A traced graph as prepared calls over fixed buffers.

Running a graph the usual way makes every view and every result anew in each step: for a small model
that is most of the time. Here each result that fits has a fixed buffer, so views of it are made
once, and what is left is a tuple of calls with everything bound. Results that are large, or that
come in several parts, stay dynamic.

With plain SGD a weight gradient that is a matrix product is never written down: the product is
added to the weight itself.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from anabranch.learners.flat import Call
from anabranch.learners.fusion import Product, fusible
from anabranch.learners.torch_kernels import HybridKernels

__all__ = ["Program", "lower"]

_aten = torch.ops.aten
_FIXED_BYTES = 1 << 19  # larger results are freed and made again: the cache is worth more
_COPIED_BYTES = 1 << 16  # smaller results of operations without an "out" form are copied


@dataclass(frozen=True)
class Program:
    """A step: ``compute`` reads the parameters, ``write`` moves them (or writes the gradient)."""

    compute: tuple[Call, ...]
    write: tuple[Call, ...]
    outputs: Tensor


@dataclass(frozen=True, slots=True)
class _Cell:
    """Where a dynamic result stands until its last use."""

    number: int


class _Lowering:
    def __init__(self, graph: GraphModule, inputs: Sequence[Tensor], skip: set[Node]) -> None:
        self._graph = graph
        self._kernels = HybridKernels()
        self._calls: list[Call] = []
        self._cells: list[object] = []
        self._values: dict[Node, object] = {}  # what a node was in the sample run
        self._where: dict[Node, object] = {}  # a fixed tensor, a constant, or a _Cell
        self._varying: set[Node] = set()
        self._names = iter(inputs)
        self._skip = skip
        self._last_use = self._uses()

    def _uses(self) -> dict[Node, Node]:
        """The last node that reads each node; what a skipped node reads is kept to the end."""
        nodes = self._graph.graph.nodes
        last = {used: node for node in nodes for used in node.all_input_nodes}
        last.update({used: node for node in self._skip for used in node.all_input_nodes})
        return last

    def run(self) -> None:
        """Lower every node but the skipped ones."""
        for node in self._graph.graph.nodes:
            if node.op == "placeholder":
                self._values[node] = self._where[node] = next(self._names)
                self._varying.add(node)
            elif node.op == "get_attr":
                self._values[node] = self._where[node] = getattr(self._graph, str(node.target))
            elif node.op == "call_function" and node not in self._skip:
                self._function(node)

    def _function(self, node: Node) -> None:
        target = node.target
        assert callable(target)
        args, kwargs = _filled(node, self._values.__getitem__)
        result = target(*args, **kwargs)
        self._values[node] = result
        inputs = node.all_input_nodes
        if not any(used in self._varying for used in inputs):
            self._where[node] = result
            return
        self._varying.add(node)
        fixed = not any(isinstance(self._where[used], _Cell) for used in inputs)
        if fixed and isinstance(result, Tensor) and _shares(result, self._tensors(inputs)):
            self._where[node] = result  # a view of fixed memory, made once
        elif not (fixed and self._into_buffer(node, args, kwargs, result)):
            self._dynamic(node, result)
        self._free(node)

    def _tensors(self, nodes: Sequence[Node]) -> list[Tensor]:
        return [value for n in nodes if isinstance(value := self._values[n], Tensor)]

    def _into_buffer(
        self, node: Node, args: tuple[object, ...], kwargs: Mapping[str, object], result: object
    ) -> bool:
        """Give the result a fixed buffer; whether that is possible was tried, not guessed."""
        if not isinstance(result, Tensor) or result.nbytes > _FIXED_BYTES:
            return False
        buffer = torch.empty_like(result)
        if node.target is _aten.relu.default:
            calls: tuple[Call, ...] = (partial(torch.clamp, *args, min=0, out=buffer),)
        else:
            calls = self._products(node, args, kwargs, buffer) or _out(node, args, kwargs, buffer)
        if not calls:
            return False
        for call in calls:
            call()
        if not _alike(buffer, result):
            return False
        self._calls += calls
        self._values[node] = self._where[node] = buffer
        return True

    def _products(
        self, node: Node, args: tuple[object, ...], kwargs: Mapping[str, object], out: Tensor
    ) -> tuple[Call, ...]:
        """Matrix products in float32 through the kernels of the closed-form engine."""
        tensors = [a for a in args if isinstance(a, Tensor)]
        if kwargs or out.dtype != torch.float32 or not out.is_contiguous():
            return ()
        arrays = [tensor.numpy() for tensor in tensors if tensor.dtype == torch.float32]
        target = out.numpy()
        if node.target is _aten.mm.default:
            return self._kernels.product(arrays[0], arrays[1], target)
        if node.target is _aten.addmm.default and out.shape[1] < 48:
            product = self._kernels.product(arrays[1], arrays[2], target)
            return (*product, partial(np.add, target, arrays[0], out=target))
        return ()

    def _dynamic(self, node: Node, result: object) -> None:
        """Compute into a cell; small results are copied to a fixed buffer at once."""
        cell = _Cell(len(self._cells))
        self._cells.append(None)
        target = node.target
        assert callable(target)
        args, kwargs = _filled(node, self._hold)
        call = partial(_evaluate, self._cells, cell.number, target, args, kwargs)
        self._calls.append(call)
        self._where[node] = cell
        if isinstance(result, Tensor) and result.nbytes <= _COPIED_BYTES:
            buffer = result.clone()
            self._values[node] = self._where[node] = buffer
            self._calls.append(partial(_keep, self._cells, cell.number, buffer))

    def _hold(self, node: Node) -> _Hold:
        return _Hold(self._where[node])

    def _free(self, node: Node) -> None:
        for used in node.all_input_nodes:
            where = self._where[used]
            if isinstance(where, _Cell) and self._last_use[used] is node:
                self._calls.append(partial(operator.setitem, self._cells, where.number, None))

    def read(self, node: Node) -> Callable[[], Tensor]:
        """What gives the value of a node after ``compute``."""
        where = self._where[node]
        if isinstance(where, _Cell):
            return partial(_tensor_of, self._cells, where.number)
        assert isinstance(where, Tensor)
        return partial(_same, where)

    def fixed(self, node: Node) -> Tensor | None:
        """The fixed buffer of a node, or None when it is dynamic."""
        where = self._where[node]
        return where if isinstance(where, Tensor) else None

    def sample(self, node: Node) -> Tensor:
        """What the node was in the sample run."""
        value = self._values[node]
        assert isinstance(value, Tensor)
        return value

    @property
    def calls(self) -> tuple[Call, ...]:
        """The calls so far, in order."""
        return tuple(self._calls)

    @property
    def kernels(self) -> HybridKernels:
        return self._kernels


def _filled(
    node: Node, value: Callable[[Node], object]
) -> tuple[tuple[object, ...], dict[str, object]]:
    """The arguments of a node with every node replaced by its value."""

    def fill(argument: object) -> object:
        if isinstance(argument, Node):
            return value(argument)
        if isinstance(argument, list | tuple):
            return [fill(item) for item in argument]
        return argument

    return tuple(map(fill, node.args)), {key: fill(arg) for key, arg in node.kwargs.items()}


@dataclass(frozen=True, slots=True)
class _Hold:
    """An argument that is looked up when the call is made."""

    where: object


def _evaluate(
    cells: list[object],
    number: int,
    function: Callable[..., object],
    args: tuple[object, ...],
    kwargs: Mapping[str, object],
) -> None:
    found = [_look(cells, arg) for arg in args]
    cells[number] = function(*found, **{name: _look(cells, arg) for name, arg in kwargs.items()})


def _tensor_of(cells: list[object], number: int) -> Tensor:
    value = cells[number]
    assert isinstance(value, Tensor)
    return value


def _keep(cells: list[object], number: int, buffer: Tensor) -> None:
    buffer.copy_(_tensor_of(cells, number))
    cells[number] = None


def _look(cells: list[object], arg: object) -> object:
    if isinstance(arg, _Hold):
        return cells[arg.where.number] if isinstance(arg.where, _Cell) else arg.where
    if isinstance(arg, list | tuple):
        return [_look(cells, item) for item in arg]
    return arg


def _alike(one: Tensor, other: Tensor) -> bool:
    """Whether two ways to compute a result agree, rounding aside.

    Loose on purpose, and relative to the largest number: two workers that trace on the data of
    different clients must come to the same answer.
    """
    if not one.is_floating_point():
        return torch.equal(one, other)
    one, other = one.double(), other.double()
    if not bool(other.isfinite().all()):
        return True
    limit = 1e-2 * float(other.abs().max()) + 1e-6 if other.numel() else 0.0
    return bool(((one - other).abs() <= limit).all())


def _same(value: Tensor) -> Tensor:
    return value


def _shares(result: Tensor, inputs: Sequence[Tensor]) -> bool:
    where = result.untyped_storage().data_ptr()
    return any(where == given.untyped_storage().data_ptr() for given in inputs)


def _out(
    node: Node, args: tuple[object, ...], kwargs: Mapping[str, object], buffer: Tensor
) -> tuple[Call, ...]:
    """The operation writing to a given buffer; empty when PyTorch has no such form of its own."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return ()
    found = _out_overload(target)
    if found is None:
        return ()
    overload, name = found
    # The binding of the same name in ``torch`` skips the slow general dispatch from Python.
    short = getattr(torch, str(target).split(".")[1], None)
    for function, out in ((short, "out"), (overload, name)):
        if not callable(function):
            continue
        call = partial(function, *args, **kwargs, **{out: buffer})
        try:
            address = buffer.data_ptr()
            call()
        except (TypeError, RuntimeError, ValueError):
            continue
        if buffer.data_ptr() == address:
            return (call,)
    return ()


def _out_overload(target: torch._ops.OpOverload) -> tuple[torch._ops.OpOverload, str] | None:
    wanted = [(a.name, str(a.type)) for a in target._schema.arguments]
    packet = target.overloadpacket
    for name in packet.overloads():
        candidate = getattr(packet, name)
        arguments = candidate._schema.arguments
        outs = [a.name for a in arguments if a.is_out]
        given = [(a.name, str(a.type)) for a in arguments if not a.is_out]
        # A generated form computes anew and copies: nothing would be gained.
        if len(outs) == 1 and given == wanted and torch.Tag.generated not in candidate.tags:
            return candidate, str(outs[0])
    return None


def lower(
    graph: GraphModule,
    inputs: Sequence[Tensor],
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor] | None,
) -> Program:
    """Prepare the calls of a step.

    Args:
        graph: from `trace_gradient`.
        inputs: the fixed tensors behind its placeholders, holding a sample batch.
        parameters: float32 parameters in the order of the graph's gradients.
        gradients: where gradients are written; None to subtract them from the parameters (rows
            are then weighted with the learning rate already inside).
    """
    (output,) = (node for node in graph.graph.nodes if node.op == "output")
    outputs, *found = output.args[0]
    fuse = gradients is None and all(i.dtype == torch.float32 for i in inputs[: len(parameters)])
    products = fusible(found, parameters) if fuse else {}
    skip = {node for product in products.values() for node in product.nodes}
    lowering = _Lowering(graph, inputs, skip)
    lowering.run()
    write: list[Call] = []
    for index, (node, parameter) in enumerate(zip(found, parameters, strict=True)):
        if gradients is not None:
            write += _store(lowering, node, gradients[index])
        elif index in products:
            write += _descend(products[index], lowering, parameter)
        elif node is not None:
            write.append(_subtract(lowering, node, parameter))
    result = lowering.fixed(outputs)
    compute = lowering.calls
    if result is None:
        read, kept = lowering.read(outputs), torch.empty_like(lowering.sample(outputs))
        compute, result = (*compute, lambda: kept.copy_(read())), kept
    return Program(compute, tuple(write), result)


def _store(lowering: _Lowering, node: Node | None, gradient: Tensor) -> tuple[Call, ...]:
    if node is None:
        return (gradient.zero_,)
    fixed = lowering.fixed(node)
    if fixed is not None:
        return (partial(gradient.copy_, fixed),)
    read = lowering.read(node)
    return (lambda: gradient.copy_(read()),)


def _subtract(lowering: _Lowering, node: Node, parameter: Tensor) -> Call:
    fixed = lowering.fixed(node)
    if fixed is not None:
        return partial(torch.sub, parameter, fixed, out=parameter)
    read = lowering.read(node)
    return lambda: torch.sub(parameter, read(), out=parameter)


def _descend(product: Product, lowering: _Lowering, parameter: Tensor) -> tuple[Call, ...]:
    """parameter -= left @ right, without writing the product down where that is faster."""
    left, right = lowering.fixed(product.left), lowering.fixed(product.right)
    target = parameter.t() if product.transposed else parameter
    if left is not None and right is not None and not product.transposed:
        return lowering.kernels.descend(target.numpy(), left.numpy(), right.numpy())
    if left is not None and right is not None:
        return lowering.kernels.descend(target.t().numpy(), right.t().numpy(), left.t().numpy())
    a, b = lowering.read(product.left), lowering.read(product.right)
    return (lambda: torch.addmm(target, a(), b(), alpha=-1.0, out=target),)
