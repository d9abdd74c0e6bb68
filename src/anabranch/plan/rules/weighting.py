"""Some algorithms are derived for a mean in which every client counts the same."""

from __future__ import annotations

from anabranch.aggregation.weighting import Uniform
from anabranch.plan.rules.base import Alternative, Rule
from anabranch.plan.schema import Plan

__all__ = ["RULES"]


def _objection(plan: Plan) -> str | None:
    if not plan.requirement.uniform_mean or isinstance(plan.weighting, Uniform):
        return None
    return (
        f"{plan.algorithm.name or type(plan.algorithm).__name__} corrects clients towards the "
        f"plain mean of their gradients, but aggregation.weighting is {plan.weighting.kind!r}: "
        "the corrections and the model would aim at two different means."
    )


def _alternatives(plan: Plan) -> tuple[Alternative, ...]:
    return (
        Alternative("count every client the same", {"aggregation.weighting": {"kind": "uniform"}}),
        Alternative("use FedAvg with this weighting", {"algorithm": {"name": "fedavg"}}),
    )


RULES = (
    Rule(
        "AB-402",
        "control variates need a uniform mean",
        ("algorithm", "aggregation.weighting"),
        _objection,
        _alternatives,
    ),
)
