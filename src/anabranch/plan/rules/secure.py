"""What can be added up behind masks: bounded numbers, in one sum, closed in one round."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from anabranch.plan.privacy import DistributedNoise, LocalDpSgd
from anabranch.plan.rules.base import Alternative, Rule
from anabranch.plan.schema import Plan
from anabranch.updates.lattice import Lattice
from anabranch.updates.sections import Kind
from anabranch.updates.stages import DecodesOne, Stage
from anabranch.updates.total import Finest

__all__ = ["RULES"]

_LEAST_BITS = 12
"""Of ``secure_aggregation.bits``."""

_IN_THE_CLEAR = Alternative("add up in the clear", {"secure_aggregation": None})


def _secure(objection: Callable[[Plan], str | None]) -> Callable[[Plan], str | None]:
    return lambda plan: objection(plan) if plan.secure_aggregation is not None else None


def _single(plan: Plan) -> Iterator[tuple[int, Stage]]:
    """Stages whose server half needs one client's update, or that leave no numbers to add."""
    for position, stage in enumerate(plan.updates.stages):
        contract = stage.contract()
        individual = contract.finest is Finest.INDIVIDUALS
        if isinstance(stage, DecodesOne) or contract.packs or individual:
            yield position, stage


def _sums(plan: Plan) -> str | None:
    names = [stage.name for _, stage in _single(plan)]
    if not names:
        return None
    return (
        f"stage {names[0]!r} is undone for each update, but behind masks nobody has a single "
        "update, only their sum."
    )


def _without(plan: Plan, stages: Sequence[tuple[int, Stage]]) -> Alternative:
    left_out = {position for position, _ in stages}
    listed = plan.model_dump(mode="json")["updates"]["stages"]
    kept = [stage for position, stage in enumerate(listed) if position not in left_out]
    names = ", ".join(repr(stage.name) for _, stage in stages)
    return Alternative(f"leave out {names}", {"updates.stages": kept or None})


def _sums_alternatives(plan: Plan) -> tuple[Alternative, ...]:
    single = list(_single(plan))
    return _without(plan, single), *_subsampled(plan, single), _IN_THE_CLEAR


def _subsampled(plan: Plan, single: Sequence[tuple[int, Stage]]) -> tuple[Alternative, ...]:
    """A public mask where a codec was meant to make updates smaller."""
    names = [stage.name for stage in plan.updates.stages]
    if "subsample" in names or not any(stage.contract().packs for _, stage in single):
        return ()
    left_out = {position for position, _ in single}
    listed = plan.model_dump(mode="json")["updates"]["stages"]
    kept = [stage for position, stage in enumerate(listed) if position not in left_out]
    lattice = next((stage for _, stage in single if isinstance(stage, Lattice)), None)
    if lattice is not None:  # the same integers on the same mask, made by the sums themselves
        part = {"kind": "subsample", "fraction": lattice.fraction, "seed": lattice.seed}
        changes = {
            "updates.stages": [*kept, part],
            "secure_aggregation.bits": max(lattice.bits, _LEAST_BITS),
            "secure_aggregation.bound": lattice.limit,
        }
        words = "send the same part of the coordinates as integers behind masks"
        return (Alternative(words, changes),)
    words = "send a shared random tenth of the coordinates"
    return (Alternative(words, {"updates.stages": [*kept, {"kind": "subsample"}]}),)


def _by_mechanism(plan: Plan) -> bool:
    """Whether a mechanism bounds whatever a client sends."""
    return plan.privacy is not None and not isinstance(plan.privacy.mechanism, LocalDpSgd)


def _weights(plan: Plan) -> str | None:
    if _by_mechanism(plan) or math.isfinite(plan.weighting.bound):
        return None
    return (
        f"aggregation.weighting is {plan.weighting.kind!r} without a cap. Behind masks a sum is a "
        "number modulo 2^bits, and without a largest weight it could wrap around unseen."
    )


