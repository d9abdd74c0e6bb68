"""Dropout, normalisation, personal and frozen parameters, layouts, tracing and its refusals."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from learning import blobs, own
from torch import Tensor, nn

from anabranch.data.federation import Examples
from anabranch.errors import AnabranchError
from anabranch.learners import LocalTraining
from anabranch.learners.base import TrainingJob
from anabranch.learners.build import build_learner
from anabranch.learners.flatten import FlatModel, module_layout, module_vector, tensor_views
from anabranch.learners.models import LeafCNN
from anabranch.learners.plan import ModelPlan
from anabranch.learners.torch_learner import TorchLearner, dense_layers_of
from anabranch.randomness import generator
from anabranch.testing.learner import training_job
from anabranch.updates.layout import Policy


def drawing(draws: int) -> TrainingJob:
    training = LocalTraining(batch_size=8)
    return TrainingJob(training, 0.05, training_job().correction, generator(0, "b"), draws, "a")


def dropping() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 3))


def test_dropout_draws_from_the_job_and_from_nothing_else() -> None:
    data, learner = blobs(20), own(dropping)
    start = learner.initial(0)
    torch.manual_seed(1)
    first = learner.train(start, data, drawing(7)).end
    after = torch.rand(3)
    torch.manual_seed(2)
    second = own(dropping).train(start, data, drawing(7)).end
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, learner.train(start, data, drawing(8)).end)
    torch.manual_seed(1)
    torch.testing.assert_close(after, torch.rand(3))  # the caller's generator was left alone


def test_dropout_refuses_tracing_and_says_why() -> None:
    learner = own(dropping)
    learner.train(learner.initial(0), blobs(20), training_job())
    assert learner.engine_report.engine == "eager"
    assert learner.engine_report.reason.startswith("AB-312: random operation")


def normed() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def test_batch_normalisation_needs_a_rule() -> None:
    with pytest.raises(AnabranchError, match=r"AB-307 .*layers 1 are batch"):
        own(normed)


@pytest.mark.parametrize(("rule", "where"), [("average", Policy.AVERAGE), ("local", Policy.LOCAL)])
def test_running_statistics_are_entries_that_no_gradient_moves(rule: str, where: Policy) -> None:
    plan = ModelPlan(name="own", normalisation=rule)  # type: ignore[arg-type]
    learner, data = own(normed, plan=plan), blobs(20)
    entries = {p.name: p for p in learner.layout.parameters}
    assert "1.num_batches_tracked" not in entries
    for name in ("1.weight", "1.bias", "1.running_mean", "1.running_var"):
        assert entries[name].policy is where
    assert not entries["1.running_mean"].trained
    start = learner.initial(0)
    result = learner.train(start, data, training_job(LocalTraining(batch_size=0)))
    module = normed()
    views = learner.layout.views(start)
    values = {name: torch.from_numpy(v.copy()) for name, v in views.items()}
    module.load_state_dict(values, strict=False)
    module(torch.from_numpy(data.x))
    for name in ("running_mean", "running_var"):
        expected = getattr(module[1], name).numpy()
        got = learner.layout.view(result.end, f"1.{name}")
        np.testing.assert_allclose(got, expected, atol=1e-6)


def test_a_batch_of_one_uses_the_running_statistics() -> None:
    plan = ModelPlan(name="own", normalisation="average")
    learner = own(normed, plan=plan)
    result = learner.train(learner.initial(0), blobs(9), training_job())  # 8 + 1 examples
    assert result.steps == 2
    assert np.isfinite(result.end).all()


def test_frozen_batch_normalisation_needs_no_rule_and_is_traced() -> None:
    plan = ModelPlan(name="own", freeze=("0.*", "1.*"))
    learner, data = own(normed, plan=plan), blobs(20)
    start = learner.initial(0)
    end = learner.train(start, data, training_job()).end
    assert learner.engine_report.engine == "traced"
    frozen = [p for p in learner.layout.parameters if p.policy is Policy.FREEZE]
    assert {p.name for p in frozen} >= {"0.weight", "1.weight", "1.running_mean"}
    averaged = learner.layout.averaged
    np.testing.assert_array_equal(end[averaged:], start[averaged:])
    assert not np.array_equal(end[:averaged], start[:averaged])


def test_parameters_without_gradient_are_frozen() -> None:
    def factory() -> nn.Module:
        module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
        module[0].weight.requires_grad_(False)
        return module

    learner = own(factory)
    assert learner.layout.parameters[-1].name == "0.weight"
    assert learner.layout.averaged == 8 + 27


def test_local_parameters_are_trained_but_stand_behind_the_averaged_ones() -> None:
    plan = ModelPlan(name="mlp", parameters={"hidden": [5]}, keep_local=("output.*",))
    for kind in ("torch", "numpy"):
        learner = build_learner(plan, kind, input_shape=(6,), classes=3)  # type: ignore[arg-type]
        layout = learner.layout
        assert (layout.averaged, layout.local) == (35, 18)
        start = learner.initial(0)
        end = learner.train(start, blobs(20), training_job()).end
        assert not np.array_equal(layout.view(end, "output.bias"), start[50:])


def test_policies_do_not_change_initial_values() -> None:
    plain = ModelPlan(name="mlp")
    moved = ModelPlan(name="mlp", keep_local=("hidden1.*",), freeze=("output.bias",))
    one, two = (build_learner(p, "numpy", input_shape=(6,), classes=3) for p in (plain, moved))
    views = one.layout.views(one.initial(5))
    for name, value in two.layout.views(two.initial(5)).items():
        np.testing.assert_array_equal(value, views[name])


def test_initial_vectors_of_numpy_and_torch_are_bitwise_equal() -> None:
    plan = ModelPlan(name="mlp", parameters={"hidden": [20, 10]})
    one, two = (
        build_learner(plan, kind, input_shape=(6,), classes=3)  # type: ignore[arg-type]
        for kind in ("numpy", "torch")
    )
    assert one.layout == two.layout
    np.testing.assert_array_equal(one.initial(3), two.initial(3))
    assert np.abs(one.layout.view(one.initial(3), "hidden1.weight")).max() <= 6**-0.5


def test_initial_values_of_own_modules_leave_the_global_generator_alone() -> None:
    learner = own(lambda: nn.Linear(6, 3))
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    learner.initial(9)
    torch.testing.assert_close(torch.rand(2), expected)


def test_channels_last_round_trip() -> None:
    module = LeafCNN((8, 8), 3, hidden=4)
    layout = module_layout(module, ModelPlan())
    vector = module_vector(module, layout)
    flat = FlatModel(layout, torch.device("cpu"))
    flat.w.copy_(torch.from_numpy(vector))
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(flat.views[name], parameter.detach())
        np.testing.assert_array_equal(layout.view(vector, name), parameter.detach().numpy())
    weight = flat.views["conv2.weight"]
    assert weight.is_contiguous(memory_format=torch.channels_last)
    # The first stored numbers are the input channels of one place, not one row of the kernel.
    start = layout.offsets["conv2.weight"]
    stored = vector[start : start + 32]
    np.testing.assert_array_equal(stored, module.conv2.weight[0, :, 0, 0].detach().numpy())
    assert tensor_views(flat.w, layout)["conv2.weight"].data_ptr() == weight.data_ptr()


def test_sizes_of_the_built_in_models() -> None:
    sizes = [
        (ModelPlan(), 7_850),
        (ModelPlan(name="mlp", parameters={"hidden": [200]}), 159_010),
        (ModelPlan(name="mlp"), 159_010),
        (ModelPlan(name="leaf-cnn"), 1_663_370),
    ]
    for shape in ((28, 28), (784,), (28, 28, 1), (1, 28, 28)):
        for plan, size in sizes:
            learner = build_learner(plan, "torch", input_shape=shape, classes=10)
            assert learner.layout.size == size


def test_images_with_channels_last_or_first_give_the_same_outputs() -> None:
    plan = ModelPlan(name="leaf-cnn", parameters={"hidden": 4})
    x = np.random.default_rng(0).standard_normal((3, 8, 8, 3)).astype(np.float32)
    last = build_learner(plan, "torch", input_shape=(8, 8, 3), classes=3)
    first = build_learner(plan, "torch", input_shape=(3, 8, 8), classes=3)
    start = last.initial(0)
    one = last.predict(start, x)
    two = first.predict(start, np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
    np.testing.assert_allclose(one, two, atol=1e-5)


class _Centred(nn.Module):
    """Subtracts the mean of the batch: mixes examples without being a known layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layer(x - x.mean(0))
        return found


