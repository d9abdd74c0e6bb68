"""The trust line: one generated sentence about who can read what. Every run opens with it."""

from __future__ import annotations

from anabranch.plan.schema import Plan
from anabranch.updates.stages import Releases
from anabranch.updates.total import Finest

__all__ = ["hides_updates", "trust_line"]


def hides_updates(plan: Plan) -> bool:
    """Whether the coordinator can only see sums: a stage turns updates into masked integers."""
    contracts = [stage.contract() for stage in plan.updates.stages]
    masked = any(c.integer and c.linear and c.finest is not Finest.INDIVIDUALS for c in contracts)
    prepared = any(hasattr(stage, "prepare") for stage in plan.updates.stages)
    return masked and prepared


def trust_line(plan: Plan) -> str:
    """Who can read the updates, and whether what is released is private.

    >>> from anabranch.data.plan import DataPlan
    >>> from anabranch.learners.plan import ModelPlan
    >>> trust_line(Plan(data=DataPlan(), model=ModelPlan()))
    'the coordinator can read every update; no differential privacy'
    """
    seen = "only sums of updates" if hides_updates(plan) else "every update"
    noisy = [stage.name for stage in plan.updates.stages if isinstance(stage, Releases)]
    privacy = f"released through {', '.join(noisy)}" if noisy else "no differential privacy"
    return f"the coordinator can read {seen}; {privacy}"
