"""What a stage does to an update must not separate the client's books from the server's."""

from __future__ import annotations

import math
from collections.abc import Iterator

from anabranch.plan.rules.base import Alternative, Rule
from anabranch.plan.rules.probe import inferred_memory
from anabranch.plan.schema import Plan
from anabranch.updates.stages import Stage

__all__ = ["RULES"]


def _name(plan: Plan) -> str:
    return plan.algorithm.name or type(plan.algorithm).__name__


def _biased(plan: Plan) -> Iterator[tuple[int, Stage]]:
    """Stages whose output differs from their input even on average; codecs have their own rules."""
    for position, stage in enumerate(plan.updates.stages):
        if not (stage.contract().unbiased or stage.contract().packs):
            yield position, stage


def _bounding(plan: Plan) -> Iterator[tuple[int, Stage]]:
    for position, stage in enumerate(plan.updates.stages):
        if math.isfinite(stage.contract().norm_bound):
            yield position, stage


def _without(plan: Plan, stages: list[tuple[int, Stage]]) -> tuple[Alternative, ...]:
    left_out = {position for position, _ in stages}
    kept = [
        stage
        for position, stage in enumerate(plan.model_dump(mode="json")["updates"]["stages"])
        if position not in left_out
    ]
    names = ", ".join(repr(stage.name) for _, stage in stages)
    return (Alternative(f"leave out {names}", {"updates.stages": kept or None}),)


def _norms(plan: Plan) -> str | None:
    changing = [stage.name for _, stage in _biased(plan)]
    if not plan.requirement.individual_norms or not changing:
        return None
    return (
        f"{_name(plan)} compares the mean of the squared norms of the updates with the squared "
        f"norm of their mean. Stage {changing[0]!r} shortens the updates after their norms were "
        "taken, so the ratio, and with it the server's step, would be too large."
    )


def _norms_alternatives(plan: Plan) -> tuple[Alternative, ...]:
    return (
        *_without(plan, list(_biased(plan))),
        Alternative("use FedAvg with this stage", {"algorithm": {"name": "fedavg"}}),
    )


def _books(plan: Plan) -> str | None:
    changing, inferred = [stage.name for _, stage in _biased(plan)], inferred_memory(plan.algorithm)
    if not inferred or not changing:
        return None
    return (
        f"{_name(plan)} keeps {inferred[0]!r} at the client, computed from the update before stage "
        f"{changing[0]!r}, and its mean at the server, computed from the updates after it. The two "
        "would drift apart, and the model would rest elsewhere."
    )


def _books_alternatives(plan: Plan) -> tuple[Alternative, ...]:
    clip_instead: tuple[Alternative, ...] = ()
    if plan.local.clip_norm is None and list(_bounding(plan)):
        without = _without(plan, list(_biased(plan)))[0]
        clip_instead = (
            Alternative(
                "clip batch gradients instead of updates",
                {**without.changes, "local.clip_norm": 1.0},
            ),
        )
    return (
        *_without(plan, list(_biased(plan))),
        *clip_instead,
        Alternative("use FedAvg with this stage", {"algorithm": {"name": "fedavg"}}),
    )


RULES = (
    Rule(
        "AB-406",
        "extrapolation needs the norms of what is averaged",
        ("algorithm", "updates.stages"),
        _norms,
        _norms_alternatives,
    ),
    Rule(
        "AB-407",
        "client and server must keep the same books",
        ("algorithm", "updates.stages"),
        _books,
        _books_alternatives,
    ),
)
