"""Every engine, model and rule through the public contract suite."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import nn

from anabranch.data.federation import Examples
from anabranch.learners.base import Learner
from anabranch.learners.build import build_learner
from anabranch.learners.plan import ModelPlan
from anabranch.testing import LearnerContract


def blobs(count: int, seed: int, shape: tuple[int, ...] = (6,), classes: int = 3) -> Examples:
    """Classes with different means."""
    draw = np.random.default_rng(seed)
    y = draw.integers(0, classes, count)
    x = draw.standard_normal((count, *shape)).astype(np.float32)
    x += y.reshape(-1, *[1] * len(shape)).astype(np.float32)
    return Examples(x, y)


class _Dense(LearnerContract):
    plan: ClassVar[ModelPlan] = ModelPlan(name="mlp", parameters={"hidden": [7, 5]})
    kind: ClassVar[str] = "torch"
    engine: ClassVar[str] = "auto"

    def learner(self) -> Learner:
        return build_learner(
            self.plan,
            self.kind,  # type: ignore[arg-type]
            input_shape=(6,),
            classes=self.classes,
            engine=self.engine,  # type: ignore[arg-type]
        )

    def examples(self, count: int, seed: int = 0) -> Examples:
        return blobs(count, seed, classes=self.classes)


class TestNumpyMLP(_Dense):
    kind = "numpy"


class TestNumpyLogistic(_Dense):
    kind = "numpy"
    plan = ModelPlan(name="logistic")


class TestNumpyBinary(_Dense):
    kind = "numpy"
    plan = ModelPlan(name="logistic")
    classes = 2


class TestClosedForm(_Dense):
    engine = "closed-form"


class TestTraced(_Dense):
    engine = "traced"


class TestEager(_Dense):
    engine = "eager"


class TestFrozenLayers(_Dense):
    plan = ModelPlan(
        name="mlp",
        parameters={"hidden": [7, 5]},
        freeze=("hidden1.*", "hidden2.bias"),
        keep_local=("output.*",),
    )


class TestFrozenLayersTraced(TestFrozenLayers):
    engine = "traced"


class TestWide(_Dense):
    """Layers that PyTorch multiplies."""

    plan = ModelPlan(name="mlp", parameters={"hidden": [2048]})


class TestBfloat16(_Dense):
    tolerance = 2e-3

    def learner(self) -> Learner:
        return build_learner(self.plan, "torch", input_shape=(6,), classes=3, precision="bfloat16")


class TestRegression(_Dense):
    plan = ModelPlan(name="mlp", parameters={"hidden": [7]}, loss="huber")
    classes = 0

    def examples(self, count: int, seed: int = 0) -> Examples:
        x = blobs(count, seed).x
        return Examples(x, x.sum(1, dtype=np.float32) / 6)


class TestConvolution(LearnerContract):
    tolerance = 1e-4

    def learner(self) -> Learner:
        plan = ModelPlan(name="leaf-cnn", parameters={"hidden": 16})
        return build_learner(plan, "torch", input_shape=(8, 8), classes=3)

    def examples(self, count: int, seed: int = 0) -> Examples:
        return blobs(count, seed, (8, 8))


class TestRecurrent(LearnerContract):
    classes = 5

    def learner(self) -> Learner:
        plan = ModelPlan(name="char-gru", parameters={"hidden": 8, "embedding": 4})
        return build_learner(plan, "torch", input_shape=(6,), classes=5, vocabulary_size=5)

    def examples(self, count: int, seed: int = 0) -> Examples:
        x = np.random.default_rng(seed).integers(0, 5, (count, 6))
        return Examples(x, x[:, -1].copy())


class _Block(nn.Module):
    """Branches, group normalisation and an in-place ReLU: not a stack, but traceable."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.norm = nn.GroupNorm(2, 8)
        self.second = nn.Linear(8, 8)
        self.output = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = nn.functional.relu(self.norm(self.first(x)), inplace=True)
        hidden = hidden + torch.tanh(self.second(hidden))
        found: torch.Tensor = self.output(hidden)
        return found


class TestOwnModule(LearnerContract):
    def learner(self) -> Learner:
        learner = build_learner(
            ModelPlan(name="own"), "torch", input_shape=(6,), classes=3, module_factory=_Block
        )
        assert learner.engine_report.engine == "traced"  # type: ignore[attr-defined]
        return learner

    def examples(self, count: int, seed: int = 0) -> Examples:
        return blobs(count, seed)


class TestDropout(LearnerContract):
    by_example = False

    def learner(self) -> Learner:
        return build_learner(
            ModelPlan(name="own"),
            "torch",
            input_shape=(6,),
            classes=3,
            module_factory=lambda: nn.Sequential(
                nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3)
            ),
        )

    def examples(self, count: int, seed: int = 0) -> Examples:
        return blobs(count, seed)


class _BatchNorm(LearnerContract):
    by_example = False
    rule: ClassVar[str] = "average"

    def learner(self) -> Learner:
        return build_learner(
            ModelPlan(name="own", normalisation=self.rule),  # type: ignore[arg-type]
            "torch",
            input_shape=(6,),
            classes=3,
            module_factory=lambda: nn.Sequential(
                nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)
            ),
        )

    def examples(self, count: int, seed: int = 0) -> Examples:
        # Batch normalisation cannot train on one example.
        return blobs(max(count, 2), seed)


class TestBatchNormAveraged(_BatchNorm):
    pass


class TestBatchNormLocal(_BatchNorm):
    rule = "local"
