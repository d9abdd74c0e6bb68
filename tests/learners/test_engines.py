"""Every engine against PyTorch's own loop: optimizers, clipping, corrections, padding."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from learning import blobs, own, plain_autograd
from torch import Tensor, nn

from anabranch.algorithms.base import Correction
from anabranch.data.federation import Examples
from anabranch.learners import SGD, Adam, LocalTraining
from anabranch.learners.build import build_learner
from anabranch.learners.flatten import module_vector
from anabranch.learners.plan import ModelPlan
from anabranch.learners.torch_learner import EngineName, TorchLearner
from anabranch.learners.traced import rows_of
from anabranch.testing.learner import training_job
from anabranch.updates.sections import Vector

RATE = 0.1
OPTIMIZERS = {
    "sgd": SGD(),
    "momentum": SGD(momentum=0.9),
    "nesterov": SGD(momentum=0.9, nesterov=True),
    "decay": SGD(weight_decay=0.1),
    "momentum-decay": SGD(momentum=0.5, weight_decay=0.1),
    "adam": Adam(),
    "adam-l2": Adam(weight_decay=0.1, beta1=0.8),
    "adamw": Adam(weight_decay=0.1, decoupled=True),
}


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))


def torch_optimizer(rule: SGD | Adam, module: nn.Module) -> torch.optim.Optimizer:
    if isinstance(rule, SGD):
        return torch.optim.SGD(
            module.parameters(),
            lr=RATE,
            momentum=rule.momentum,
            nesterov=rule.nesterov,
            weight_decay=rule.weight_decay,
        )
    kind = torch.optim.AdamW if rule.decoupled else torch.optim.Adam
    return kind(
        module.parameters(),
        lr=RATE,
        betas=(rule.beta1, rule.beta2),
        eps=rule.eps,
        weight_decay=rule.weight_decay,
    )


def loaded(learner: TorchLearner, vector: Vector) -> nn.Module:
    """The plain module with the values of a flat vector."""
    module = mlp()
    views = learner.layout.views(vector)
    module.load_state_dict({name: torch.from_numpy(v.copy()) for name, v in views.items()})
    return module


def batches_of(data: Examples, size: int, epochs: int = 2) -> list[tuple[Tensor, Tensor]]:
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    return list(zip(x.split(size), y.split(size), strict=True)) * epochs


@pytest.mark.parametrize("engine", ["eager", "traced", "closed-form"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_are_pytorchs(name: str, engine: EngineName) -> None:
    learner, data = own(mlp, engine=engine), blobs(27)
    training = LocalTraining(
        epochs=2, batch_size=8, shuffle=False, optimizer=OPTIMIZERS[name], learning_rate=RATE
    )
    start = learner.initial(1)
    result = learner.train(start, data, training_job(training, rate=RATE))
    assert learner.engine_report.engine == engine
    module = loaded(learner, start)
    plain_autograd(module, batches_of(data, 8), torch_optimizer(OPTIMIZERS[name], module))
    # Adam divides by roots of squares: rounding of tiny gradients is amplified.
    atol = 2e-4 if name.startswith("adam") else 2e-6
    np.testing.assert_allclose(result.end, module_vector(module, learner.layout), atol=atol)


@pytest.mark.parametrize("engine", ["eager", "traced", "closed-form"])
@pytest.mark.parametrize("optimizer", ["sgd", "momentum"])
@pytest.mark.parametrize("clip", [None, 0.05])
def test_corrections_and_clipping(optimizer: str, clip: float | None, engine: EngineName) -> None:
    learner, data = own(mlp, engine=engine), blobs(27)
    draw = np.random.default_rng(0)
    start = learner.initial(1)
    anchor, drift = (0.1 * draw.standard_normal(len(start)).astype(np.float32) for _ in range(2))
    training = LocalTraining(
        epochs=2, batch_size=8, shuffle=False, optimizer=OPTIMIZERS[optimizer], clip_norm=clip
    )
    job = replace(training_job(training, rate=RATE), correction=Correction(0.3, anchor, drift))
    module = loaded(learner, start)
    anchors, drifts = (list(learner.layout.views(v).values()) for v in (anchor, drift))

    def correct(parameters: list[Tensor]) -> None:
        if clip is not None:
            nn.utils.clip_grad_norm_(parameters, clip)
        for p, a, d in zip(parameters, anchors, drifts, strict=True):
            assert p.grad is not None
            p.grad += 0.3 * (p.detach() - torch.from_numpy(a)) + torch.from_numpy(d)

    rule = torch_optimizer(OPTIMIZERS[optimizer], module)
    plain_autograd(module, batches_of(data, 8), rule, correct)
    result = learner.train(start, data, job)
    np.testing.assert_allclose(result.end, module_vector(module, learner.layout), atol=3e-6)


@pytest.mark.parametrize(
    "correction", [Correction(0.3), Correction(0.0, None, np.ones(163, np.float32))]
)
def test_partial_corrections_agree_between_engines(correction: Correction) -> None:
    data, ends = blobs(27), []
    for engine in ("eager", "traced", "closed-form"):
        learner = own(mlp, engine=engine)  # type: ignore[arg-type]
        job = replace(training_job(), correction=correction)
        ends.append(learner.train(learner.initial(1), data, job).end)
    for other in ends[1:]:
        np.testing.assert_allclose(other, ends[0], atol=1e-6)


def conv() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 8)),
        nn.Conv2d(1, 4, 3, padding=1),
        nn.GELU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 3, groups=2),
        nn.LayerNorm([4, 2, 2]),
        nn.Flatten(),
        nn.Linear(16, 3, bias=False),
    )


def attention() -> nn.Module:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(11, 8)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.output = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            h = self.embedding(x)
            h = h + self.attention(h, h, h, need_weights=False)[0]
            found: Tensor = self.output(h.mean(1))
            return found

    return Net()


def inner_sequential() -> nn.Module:
    return nn.Sequential(
        nn.Sequential(nn.Linear(6, 5, bias=False), nn.ReLU()), nn.Linear(5, 4), nn.Linear(4, 3)
    )


@pytest.mark.parametrize("factory", [conv, attention, inner_sequential, mlp])
def test_traced_equals_eager_on_many_kinds_of_layers(factory) -> None:  # type: ignore[no-untyped-def]
    data = blobs(37, shape=(8, 8) if factory is conv else (6,))
    if factory is attention:
        data = Examples(np.random.default_rng(0).integers(0, 11, (37, 6)), data.y)
    ends, sums = [], []
    for engine in ("eager", "traced"):
        learner = own(factory, engine=engine, shape=data.x.shape[1:])  # type: ignore[arg-type]
        result = learner.train(learner.initial(1), data, training_job())
        assert learner.engine_report.engine == engine, learner.engine_report
        ends.append(result.end)
        sums.append(result.loss_sum)
    np.testing.assert_allclose(ends[1], ends[0], atol=1e-6)
    assert sums[1] == pytest.approx(sums[0], rel=1e-5)


def test_stacks_without_bias_or_relu_are_closed_form() -> None:
    data = blobs(37)
    eager, fast = own(inner_sequential, engine="eager"), own(inner_sequential)
    assert fast.engine_report.engine == "closed-form"
    start = eager.initial(1)
    one, two = (each.train(start, data, training_job()).end for each in (eager, fast))
    np.testing.assert_allclose(two, one, atol=1e-6)


@pytest.mark.parametrize("loss", ["cross-entropy", "binary-cross-entropy", "mse", "huber"])
def test_losses_agree_between_engines(loss: str) -> None:
    classes = {"cross-entropy": 3, "binary-cross-entropy": 2}.get(loss, 0)
    data = blobs(41, classes=classes)
    if not classes:
        data = Examples(data.x, 3 * data.y)  # residuals on both sides of huber's corner
    plan = ModelPlan(name="mlp", parameters={"hidden": [9]}, loss=loss)  # type: ignore[arg-type]
    found = []
    for kind, engine in (
        ("torch", "eager"),
        ("torch", "traced"),
        ("torch", "auto"),
        ("numpy", "auto"),
    ):
        learner = build_learner(
            plan,
            kind,  # type: ignore[arg-type]
            input_shape=(6,),
            classes=classes,
            engine=engine,  # type: ignore[arg-type]
        )
        found.append(learner.train(learner.initial(2), data, training_job()))
    for other in found[1:]:
        np.testing.assert_allclose(other.end, found[0].end, atol=1e-6)
        assert other.loss_sum == pytest.approx(found[0].loss_sum, rel=1e-5)


def test_large_logits_do_not_overflow() -> None:
    for classes in (2, 3):
        data = blobs(16, classes=classes)
        data = Examples(data.x * 1e4, data.y)
        for kind in ("numpy", "torch"):
            learner = build_learner(
                ModelPlan(),
                kind,  # type: ignore[arg-type]
                input_shape=(6,),
                classes=classes,
            )
            result = learner.train(learner.initial(0), data, training_job())
            assert np.isfinite(result.end).all()
            assert np.isfinite(result.loss_sum)


def test_misaligned_data_train_bitwise_alike() -> None:
    # Shared memory and files put arrays anywhere; the bits must not depend on it.
    data = blobs(70, shape=(784,))
    raw = np.empty(data.x.nbytes + 64, np.uint8)
    for engine in ("traced", "closed-form", "eager"):
        learner = build_learner(
            ModelPlan(name="mlp", parameters={"hidden": [64]}),
            "torch",
            input_shape=(784,),
            classes=3,
            engine=engine,  # type: ignore[arg-type]
        )
        start, ends = learner.initial(0), []
        for shift in (0, 4, 20):
            moved = raw[shift : shift + data.x.nbytes].view(np.float32).reshape(data.x.shape)
            moved[...] = data.x
            ends.append(learner.train(start, Examples(moved, data.y), training_job()).end)
        for other in ends[1:]:
            np.testing.assert_array_equal(other, ends[0])


def test_rows_of_the_trace_depend_on_the_client_alone() -> None:
    assert rows_of(32, 1) == 32
    assert rows_of(32, 10_000) == 32
    assert rows_of(0, 33) == 64
    assert rows_of(1000, 3) == 64
    for size in (0, 1, 32, 1000):
        for n in (1, 2, 31, 32, 33, 500):
            assert rows_of(size, n) >= min(size or n, n)


def test_bfloat16_is_near_float32_and_keeps_float32_parameters() -> None:
    data = blobs(64, shape=(8, 8))
    plan = ModelPlan(name="leaf-cnn", parameters={"hidden": 32})
    ends = []
    for precision in ("float32", "bfloat16"):
        learner = build_learner(
            plan,
            "torch",
            input_shape=(8, 8),
            classes=3,
            precision=precision,  # type: ignore[arg-type]
        )
        assert isinstance(learner, TorchLearner)
        ends.append(learner.train(learner.initial(0), data, training_job()).end)
        assert learner.engine_report.engine == "traced", learner.engine_report
    start = learner.initial(0)
    moved = np.linalg.norm(ends[0] - start)
    assert 0 < np.linalg.norm(ends[1] - ends[0]) < 0.1 * moved
    # Some coordinates must be finer than bfloat16 can say.
    assert (ends[1].view(np.uint32) & 0xFFFF).any()
