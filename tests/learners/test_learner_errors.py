"""Every error of models and learners: raised where it should be, with a page."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from learning import blobs, own
from torch import nn

import anabranch
from anabranch.data.federation import Examples
from anabranch.errors import AnabranchError
from anabranch.learners import build
from anabranch.learners.build import build_learner
from anabranch.learners.plan import ModelPlan
from anabranch.testing.learner import training_job

ROOM = Path(anabranch.__file__).parent / "learners"
PAGES = Path(__file__).parents[2] / "docs" / "errors"


def built(plan: ModelPlan, classes: int = 3, **more: object) -> object:
    return build_learner(plan, input_shape=(6,), classes=classes, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("outputs", "classes", "loss"),
    [(4, 3, "auto"), (2, 0, "auto"), (1, 3, "auto"), (3, 2, "binary-cross-entropy")],
)
def test_outputs_that_do_not_fit_the_labels(outputs: int, classes: int, loss: str) -> None:
    plan = ModelPlan(name="own", loss=loss)  # type: ignore[arg-type]
    with pytest.raises(AnabranchError, match="AB-301"):
        own(lambda: nn.Linear(6, outputs), plan=plan, classes=classes)


def test_loss_that_does_not_fit_the_labels() -> None:
    for loss, classes in (("cross-entropy", 0), ("binary-cross-entropy", 3)):
        with pytest.raises(AnabranchError, match="AB-301"):
            built(ModelPlan(name="mlp", loss=loss), classes)  # type: ignore[arg-type]
    with pytest.raises(AnabranchError, match="AB-301"):
        built(ModelPlan(name="logistic"), 0)


def test_output_that_is_not_one_row_an_example() -> None:
    class Flat(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.sum()

    with pytest.raises(AnabranchError, match="AB-301"):
        own(Flat)


@pytest.mark.parametrize("kind", ["torch", "numpy"])
@pytest.mark.parametrize("wrong", [3, -1])
def test_labels_out_of_range(kind: str, wrong: int) -> None:
    learner = built(ModelPlan(), kind=kind)
    data = blobs(8)
    data.y[3] = wrong
    with pytest.raises(AnabranchError, match="AB-302"):
        learner.train(learner.initial(0), data, training_job())  # type: ignore[attr-defined]


def test_real_labels_of_a_binary_task_must_be_0_or_1() -> None:
    learner = build_learner(ModelPlan(), "numpy", input_shape=(6,), classes=2)
    data = Examples(blobs(4).x, np.float32([0, 1, 0.5, 1]))
    with pytest.raises(AnabranchError, match="AB-302"):
        learner.train(learner.initial(0), data, training_job())


def test_unknown_model_with_a_suggestion() -> None:
    with pytest.raises(AnabranchError, match=r"AB-303 .*did you mean 'logistic'"):
        built(ModelPlan(name="logistc"))


def test_missing_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(AnabranchError, match=r"AB-304 .*anabranch\[torch\]"):
        built(ModelPlan(name="leaf-cnn"))
    with pytest.raises(AnabranchError, match="AB-304"):
        built(ModelPlan(), kind="torch")
    assert type(built(ModelPlan())).__name__ == "NumpyLearner"


def test_numpy_has_dense_models_only() -> None:
    with pytest.raises(AnabranchError, match="AB-304"):
        built(ModelPlan(name="leaf-cnn"), kind="numpy")


@pytest.mark.parametrize(
    "name", ["no.such.package:Net", "torch.nn:NoSuchLayer", "math:pi", "math:sqrt"]
)
def test_factories_that_are_not_modules(name: str) -> None:
    with pytest.raises(AnabranchError, match="AB-305"):
        built(ModelPlan(name=name, parameters={"a": 1}))


def test_factory_that_returns_something_else() -> None:
    with pytest.raises(AnabranchError, match="AB-305"):
        own(lambda: "a model")  # type: ignore[arg-type, return-value]


def test_named_factory_gets_its_parameters() -> None:
    plan = ModelPlan(
        name="torch.nn:Linear", parameters={"in_features": 6, "out_features": 3, "bias": False}
    )
    assert built(plan).layout.size == 18  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["torch", "numpy"])
def test_client_without_examples(kind: str) -> None:
    learner = build_learner(ModelPlan(), kind, input_shape=(6,), classes=3)  # type: ignore[arg-type]
    data = blobs(3)
    with pytest.raises(AnabranchError, match=r"AB-306 .*'a'"):
        learner.train(learner.initial(0), Examples(data.x[:0], data.y[:0]), training_job())


@pytest.mark.parametrize("kind", ["torch", "numpy"])
def test_examples_of_another_shape(kind: str) -> None:
    learner = build_learner(ModelPlan(), kind, input_shape=(6,), classes=3)  # type: ignore[arg-type]
    with pytest.raises(AnabranchError, match="AB-308"):
        learner.train(learner.initial(0), blobs(3, shape=(7,)), training_job())


def test_first_layer_that_does_not_fit() -> None:
    with pytest.raises(AnabranchError, match="AB-308"):
        own(lambda: nn.Linear(7, 3))
    with pytest.raises(AnabranchError, match="AB-308"):
        build_learner(ModelPlan(name="leaf-cnn"), input_shape=(5,), classes=3)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("logistic", {"hidden": 3}),
        ("mlp", {"hidden": "many"}),
        ("mlp", {"hidden": [0]}),
        ("leaf-cnn", {"hidden": -1}),
        ("char-gru", {"layers": True}),
    ],
)
def test_parameters_of_built_in_models(name: str, parameters: dict[str, object]) -> None:
    plan = ModelPlan(name=name, parameters=parameters)  # type: ignore[arg-type]
    with pytest.raises(AnabranchError, match="AB-309"):
        build_learner(plan, input_shape=(8, 8), classes=3, vocabulary_size=0)


def test_every_code_of_the_room_has_a_page() -> None:
    codes = {
        code for path in ROOM.glob("*.py") for code in re.findall(r"AB-\d{3}", path.read_text())
    }
    assert len(codes) >= 11
    for code in codes:
        text = (PAGES / f"{code}.md").read_text()
        assert text.startswith(f"# {code}: ")
        for heading in ("## What happened", "## How to resolve", "## Example"):
            assert heading in text
