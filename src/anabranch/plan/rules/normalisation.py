"""Running statistics of batch normalisation are averaged, not stepped."""

from __future__ import annotations

from anabranch.plan.rules.base import Alternative, Rule
from anabranch.plan.rules.probe import averages
from anabranch.plan.schema import Plan

__all__ = ["RULES"]


def _objection(plan: Plan) -> str | None:
    if plan.model.normalisation != "average" or averages(plan.algorithm):
        return None
    return (
        f"model.normalisation is 'average', but {plan.algorithm.name or type(plan.algorithm)} does "
        "not move the model by a part of the clients' mean. Running means and variances would be "
        "stepped like weights, and a variance could become negative."
    )


def _alternatives(plan: Plan) -> tuple[Alternative, ...]:
    return (
        Alternative("keep normalisation at each client (FedBN)", {"model.normalisation": "local"}),
        Alternative("refuse batch normalisation", {"model.normalisation": "refuse"}),
        Alternative("use FedAvg", {"algorithm": {"name": "fedavg"}}),
    )


RULES = (
    Rule(
        "AB-405",
        "averaged running statistics need an averaging server",
        ("algorithm", "model.normalisation"),
        _objection,
        _alternatives,
    ),
)
