"""A network whose feature layers are public and never change: a million parameters.

    python examples/global-south/backbone.py    # makes backbone.safetensors, once

The two convolutions are random. The dense layer holds the 320 largest principal components of
what they give for 10,000 pictures that belong to no client (the option ``public`` of the data
source), scaled so that small ones count like large ones. Labels are not looked at, and nothing is
known of any client: it stands for a network that somebody has published.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from anabranch.data.sources.fashion import FashionMNIST

__all__ = ["PublicFeatures"]

WEIGHTS = Path(__file__).parent / "backbone.safetensors"
FEATURES, CHANNELS, PUBLIC = 320, 300, 10_000
_SEED = 20
_LEVEL = 100
"""Components below this one are scaled up less and less: they are mostly noise."""


class PublicFeatures(nn.Module):
    """conv 5x5x24, pool 2x2, conv 5x5x300 (stride 2), mean over 3x3, dense 320, head; 28 x 28 grey.

    Random features (Rahimi & Recht 2007), whitened. The head, 3,210 parameters, is a linear
    classifier on features of one norm; it alone is trained (`freeze = ["features.*"]`).
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = _layers()
        self.head = nn.Linear(FEATURES, 10)
        with torch.no_grad():  # equal chances for all classes
            self.head.weight.zero_()
            self.head.bias.zero_()
        if not WEIGHTS.exists():
            _make(self.features)
        self.features.load_state_dict(load_file(WEIGHTS))

    def forward(self, x: Tensor) -> Tensor:
        """Logits, shape (rows, 10)."""
        x = self.features["dense"](_convolved(self.features, x))
        x = x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-6)
        logits: Tensor = self.head(x)
        return logits


def _layers() -> nn.ModuleDict:
    return nn.ModuleDict(
        {
            "conv1": nn.Conv2d(1, 24, 5, padding=2),
            "conv2": nn.Conv2d(24, CHANNELS, 5, padding=2, stride=2),
            "dense": nn.Linear(9 * CHANNELS, FEATURES),
        }
    )


def _convolved(layers: nn.ModuleDict, x: Tensor) -> Tensor:
    x = torch.relu(layers["conv1"](x.reshape(-1, 1, 28, 28)))
    x = nn.functional.max_pool2d(x, 2)
    x = torch.relu(layers["conv2"](x))
    x = nn.functional.adaptive_avg_pool2d(x, 3).flatten(1)
    x = x - x.mean(1, keepdim=True)
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-6)


def _make(layers: nn.ModuleDict) -> None:
    """Draw the convolutions, look at the public pictures, keep the weights in a file."""
    draw = torch.Generator().manual_seed(_SEED)
    pool = FashionMNIST().load(0)
    x = torch.from_numpy(np.asarray(pool.x[-PUBLIC:], np.float32) / 255)
    with torch.no_grad():
        for layer in (layers["conv1"], layers["conv2"]):
            deviation = math.sqrt(2 / math.prod(layer.weight.shape[1:]))  # He et al. 2015
            layer.weight.normal_(0.0, deviation, generator=draw)
            layer.bias.zero_()
        first = layers["conv1"].weight  # filters without a mean see edges, not brightness
        first -= first.mean((1, 2, 3), keepdim=True)
        seen = torch.cat(
            [_convolved(layers, part) for part in (x[i : i + 250] for i in range(0, len(x), 250))]
        ).double()
        mean = seen.mean(0)
        values, vectors = torch.linalg.eigh(torch.cov(seen.T))
        values, vectors = values.flip(0), vectors.flip(1)[:, :FEATURES]
        scaled = (vectors / torch.sqrt(values[:FEATURES] + values[_LEVEL])).T
        layers["dense"].weight.copy_(scaled)
        layers["dense"].bias.copy_(-scaled @ mean)
    part = WEIGHTS.with_suffix(f".{os.getpid()}.part")
    save_file(layers.state_dict(), part)
    part.replace(WEIGHTS)


if __name__ == "__main__":
    count = sum(p.numel() for p in PublicFeatures().parameters())
    print(f"{WEIGHTS.name}: {count:,} parameters with the head")
