"""The tuned loop: what an expert writes who wants PyTorch's eager mode to be fast.

Preloaded tensors cut by views, `torch.autograd.grad`, fused `_foreach` updates on one set of
parameters that is overwritten for every client, aggregation in place.
"""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmarks import models
from benchmarks.items import BATCH, LEARNING_RATE, Item, Work, load_initial
from benchmarks.outcome import Outcome

__all__ = ["run", "run_double"]

Batches = list[tuple[Tensor, Tensor]]


def run_double(item: Item, work: Work, rounds: int) -> Outcome:
    """The same in float64: what every contestant approximates."""
    return run(item, dataclasses.replace(work, x=work.x.astype(np.float64)), rounds)


def run(item: Item, work: Work, rounds: int) -> Outcome:
    """Train ``rounds`` rounds of ``item``, in the type of ``work.x``."""
    started = time.perf_counter()
    torch.set_num_threads(item.threads)
    batches = _batches(item, work)
    model = models.load(models.build(item.model), load_initial(item)).train()
    model = model.to(batches[0][0][0].dtype)
    parameters: list[Tensor] = list(model.parameters())
    current = [p.detach().clone() for p in parameters]
    total = [torch.zeros_like(p) for p in current]
    start_up = time.perf_counter() - started
    seconds = []
    for cohort in work.cohorts[:rounds]:
        begin = time.perf_counter()
        examples = float(work.counts[cohort].sum())
        torch._foreach_zero_(total)
        for client in cohort:
            with torch.no_grad():
                torch._foreach_copy_(parameters, current)
            for inputs, labels in batches[client]:
                gradients = torch.autograd.grad(cross_entropy(model(inputs), labels), parameters)
                with torch.no_grad():
                    torch._foreach_add_(parameters, gradients, alpha=-LEARNING_RATE)
            with torch.no_grad():
                torch._foreach_add_(total, parameters, alpha=work.counts[client] / examples)
        torch._foreach_copy_(current, total)
        seconds.append(time.perf_counter() - begin)
    with torch.no_grad():
        torch._foreach_copy_(parameters, current)
    return Outcome(
        np.array(seconds), models.flat(model), start_up, item.threads, f"torch {torch.__version__}"
    )


def _batches(item: Item, work: Work) -> list[Batches]:
    x = torch.from_numpy(work.x).view(-1, *models.input_shape(item.model))
    y = torch.from_numpy(work.y)
    bounds = list(zip(work.offsets[:-1], work.offsets[1:], strict=True))
    return [
        list(zip(torch.split(x[a:b], BATCH), torch.split(y[a:b], BATCH), strict=True))
        for a, b in bounds
    ]
