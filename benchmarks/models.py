"""The three models of the benchmark, as plain PyTorch modules, and their flat parameters.

A flat vector here is what PyTorch gives: `named_parameters` in order, each contiguous (convolution
weights as O, I, H, W). Every contestant hands back this form, whatever it uses inside.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["accuracy", "build", "cnn", "flat", "initial", "input_shape", "load", "logistic", "mlp"]


def logistic() -> nn.Module:
    """784-10, 7,850 parameters."""
    return nn.Linear(784, 10)


def mlp() -> nn.Module:
    """784-200-10 with ReLU, 159,010 parameters."""
    return nn.Sequential(nn.Linear(784, 200), nn.ReLU(), nn.Linear(200, 10))


def cnn() -> nn.Module:
    """Two 5x5 convolutions (32, 64) with pooling and a dense layer of 512; 1,663,370 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(3136, 512),
        nn.ReLU(),
        nn.Linear(512, 10),
    )


def build(name: str) -> nn.Module:
    """The module called ``name``: logistic, mlp or cnn."""
    return {"logistic": logistic, "mlp": mlp, "cnn": cnn}[name]()


def input_shape(name: str) -> tuple[int, ...]:
    """Shape of one example for the module called ``name``."""
    return (1, 28, 28) if name == "cnn" else (784,)


def flat(module: nn.Module) -> NDArray[np.float32]:
    """All parameters in one vector, a copy."""
    parts = [p.detach().float().reshape(-1) for p in module.parameters()]
    return np.asarray(torch.cat(parts).numpy(), dtype=np.float32).copy()


def load(module: nn.Module, vector: NDArray[np.float32]) -> nn.Module:
    """Write ``vector`` into the parameters of ``module`` and return it."""
    rest = torch.from_numpy(np.array(vector, dtype=np.float32))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(rest[: parameter.numel()].view_as(parameter))
            rest = rest[parameter.numel() :]
    if len(rest):
        raise ValueError(f"{len(rest)} values too many for this module")
    return module


def initial(name: str) -> NDArray[np.float32]:
    """PyTorch's default initialisation under seed 0; stored once, so every engine starts equal."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return flat(build(name))


def accuracy(
    name: str, vector: NDArray[np.float32], x: NDArray[np.float32], y: NDArray[np.int64]
) -> float:
    """Share of right answers on ``x`` (n, 784) and ``y`` (n,)."""
    module = load(build(name), vector).eval()
    hits = 0
    with torch.inference_mode():
        for start in range(0, len(y), 2000):
            inputs = torch.from_numpy(x[start : start + 2000]).view(-1, *input_shape(name))
            answers: Tensor = module(inputs).argmax(1)
            hits += int((answers == torch.from_numpy(y[start : start + 2000])).sum())
    return hits / len(y)
