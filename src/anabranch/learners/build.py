"""From the plan's model to a learner."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import itertools
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias

from anabranch.errors import AnabranchError
from anabranch.learners.base import Learner
from anabranch.learners.dense import DenseStack, dense_stack, drawn
from anabranch.learners.kernels import is_wide
from anabranch.learners.losses import Loss, resolve_loss
from anabranch.learners.numpy_learner import NumpyLearner
from anabranch.learners.plan import ModelPlan, ParameterValue
from anabranch.updates.layout import Layout
from anabranch.updates.sections import Vector

if TYPE_CHECKING:
    from torch import nn

    from anabranch.learners.torch_learner import EngineName, TorchLearner

__all__ = ["BUILT_IN", "ModuleFactory", "build_learner"]

ModuleFactory: TypeAlias = "Callable[..., nn.Module] | nn.Module"
"""Makes the model (a class from a notebook cell does), or is one."""

BUILT_IN = ("logistic", "linear", "mlp", "leaf-cnn", "char-gru")
"""Names of the built-in models."""

_DENSE = ("logistic", "linear", "mlp")
_ALLOWED: Mapping[str, frozenset[str]] = {
    "logistic": frozenset(),
    "linear": frozenset(),
    "mlp": frozenset({"hidden"}),
    "leaf-cnn": frozenset({"hidden"}),
    "char-gru": frozenset({"embedding", "hidden", "layers"}),
}


def build_learner(
    plan: ModelPlan,
    kind: Literal["torch", "numpy", "auto"] = "auto",
    *,
    input_shape: tuple[int, ...],
    classes: int = 0,
    vocabulary_size: int = 0,
    precision: Literal["float32", "bfloat16"] = "float32",
    engine: EngineName = "auto",
    device: str = "auto",
    module_factory: ModuleFactory | None = None,
) -> Learner:
    """The learner for a plan's model and the data's shape.

    Args:
        plan: the table ``[model]``.
        kind: ``auto`` takes NumPy for built-in models without a wide layer, where PyTorch would
            give the same model more slowly, and PyTorch for the rest.
        input_shape: of one example.
        classes: of the data; 0 for regression.
        vocabulary_size: number of tokens of a text source.
        precision: ``bfloat16`` is opt-in: parameters differ from float32.
        engine: ``auto``, ``closed-form``, ``traced`` or ``eager`` (PyTorch only).
        device: ``cpu``, ``cuda``, ``mps`` or ``auto`` (only ``cpu`` is tested).
        module_factory: a class, a function or a module, instead of ``plan.name``; it is called
            with ``plan.parameters``.

    Raises:
        AnabranchError: AB-301 outputs do not fit the labels, AB-303 unknown model, AB-304 PyTorch
            is missing, AB-305 not a module, AB-307 batch normalisation, AB-308 input shape,
            AB-309 parameters of a built-in model.
    """
    own = module_factory is not None or ":" in plan.name
    if not own:
        _check_built_in(plan)
    has_torch = importlib.util.find_spec("torch") is not None
    dense = not own and plan.name in _DENSE
    plain = engine == "auto" and precision == "float32" and device in ("auto", "cpu")
    if (
        kind == "auto"
        and dense
        and (not has_torch or (plain and _narrow(plan, input_shape, classes)))
    ):
        kind = "numpy"
    if kind == "numpy":
        _require_dense(plan, dense)
        stack, loss = _dense(plan, input_shape, classes)
        return NumpyLearner(stack, plan, loss)
    _require_torch(plan, has_torch)
    return _torch_learner(
        plan,
        _imported(plan.name) if own and module_factory is None else module_factory,
        (input_shape, classes, vocabulary_size),
        (engine, precision, device),
    )


def _require_dense(plan: ModelPlan, dense: bool) -> None:
    if not dense:
        raise AnabranchError(
            "AB-304",
            f"the model {plan.name!r} needs PyTorch; without it there are {', '.join(_DENSE)}.",
            fix='pip install "anabranch[torch]", or choose another model.',
        )


def _require_torch(plan: ModelPlan, has_torch: bool) -> None:
    if not has_torch:
        raise AnabranchError(
            "AB-304",
            f"the model {plan.name!r} needs PyTorch, which is not installed.",
            fix='pip install "anabranch[torch]", or choose the NumPy learner for logistic, '
            "linear and mlp.",
        )


def _torch_learner(
    plan: ModelPlan,
    given: Callable[..., nn.Module] | nn.Module | None,
    data: tuple[tuple[int, ...], int, int],
    how: tuple[EngineName, Literal["float32", "bfloat16"], str],
) -> TorchLearner:
    from anabranch.learners import models
    from anabranch.learners.torch_learner import TorchLearner, seeded_module

    (shape, classes, vocabulary), (engine, precision, device) = data, how
    initial: Callable[[Layout, int], Vector] | None = None
    tokens = plan.name == "char-gru"
    factory: Callable[[], nn.Module]
    if given is not None:
        factory = partial(_own_module, given, plan)
        sample = seeded_module(factory, 0)
        tokens = bool(vocabulary) or models.reads_tokens(sample)
        outputs = models.outputs_of(sample, models.probe(shape, tokens))
        loss = resolve_loss(plan.loss, classes, outputs)
    elif plan.name in _DENSE:
        stack, loss = _dense(plan, shape, classes)
        factory, initial = partial(models.dense_module, stack), partial(drawn, stack.draws())
    else:
        size = vocabulary or classes
        loss = resolve_loss(plan.loss, classes, classes if plan.name == "leaf-cnn" else size)
        factory = partial(models.built_in, plan.name, plan.parameters, shape, loss.outputs)
        initial = partial(drawn, models.module_draws(factory()))
    return TorchLearner(
        factory,
        plan,
        loss,
        shape,
        initial=initial,
        engine=engine,
        tokens=tokens,
        precision=precision,
        device=models.device_name(device),
    )


def _dense(plan: ModelPlan, shape: tuple[int, ...], classes: int) -> tuple[DenseStack, Loss]:
    name = plan.loss
    if plan.name == "logistic" and not classes:
        raise AnabranchError(
            "AB-301",
            "the model 'logistic' needs classes; the data have real-valued targets.",
            fix="choose model 'linear' or 'mlp', or give integer labels.",
        )
    if plan.name == "linear" and name == "auto":
        name = "mse"
    loss = resolve_loss(name, classes, None)
    hidden = plan.parameters.get("hidden", [200]) if plan.name == "mlp" else []
    return dense_stack(math.prod(shape), _sizes(hidden), loss.outputs), loss


def _narrow(plan: ModelPlan, shape: tuple[int, ...], classes: int) -> bool:
    """Whether no layer is wide enough for PyTorch to be worth its start-up time."""
    sizes = _dense(plan, shape, classes)[0].sizes
    return not any(is_wide(pair) for pair in itertools.pairwise(sizes))


def _sizes(hidden: ParameterValue) -> list[int]:
    sizes = [hidden] if isinstance(hidden, int) else hidden
    if not isinstance(sizes, list) or not all(isinstance(s, int) and s > 0 for s in sizes):
        raise AnabranchError(
            "AB-309",
            f"model.parameters.hidden is {hidden!r}; wanted is a list of positive numbers.",
            fix="write for example hidden = [200].",
        )
    return sizes


def _check_built_in(plan: ModelPlan) -> None:
    if plan.name not in BUILT_IN:
        near = difflib.get_close_matches(plan.name, BUILT_IN, 1, 0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise AnabranchError(
            "AB-303",
            f"there is no built-in model {plan.name!r}.",
            fix=f"{hint}built-in are {', '.join(BUILT_IN)}; your own is 'module:factory'.",
        )
    unknown = set(plan.parameters) - _ALLOWED[plan.name]
    if unknown:
        allowed = ", ".join(sorted(_ALLOWED[plan.name])) or "none"
        raise AnabranchError(
            "AB-309",
            f"the model {plan.name!r} has no parameter {sorted(unknown)[0]!r}.",
            fix=f"parameters of this model: {allowed}.",
        )


def _imported(name: str) -> Callable[..., nn.Module]:
    where, _, what = name.partition(":")
    try:
        found = importlib.import_module(where)
        for part in what.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise AnabranchError(
            "AB-305",
            f"the model {name!r} cannot be imported: {error}.",
            fix="write 'package.module:factory' and install the package at every client.",
        ) from error
    if not callable(found):
        raise AnabranchError(
            "AB-305",
            f"{name!r} is {type(found).__name__}, not a function or class that makes a module.",
            fix="name a function or an nn.Module class.",
        )
    return found


def _own_module(given: Callable[..., nn.Module] | nn.Module, plan: ModelPlan) -> nn.Module:
    import copy

    from torch import nn

    if isinstance(given, nn.Module):
        return copy.deepcopy(given)
    try:
        module = given(**plan.parameters)
    except TypeError as error:
        known = _signature(given)
        raise AnabranchError(
            "AB-305",
            f"the model's factory refuses model.parameters: {error}.",
            fix=f"give parameters that the factory has: {known}.",
        ) from error
    if not isinstance(module, nn.Module):
        raise AnabranchError(
            "AB-305",
            f"the model's factory returned {type(module).__name__}, not a torch.nn.Module.",
            fix="return the module.",
        )
    return module


def _signature(given: Callable[..., object]) -> str:
    try:
        return str(inspect.signature(given))
    except (TypeError, ValueError):
        return "unknown"
