"""Weight gradients that are matrix products and can be added to the weight at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

__all__ = ["Product", "fusible"]

_aten = torch.ops.aten
_TRANSPOSES = (_aten.t.default, _aten.detach.default, _aten.alias.default)


@dataclass(frozen=True)
class Product:
    """A gradient that is a (transposed) matrix product used for nothing else.

    Attributes:
        nodes: the product and the transposes behind it; they need not be computed.
        left: first factor.
        right: second factor.
        transposed: whether the gradient is the transpose of left @ right.
    """

    nodes: tuple[Node, ...]
    left: Node
    right: Node
    transposed: bool


def fusible(found: Sequence[Node | None], parameters: Sequence[Tensor]) -> dict[int, Product]:
    """The gradients that are such products, by the index of their parameter."""
    products = {}
    for index, (node, parameter) in enumerate(zip(found, parameters, strict=True)):
        product = _product_of(node) if node is not None else None
        if product is not None and parameter.is_contiguous():
            products[index] = product
    return products


def _product_of(node: Node) -> Product | None:
    chain, transposed = [], False
    while len(node.users) == 1 and node.target in _TRANSPOSES:
        transposed ^= node.target is _aten.t.default
        chain.append(node)
        (node,) = node.all_input_nodes
    if node.target is not _aten.mm.default or len(node.users) != 1:
        return None
    left, right = node.args
    if not isinstance(left, Node) or not isinstance(right, Node):
        return None
    return Product((*chain, node), left, right, transposed)
