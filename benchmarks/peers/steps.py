"""Local training for peers that leave it to the user: preloaded tensors, `torch.optim.SGD`."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn

from benchmarks import models
from benchmarks.items import BATCH, ITEMS, LEARNING_RATE, Item, Work, load_work

__all__ = ["client_data", "loaded", "train"]


@lru_cache(maxsize=1)
def loaded(name: str) -> tuple[Item, Work, nn.Module]:
    """Item, data and a module to train in; once a process."""
    item = ITEMS[name]
    return item, load_work(item), models.build(item.model)


def client_data(item: Item, work: Work, client: int) -> tuple[Tensor, Tensor]:
    """Inputs and labels of ``client``, views of the loaded arrays."""
    rows = slice(int(work.offsets[client]), int(work.offsets[client + 1]))
    inputs = torch.from_numpy(work.x[rows]).view(-1, *models.input_shape(item.model))
    return inputs, torch.from_numpy(work.y[rows])


def train(model: nn.Module, inputs: Tensor, labels: Tensor) -> None:
    """One epoch of SGD in order, short last batch kept."""
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    criterion = nn.CrossEntropyLoss()
    model.train()
    for start in range(0, len(labels), BATCH):
        optimizer.zero_grad()
        batch = slice(start, start + BATCH)
        criterion(model(inputs[batch]), labels[batch]).backward()
        optimizer.step()