def _weights_alternatives(plan: Plan) -> tuple[Alternative, ...]:
    capped = {"kind": "examples", "cap": 1000}
    return (
        Alternative("count every client alike", {"aggregation.weighting": {"kind": "uniform"}}),
        Alternative("count at most 1000 examples", {"aggregation.weighting": capped}),
        _IN_THE_CLEAR,
    )


def _unbounded(plan: Plan) -> str | None:
    table = plan.secure_aggregation
    if _by_mechanism(plan) or table is None or table.bound is not None:
        return None
    clipped = any(math.isfinite(s.contract().norm_bound) for s in plan.updates.stages)
    vectors = [s.name for s in plan.algorithm.sections(1) if s.kind is Kind.VECTOR]
    # A clip stage bounds the delta and nothing else.
    free = [name for name in vectors if not (clipped and name == "delta")]
    if not free:
        return None
    return (
        f"section {free[0]!r} has no largest coordinate. Behind masks a sum is a number modulo "
        "2^bits, and without a bound it could wrap around unseen."
    )


def _unbounded_alternatives(plan: Plan) -> tuple[Alternative, ...]:
    return (
        Alternative("cut coordinates off at 1", {"secure_aggregation.bound": 1.0}),
        _IN_THE_CLEAR,
    )


def _open_over_rounds(plan: Plan) -> str | None:
    table = plan.rounds.asynchronous
    if plan.rounds.late_window:
        return (
            f"rounds.late_window is {plan.rounds.late_window}: a late update would be in a sum "
            "with clients that it shares no masks with."
        )
    if table is None or plan.secure_aggregation is None:
        return None
    least = max(2, plan.secure_aggregation.minimum)
    if table.buffer < least:
        return (
            f"rounds.asynchronous.buffer is {table.buffer}: sums of fewer than {least} updates are "
            "not opened."
        )
    if table.rebase:
        return (
            "rounds.asynchronous.rebase moves each update to the current model, which needs the "
            "single update, and behind masks nobody has it."
        )
    return None


def _closed_rounds(plan: Plan) -> tuple[Alternative, ...]:
    table, secure = plan.rounds.asynchronous, plan.secure_aggregation
    if table is None or secure is None:
        return Alternative("close every round", {"rounds.late_window": None}), _IN_THE_CLEAR
    least = max(2, secure.minimum)
    changes: dict[str, object] = {"rounds.asynchronous.rebase": None, "rounds.late_window": None}
    if table.buffer < least:
        changes["rounds.asynchronous.buffer"] = least
        changes["rounds.asynchronous.concurrency"] = max(least, table.concurrency)
    return Alternative("sum up buffers of updates that wait", changes), _IN_THE_CLEAR


def _parts_in_the_clear(plan: Plan) -> str | None:
    if plan.privacy is None or not isinstance(plan.privacy.mechanism, DistributedNoise):
        return None
    if plan.secure_aggregation is not None:
        return None
    return (
        "every client adds only a part of the noise, and without masks the coordinator sees each "
        "update with that small part alone."
    )


def _masks(plan: Plan) -> tuple[Alternative, ...]:
    return (
        Alternative("add up behind masks", {"secure_aggregation": {}}),
        Alternative("promise nothing", {"privacy": None}),
    )


RULES = (
    Rule(
        "AB-972",
        "behind masks there are sums only",
        ("secure_aggregation", "updates.stages"),
        _secure(_sums),
        _sums_alternatives,
    ),
    Rule(
        "AB-973",
        "what is added up behind masks is bounded",
        ("secure_aggregation", "aggregation.weighting", "updates.stages"),
        _secure(lambda plan: _weights(plan) or _unbounded(plan)),
        lambda plan: (_weights_alternatives if _weights(plan) else _unbounded_alternatives)(plan),
    ),
    Rule(
        "AB-974",
        "masks belong to one sum",
        ("secure_aggregation", "rounds"),
        _secure(_open_over_rounds),
        _closed_rounds,
    ),
    Rule(
        "AB-975",
        "noise in parts is added up behind masks",
        ("privacy.mechanism", "secure_aggregation"),
        _parts_in_the_clear,
        _masks,
    ),
)