class _Branching(_Centred):
    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layer(x if bool(x.sum() > 0) else -x)
        return found


class _Counting(_Centred):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        found: Tensor = self.layer(x)
        return found


class _Remembering(_Centred):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(6))

    def forward(self, x: Tensor) -> Tensor:
        assert isinstance(self.seen, Tensor)
        self.seen += x.detach().mean(0)
        found: Tensor = self.layer(x)
        return found


@pytest.mark.parametrize(
    ("factory", "reason"),
    [
        (_Centred, "rows of weight zero change the gradient"),
        (_Branching, "tracing failed"),
        (_Counting, "changes its own attributes"),
        (_Remembering, "changes"),
    ],
)
def test_modules_that_cannot_be_traced_fall_back_and_say_why(
    factory: type[nn.Module], reason: str
) -> None:
    data, eager, auto = blobs(20), own(factory, engine="eager"), own(factory)
    start = eager.initial(0)
    expected = eager.train(start, data, training_job()).end
    np.testing.assert_array_equal(auto.train(start, data, training_job()).end, expected)
    assert auto.engine_report.engine == "eager"
    assert auto.engine_report.reason.startswith("AB-312: ")
    assert reason in auto.engine_report.reason


def test_a_modules_own_memory_starts_over_for_each_client() -> None:
    learner, data = own(_Remembering, engine="eager"), blobs(20)
    learner.train(learner.initial(0), data, training_job())
    first = learner._module.seen.clone()  # type: ignore[union-attr, operator]
    learner.train(learner.initial(0), data, training_job())
    torch.testing.assert_close(learner._module.seen, first)


