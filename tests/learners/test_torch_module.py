"""The module that a run hands out computes what the learner predicts."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from anabranch.learners.build import build_learner
from anabranch.learners.plan import ModelPlan
from anabranch.learners.torch_learner import TorchLearner


def convolutional() -> nn.Module:
    """Channels-last weights, running statistics and an integer buffer."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 3)
    )


def test_module_predicts_as_the_learner() -> None:
    learner = build_learner(
        ModelPlan(name="notebook:convolutional", normalisation="average"),
        input_shape=(1, 8, 8),
        classes=3,
        module_factory=convolutional,
    )
    assert isinstance(learner, TorchLearner)
    draw = np.random.default_rng(0)
    noise = draw.uniform(0, 0.1, learner.layout.size).astype(np.float32)
    vector = learner.initial(3) + noise
    x = draw.normal(size=(5, 1, 8, 8)).astype(np.float32)
    module = learner.module(vector)
    with torch.no_grad():
        found = module(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(found, learner.predict(vector, x), rtol=1e-5, atol=1e-6)
    assert not module.training
