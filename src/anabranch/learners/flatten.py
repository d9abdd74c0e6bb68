"""A PyTorch module as a layout over one flat vector, and back.

Weights of two-dimensional convolutions stand channels-last in the vector: stored (out, height,
width, in) and seen as (out, in, height, width), which PyTorch's CPU convolutions prefer. Floating
statistics of normalisation layers are entries that no gradient moves; integer buffers are not in
the vector.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from anabranch.errors import AnabranchError
from anabranch.learners.flat import aligned, trained_ranges
from anabranch.learners.plan import ModelPlan
from anabranch.updates.layout import Layout, Parameter, Policy
from anabranch.updates.sections import Vector

__all__ = ["FlatModel", "batch_norms", "module_layout", "module_vector", "tensor_views"]


def batch_norms(module: nn.Module) -> dict[str, nn.Module]:
    """Layers that mix the examples of a batch while they are in training mode, by name."""
    return {name: m for name, m in module.named_modules() if isinstance(m, _BatchNorm)}


def module_layout(module: nn.Module, plan: ModelPlan) -> Layout:
    """The layout of a module under the plan's policies.

    Raises:
        AnabranchError: AB-307 when batch normalisation is neither frozen nor given a rule.
    """
    norms = batch_norms(module)
    moving = [
        name
        for name, layer in norms.items()
        if any(plan.policy_of(entry) is not Policy.FREEZE for entry in _entries(name, layer))
    ]
    if moving and plan.normalisation == "refuse":
        raise AnabranchError(
            "AB-307",
            f"layers {', '.join(moving)} are batch normalisation: their statistics mix clients.",
            fix="set model.normalisation = 'local' (FedBN) or 'average', freeze the layers, or "
            "use group or layer normalisation.",
        )
    local = {entry for name in moving for entry in _entries(name, norms[name])}
    keep = local if plan.normalisation == "local" else set()
    found = [*_parameters(module, plan, keep), *_statistics(module, plan, keep)]
    return Layout.of(found)


def _entries(name: str, layer: nn.Module) -> list[str]:
    prefix = f"{name}." if name else ""
    own = [n for n, _ in layer.named_parameters(recurse=False)]
    own += [n for n, b in layer.named_buffers(recurse=False) if b.is_floating_point()]
    return [prefix + n for n in own]


def _parameters(module: nn.Module, plan: ModelPlan, keep: set[str]) -> Iterator[Parameter]:
    convolutions = {
        f"{name}.weight" if name else "weight"
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Conv2d)
    }
    for name, tensor in module.named_parameters():
        policy = plan.policy_of(name) if tensor.requires_grad else Policy.FREEZE
        if policy is Policy.AVERAGE and name in keep:
            policy = Policy.LOCAL
        yield Parameter(name, tuple(tensor.shape), policy, channels_last=name in convolutions)


def _statistics(module: nn.Module, plan: ModelPlan, keep: set[str]) -> Iterator[Parameter]:
    for name, layer in module.named_modules():
        if not isinstance(layer, _NormBase):
            continue
        for own, buffer in layer.named_buffers(recurse=False):
            entry = f"{name}.{own}" if name else own
            if not buffer.is_floating_point():
                continue
            policy = plan.policy_of(entry)
            if policy is Policy.AVERAGE and entry in keep:
                policy = Policy.LOCAL
            yield Parameter(entry, tuple(buffer.shape), policy, trained=False)


def module_vector(module: nn.Module, layout: Layout) -> Vector:
    """The module's present values as one flat vector."""
    state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    values = {p.name: state[p.name].detach().float().cpu().numpy() for p in layout.parameters}
    return layout.flatten(values)


def tensor_views(flat: Tensor, layout: Layout) -> dict[str, Tensor]:
    """Views of a flat tensor in logical shapes, convolutions with channels-last strides."""
    views = {}
    for parameter in layout.parameters:
        start = layout.offsets[parameter.name]
        part = flat[start : start + parameter.size]
        if parameter.channels_last:
            out, inner, height, width = parameter.shape
            views[parameter.name] = part.view(out, height, width, inner).permute(0, 3, 1, 2)
        else:
            views[parameter.name] = part.view(parameter.shape)
    return views


class FlatModel:
    """The parameters in training: one flat tensor, its views, and a flat gradient.

    Attributes:
        w: all parameters, shape (layout.size,).
        g: gradient of the trained parameters: the averaged ones, then the local ones.
        views: parameters by name, in logical shape (views of ``w``).
        gradients: the same for ``g``.
    """

    def __init__(self, layout: Layout, device: torch.device) -> None:
        self.layout = layout
        first, second = trained_ranges(layout)
        self.ranges = (first, second)
        count = first.stop - first.start + second.stop - second.start
        self.w = _flat(layout.size, device)
        self.g = _flat(count, device)
        self.views = tensor_views(self.w, layout)
        trained = [p for p in layout.parameters if p.trained and p.policy is not Policy.FREEZE]
        self.trained = tuple(p.name for p in trained)
        self.gradients = tensor_views(self.g, Layout(tuple(trained)))

    @property
    def parts(self) -> list[Tensor]:
        """Views of the trained coordinates; the averaged ones first."""
        first, second = self.ranges
        return [self.w[first]] + ([self.w[second]] if second.stop > second.start else [])


def _flat(size: int, device: torch.device) -> Tensor:
    if device.type == "cpu":
        return torch.from_numpy(aligned((size,)))
    return torch.empty(size, dtype=torch.float32, device=device)
