"""Some algorithms infer gradients from how far a client moved, so they must know its optimizer."""

from __future__ import annotations

from anabranch.learners.training import SGD
from anabranch.plan.rules.base import Alternative, Rule
from anabranch.plan.schema import Plan

__all__ = ["RULES"]

_PLAIN = {"kind": "sgd"}


def _name(plan: Plan) -> str:
    return plan.algorithm.name or type(plan.algorithm).__name__


def _fedavg(plan: Plan) -> Alternative:
    return Alternative("use FedAvg with this optimizer", {"algorithm": {"name": "fedavg"}})


def _proportional(plan: Plan) -> str | None:
    """Control variates: displacement = - sum of rates * mean gradient."""
    optimizer = plan.local.optimizer
    if not plan.requirement.plain_sgd:
        return None
    if isinstance(optimizer, SGD) and not optimizer.momentum:
        return None  # weight decay is part of the gradient, and the variates learn that gradient
    return (
        f"{_name(plan)} divides a client's displacement by the sum of its step sizes to get the "
        f"mean gradient of its path. With {_describe(plan)} a step is not the step size times the "
        "gradient, so the control variates would be wrong by a factor that is not known."
    )


def _describe(plan: Plan) -> str:
    optimizer = plan.local.optimizer
    return f"momentum {optimizer.momentum:g}" if isinstance(optimizer, SGD) else "Adam"


def _plain_alternatives(plan: Plan) -> tuple[Alternative, ...]:
    optimizer = plan.local.optimizer
    decay = optimizer.weight_decay if isinstance(optimizer, SGD) else 0.0
    plain = {**_PLAIN, "weight_decay": decay} if decay else _PLAIN
    return (
        Alternative("train with plain SGD", {"local.optimizer": plain}),
        Alternative("use FedDyn, which divides by no step size", {"algorithm": {"name": "feddyn"}}),
        _fedavg(plan),
    )


def _known(plan: Plan) -> str | None:
    if not plan.requirement.known_coefficients or isinstance(plan.local.optimizer, SGD):
        return None
    return (
        f"{_name(plan)} divides each update by the L1 norm of the gradient coefficients of the "
        "local optimizer. Adam's coefficients depend on the gradients that it meets, so they are "
        "not known."
    )


def _known_alternatives(plan: Plan) -> tuple[Alternative, ...]:
    return (
        Alternative("train with SGD (momentum is allowed)", {"local.optimizer": _PLAIN}),
        _fedavg(plan),
    )


RULES = (
    Rule(
        "AB-403",
        "control variates need steps proportional to gradients",
        ("algorithm", "local.optimizer"),
        _proportional,
        _plain_alternatives,
    ),
    Rule(
        "AB-404",
        "normalised averaging needs known gradient coefficients",
        ("algorithm", "local.optimizer"),
        _known,
        _known_alternatives,
    ),
)
