"""The trust line: one generated sentence about who can read what. Every run opens with it."""

from __future__ import annotations

from anabranch.plan.schema import Plan

__all__ = ["hides_updates", "trust_line"]


def hides_updates(plan: Plan) -> bool:
    """Whether the coordinator can only see sums: updates are added up behind masks."""
    return plan.secure_aggregation is not None


def trust_line(plan: Plan) -> str:
    """Who can read the updates, and whether what is released is private.

    >>> from anabranch.data.plan import DataPlan
    >>> from anabranch.learners.plan import ModelPlan
    >>> trust_line(Plan(data=DataPlan(), model=ModelPlan()))
    'the coordinator can read every update; no differential privacy'
    """
    table = plan.secure_aggregation
    seen = "every update"
    if table is not None:
        seen = (
            f"only sums of {table.minimum} or more updates (while it works with at most "
            f"{table.corrupt_share:.0%} of the clients asked)"
        )
    return f"the coordinator can read {seen}; {_promise(plan)}"


def _promise(plan: Plan) -> str:
    """What is promised of what is released."""
    if plan.privacy is not None:
        table, kind = plan.privacy, plan.privacy.mechanism.kind
        who = {"distributed": "the clients", "dp-sgd": "each site"}.get(kind, "the coordinator")
        return (
            f"what is released has epsilon {table.epsilon:g} at delta {table.delta:g} for each "
            f"{table.unit.value} of {table.population!r} ({table.neighbours.value}), with noise "
            f"from {who}"
        )
    return "no differential privacy"