def test_the_garbage_of_filled_rows_is_without_effect() -> None:
    # The same short batch behind different full ones.
    learner = own(lambda: nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 3)))
    start, short = learner.initial(0), blobs(5)
    ends = []
    for scale in (1.0, 1e6):
        full = blobs(16, seed=1)
        learner.train(start, Examples(full.x * np.float32(scale), full.y), training_job())
        ends.append(learner.train(start, short, training_job()).end)
    assert learner.engine_report.engine == "traced"
    np.testing.assert_array_equal(ends[0], ends[1])


def test_a_sample_of_clients_is_checked_against_the_reference() -> None:
    learner = own(lambda: nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 3)))
    start, data = learner.initial(0), blobs(20)
    checks, ends = [], []
    for draws in (500, 500, 2048, 2048 + 3, 2):  # three steps each: drawn are 0, 1 and 2
        ends.append(learner.train(start, data, drawing(draws)).end)
        checks.append(learner.engine_report.checks)
    assert checks == [1, 1, 2, 2, 3]  # the first client always
    for end in ends[1:]:
        np.testing.assert_array_equal(end, ends[0])


def test_a_wrong_engine_is_found_out() -> None:
    learner = own(lambda: nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 3)))
    start, data = learner.initial(0), blobs(20)
    learner.train(start, data, drawing(500))
    right = own(lambda: nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 3)), engine="eager")
    programs = learner._engine._programs  # type: ignore[union-attr]
    for key, program in programs.items():
        programs[key] = type(program)(program.compute, program.write[1:], program.outputs)
    end = learner.train(start, data, drawing(0)).end
    assert learner.engine_report.mismatches == 1
    assert learner.engine_report.reason.startswith("AB-311: ")
    np.testing.assert_array_equal(end, right.train(start, data, drawing(0)).end)


def test_stacks_are_recognised_strictly() -> None:
    class Own(nn.Linear):
        pass

    relu, linear = nn.ReLU(), nn.Linear(3, 3)
    yes = [
        nn.Linear(3, 2),
        nn.Sequential(nn.Flatten(), nn.Linear(3, 3), relu, nn.Linear(3, 2)),
    ]
    no: list[nn.Module] = [
        nn.Sequential(nn.Linear(3, 3), relu),
        nn.Sequential(relu, nn.Linear(3, 3)),
        nn.Sequential(linear, relu, linear),
        nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2)),
        nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.1), nn.Linear(3, 2)),
        Own(3, 2),
    ]
    hooked = nn.Linear(3, 2)
    hooked.register_forward_hook(lambda *_: None)
    assert all(dense_layers_of(module) for module in yes)
    assert not any(dense_layers_of(module) for module in [*no, hooked])


def test_integer_features_become_numbers_unless_they_are_tokens() -> None:
    x = np.random.default_rng(0).integers(0, 5, (20, 6))
    for kind in ("numpy", "torch"):
        learner = build_learner(
            ModelPlan(),
            kind,  # type: ignore[arg-type]
            input_shape=(6,),
            classes=3,
        )
        start = learner.initial(0)
        one = learner.train(start, Examples(x, blobs(20).y), training_job()).end
        floats = Examples(x.astype(np.float32), blobs(20).y)
        np.testing.assert_array_equal(one, learner.train(start, floats, training_job()).end)
        np.testing.assert_array_equal(learner.predict(start, x), learner.predict(start, floats.x))


def test_numpy_learner_does_not_import_torch() -> None:
    code = (
        "import sys, anabranch, numpy as np\n"
        "from anabranch.learners.build import build_learner\n"
        "from anabranch.learners.plan import ModelPlan\n"
        "from anabranch.learners.metrics import MetricSet\n"
        "learner = build_learner(ModelPlan(), 'numpy', input_shape=(4,), classes=3)\n"
        "learner.predict(learner.initial(0), np.zeros((2, 4), np.float32))\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_instance_is_its_own_initial_value() -> None:
    module = nn.Linear(6, 3)
    learner = build_learner(
        ModelPlan(name="own"), "torch", input_shape=(6,), classes=3, module_factory=module
    )
    assert isinstance(learner, TorchLearner)
    np.testing.assert_array_equal(learner.initial(0), learner.initial(1))
    view = learner.layout.view(learner.initial(0), "weight")
    np.testing.assert_array_equal(view, module.weight.detach().numpy())
