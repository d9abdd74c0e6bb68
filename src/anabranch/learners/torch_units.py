"""Gradients of single examples for any PyTorch module, by `torch.func`.

Modules whose layers mix examples (batch normalisation in training mode) have no such gradients.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from anabranch.errors import AnabranchError
from anabranch.learners.flatten import FlatModel, batch_norms
from anabranch.learners.losses import Loss
from anabranch.learners.torch_losses import mean_loss
from anabranch.updates.layout import Layout
from anabranch.updates.sections import Vector

__all__ = ["TorchGradients"]


class TorchGradients:
    """Gradients of single examples.

    Random layers draw independently for each example.

    Args:
        module: in training mode; its own parameters are not used.
        flat: names, views and order of the parameters.
        loss: what is minimised.

    Raises:
        AnabranchError: AB-980 the module has batch normalisation that is trained.
    """

    def __init__(self, module: nn.Module, flat: FlatModel, loss: Loss) -> None:
        mixing = [name for name, layer in batch_norms(module).items() if layer.training]
        if mixing:
            raise AnabranchError(
                "AB-980",
                f"layer {mixing[0]!r} normalises over the batch, so no example has a gradient of "
                "its own.",
                fix="use group or layer normalisation, or freeze the layer (model.freeze).",
                kept="Nothing was trained.",
            )
        self._module, self._flat, self._loss = module, flat, loss

    @property
    def layout(self) -> Layout:
        """Of the parameters."""
        return self._flat.layout

    def gradients(
        self, w: Vector, x: NDArray[np.generic], y: NDArray[np.generic]
    ) -> NDArray[np.float32]:
        """One row for each example, shape (n, trained parameters)."""
        flat = self._flat
        flat.w.copy_(torch.from_numpy(np.require(w, np.float32, ["C", "W"])))
        values = {name: view.detach() for name, view in flat.views.items()}
        trained = {name: values.pop(name) for name in flat.trained}

        def loss(parameters: dict[str, Tensor], one: Tensor, label: Tensor) -> Tensor:
            outputs = functional_call(self._module, {**values, **parameters}, (one[None],))
            return mean_loss(self._loss, outputs, label[None])

        inputs, labels = torch.from_numpy(np.array(x)), torch.from_numpy(np.array(y))
        found = vmap(grad(loss), in_dims=(None, 0, 0), randomness="different")(
            trained, inputs.to(flat.w.device), labels.to(flat.w.device)
        )
        last = {p.name for p in flat.layout.parameters if p.channels_last}
        rows = [
            (g.permute(0, 1, 3, 4, 2) if name in last else g).reshape(len(y), -1)
            for name, g in ((name, found[name]) for name in flat.trained)
        ]
        return np.asarray(torch.cat(rows, 1).cpu().numpy(), np.float32)
