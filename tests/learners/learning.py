"""Small models and data for the tests of learners."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor, nn

from anabranch.data.federation import Examples
from anabranch.learners.build import build_learner
from anabranch.learners.plan import ModelPlan
from anabranch.learners.torch_learner import EngineName, TorchLearner


def blobs(count: int, seed: int = 0, shape: tuple[int, ...] = (6,), classes: int = 3) -> Examples:
    """Classes with different means; real targets when ``classes`` is 0."""
    draw = np.random.default_rng(seed)
    y = draw.integers(0, classes or 3, count)
    x = draw.standard_normal((count, *shape)).astype(np.float32)
    x += y.reshape(-1, *[1] * len(shape)).astype(np.float32)
    return Examples(x, y if classes else x.reshape(count, -1).mean(1).astype(np.float32))


def own(
    factory: Callable[[], nn.Module],
    *,
    engine: EngineName = "auto",
    plan: ModelPlan | None = None,
    shape: tuple[int, ...] = (6,),
    classes: int = 3,
) -> TorchLearner:
    """A learner for a module of one's own."""
    learner = build_learner(
        plan or ModelPlan(name="own"),
        "torch",
        input_shape=shape,
        classes=classes,
        engine=engine,
        module_factory=factory,
    )
    assert isinstance(learner, TorchLearner)
    return learner


def plain_autograd(
    module: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    optimizer: torch.optim.Optimizer,
    change: Callable[[list[Tensor]], None] = lambda parameters: None,
) -> list[Tensor]:
    """The ordinary training loop; ``change`` may edit the gradients before each step."""
    parameters = list(module.parameters())
    for x, y in batches:
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(x), y).backward()
        change(parameters)
        optimizer.step()
    return [p.detach() for p in parameters]
