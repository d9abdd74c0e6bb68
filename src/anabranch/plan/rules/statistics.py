"""Who can add the noise to statistics for preprocessing, where the promise pays for it."""

from __future__ import annotations

from anabranch.plan.privacy import DistributedNoise, LocalDpSgd
from anabranch.plan.rules.base import Alternative, Rule
from anabranch.plan.schema import Plan
from anabranch.privacy.events import Unit

__all__ = ["RULES"]


def _noisy(plan: Plan) -> str | None:
    if plan.privacy is None or not plan.privacy.statistics_share:
        return None
    mechanism = plan.privacy.mechanism
    if isinstance(mechanism, LocalDpSgd):
        if plan.privacy.unit is Unit.SUBJECT and not mechanism.disjoint:
            return (
                "a person may have data at several sites, and no site knows at how many: it "
                "cannot find the noise of its statistics."
            )
        return None
    if isinstance(mechanism, DistributedNoise) or plan.secure_aggregation is not None:
        return (
            "statistics for preprocessing do not travel in secure sums: the coordinator, which "
            "may see no single update, would see each client's statistics."
        )
    return None


def _alternatives(plan: Plan) -> tuple[Alternative, ...]:
    none = Alternative("pay for no statistics", {"privacy.statistics_share": None})
    if plan.privacy is not None and isinstance(plan.privacy.mechanism, LocalDpSgd):
        apart = {"privacy.mechanism.disjoint": True}
        return (Alternative("declare that nobody is at two sites", apart), none)
    return (none, Alternative("promise nothing", {"privacy": None}))


RULES = (
    Rule(
        "AB-989",
        "somebody can add the noise to statistics for preprocessing",
        ("privacy.statistics_share", "privacy.mechanism", "secure_aggregation"),
        _noisy,
        _alternatives,
    ),
)
