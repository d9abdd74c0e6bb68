"""The plain script: what a careful person writes in PyTorch on the first afternoon.

DataLoader, deepcopy of the global model for every client, `torch.optim.SGD`, FedAvg over
state_dicts by examples. Nothing is made slow on purpose.
"""

from __future__ import annotations

import copy
import time

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks import models
from benchmarks.items import BATCH, LEARNING_RATE, Item, Work, load_initial
from benchmarks.outcome import Outcome

__all__ = ["run"]

Loader = DataLoader[tuple[Tensor, ...]]


def run(item: Item, work: Work, rounds: int) -> Outcome:
    """Train ``rounds`` rounds of ``item``."""
    started = time.perf_counter()
    torch.set_num_threads(item.threads)
    loaders = _loaders(item, work)
    model = models.load(models.build(item.model), load_initial(item))
    start_up = time.perf_counter() - started
    seconds = []
    for cohort in work.cohorts[:rounds]:
        begin = time.perf_counter()
        states, weights = [], []
        for client in cohort:
            local = copy.deepcopy(model)
            train(local, loaders[client])
            states.append(local.state_dict())
            weights.append(float(work.counts[client]))
        model.load_state_dict(average(states, weights))
        seconds.append(time.perf_counter() - begin)
    return Outcome(
        np.array(seconds), models.flat(model), start_up, item.threads, f"torch {torch.__version__}"
    )


def train(model: nn.Module, loader: Loader) -> None:
    """One epoch of SGD."""
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    criterion = nn.CrossEntropyLoss()
    model.train()
    for inputs, labels in loader:
        optimizer.zero_grad()
        criterion(model(inputs), labels).backward()
        optimizer.step()


def average(states: list[dict[str, Tensor]], weights: list[float]) -> dict[str, Tensor]:
    """Mean of the state_dicts, weighted."""
    total = sum(weights)
    mean = {name: torch.zeros_like(value) for name, value in states[0].items()}
    for state, weight in zip(states, weights, strict=True):
        for name, value in state.items():
            mean[name] += value * (weight / total)
    return mean


def _loaders(item: Item, work: Work) -> list[Loader]:
    x = torch.from_numpy(work.x).view(-1, *models.input_shape(item.model))
    y = torch.from_numpy(work.y)
    bounds = list(zip(work.offsets[:-1], work.offsets[1:], strict=True))
    return [DataLoader(TensorDataset(x[a:b], y[a:b]), batch_size=BATCH) for a, b in bounds]
