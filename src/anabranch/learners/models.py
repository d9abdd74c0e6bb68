"""Built-in small models, and the factories of a user's own.

Parameter counts for 28x28x1 and 10 classes: logistic 7,850; mlp with 200 hidden units 159,010;
leaf-cnn with 512 hidden units 1,663,370.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from anabranch.errors import AnabranchError
from anabranch.learners.dense import DenseStack, Draw
from anabranch.learners.plan import ParameterValue

__all__ = ["CharGRU", "LeafCNN", "dense_module", "filled", "module_draws"]


def dense_module(stack: DenseStack) -> nn.Sequential:
    """A dense stack as a module with the stack's parameter names."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    for index, name in enumerate(stack.names):
        layers[name] = nn.Linear(stack.sizes[index], stack.sizes[index + 1])
        if index < len(stack.names) - 1:
            layers[f"relu{index + 1}"] = nn.ReLU()
    return nn.Sequential(layers)


def filled(module: nn.Module, parameters: Mapping[str, NDArray[np.float32]]) -> nn.Module:
    """``module`` with these parameters and buffers, in evaluation mode."""
    state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    with torch.no_grad():
        for name, value in parameters.items():
            state[name].copy_(torch.from_numpy(np.array(value)))
    return module.eval()


class LeafCNN(nn.Module):
    """The convolutional network of LEAF (Caldas et al. 2018) and McMahan et al. 2017.

    conv 5x5x32, pool 2x2, conv 5x5x64, pool 2x2, dense ``hidden``, dense ``classes``; ReLU behind
    all but the last; "same" padding.

    Args:
        input_shape: (height, width), (height, width, channels) or (channels, height, width); the
            channels are the shorter end. A flat vector is taken as a square grey image.
        classes: outputs.
        hidden: units of the dense layer (LEAF uses 2048 for FEMNIST).
    """

    def __init__(self, input_shape: tuple[int, ...], classes: int, hidden: int = 512) -> None:
        super().__init__()
        self._grid, self._last = _image(input_shape)
        channels, height, width = self._grid
        self.conv1 = nn.Conv2d(channels, 32, 5, padding=2)
        self.conv2 = nn.Conv2d(32, 64, 5, padding=2)
        self.pool = nn.MaxPool2d(2)
        self.relu = nn.ReLU()
        self.dense = nn.Linear(64 * (height // 4) * (width // 4), hidden)
        self.output = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, shape (rows, classes)."""
        channels, height, width = self._grid
        if self._last:
            x = x.reshape(-1, height, width, channels).permute(0, 3, 1, 2)
        else:
            x = x.reshape(-1, channels, height, width)
        x = self.relu(self.pool(self.conv1(x)))
        x = self.relu(self.pool(self.conv2(x)))
        logits: Tensor = self.output(self.relu(self.dense(x.flatten(1))))
        return logits


def _image(shape: tuple[int, ...]) -> tuple[tuple[int, int, int], bool]:
    """(channels, height, width), and whether the channels come last in the data."""
    if len(shape) == 3 and shape[2] < shape[0]:
        return (shape[2], shape[0], shape[1]), True
    if len(shape) == 3:
        return (shape[0], shape[1], shape[2]), False
    if len(shape) == 2:
        return (1, shape[0], shape[1]), False
    side = math.isqrt(math.prod(shape))
    if len(shape) == 1 and side * side == shape[0]:
        return (1, side, side), False
    raise AnabranchError(
        "AB-308",
        f"the model 'leaf-cnn' reads images; the examples have shape {shape}.",
        fix="give examples of shape (height, width) or (height, width, channels).",
    )


class CharGRU(nn.Module):
    """Next character after a text: embedding, GRU, dense layer on the last state.

    Args:
        vocabulary: number of tokens; also the number of classes.
        embedding: length of a token's vector.
        hidden: units of the recurrent layer.
        layers: recurrent layers.
    """

    def __init__(
        self, vocabulary: int, embedding: int = 8, hidden: int = 128, layers: int = 1
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.gru = nn.GRU(embedding, hidden, layers, batch_first=True)
        self.output = nn.Linear(hidden, vocabulary)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the next token, shape (rows, vocabulary); x holds tokens (rows, length)."""
        states, _ = self.gru(self.embedding(x.long()))
        logits: Tensor = self.output(states[:, -1])
        return logits


def module_draws(module: nn.Module) -> tuple[Draw, ...]:
    """How the parameters of a built-in module start (PyTorch's bounds, our own generator)."""
    return tuple(_draws(module))


def _draws(module: nn.Module) -> Iterable[Draw]:
    for prefix, layer in module.named_modules():
        if isinstance(layer, nn.GRU):
            bound = 1 / math.sqrt(layer.hidden_size)
        elif isinstance(layer, nn.Linear | nn.Conv2d):
            bound = 1 / math.sqrt(math.prod(layer.weight.shape[1:]))
        else:
            bound = 1.0
        for name, value in layer.named_parameters(recurse=False):
            full = f"{prefix}.{name}" if prefix else name
            yield Draw(full, tuple(value.shape), bound, isinstance(layer, nn.Embedding))


def outputs_of(module: nn.Module, example: Tensor) -> int:
    """The number of outputs of a module, found by showing it one example.

    Raises:
        AnabranchError: AB-308 when the module cannot read the example, AB-301 when its output is
            not one row of numbers for each example.
    """
    was = module.training
    module.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            found = module(example)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        raise AnabranchError(
            "AB-308",
            f"the model cannot read examples of shape {tuple(example.shape[1:])}: "
            f"{str(error).splitlines()[0]}.",
            fix="make the first layer fit the shape of one example.",
        ) from error
    finally:
        module.train(was)
    if not isinstance(found, Tensor) or found.ndim not in (1, 2) or len(found) != len(example):
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise AnabranchError(
            "AB-301",
            f"the model answers {len(example)} examples with {shape}.",
            fix="return a tensor of shape (examples, outputs).",
        )
    return 1 if found.ndim == 1 else int(found.shape[1])


def reads_tokens(module: nn.Module) -> bool:
    """Whether the module looks tokens up in a table, so that its examples are integers."""
    return any(isinstance(layer, nn.Embedding | nn.EmbeddingBag) for layer in module.modules())


def probe(input_shape: tuple[int, ...], tokens: bool) -> Tensor:
    """Two examples of zeros."""
    dtype = torch.int64 if tokens else torch.float32
    return torch.zeros((2, *input_shape), dtype=dtype)


def built_in(
    name: str, parameters: Mapping[str, ParameterValue], shape: tuple[int, ...], outputs: int
) -> nn.Module:
    """The built-in convolutional or recurrent model."""
    sizes = {key: _positive(key, value) for key, value in parameters.items()}
    if name == "leaf-cnn":
        return LeafCNN(shape, outputs, **sizes)
    return CharGRU(outputs, **sizes)


def _positive(name: str, value: ParameterValue) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise AnabranchError(
            "AB-309",
            f"model.parameters.{name} is {value!r}; wanted is a positive whole number.",
            fix=f"write for example {name} = 128.",
        )
    return value


def device_name(wanted: str) -> str:
    """The device to use: ``auto`` is CUDA where there is one, else the CPU."""
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return wanted
