"""What a mechanism can keep its promise with: nothing leaves that it does not bound and cover."""

from __future__ import annotations

import math
from collections.abc import Callable

from anabranch.plan.privacy import DistributedNoise, LocalDpSgd, MatrixMechanism
from anabranch.plan.rules.base import Alternative, Rule
from anabranch.plan.schema import Plan
from anabranch.privacy.budget import UniformAllocation
from anabranch.privacy.mechanisms import AdaptiveClip

__all__ = ["RULES"]

_NO_PROMISE = Alternative("promise nothing", {"privacy": None})


def _bounds_updates(plan: Plan) -> bool:
    """Whether a mechanism bounds whole updates (and not gradients inside local training)."""
    return plan.privacy is not None and not isinstance(plan.privacy.mechanism, LocalDpSgd)


def _under_mechanism(objection: Callable[[Plan], str | None]) -> Callable[[Plan], str | None]:
    return lambda plan: objection(plan) if _bounds_updates(plan) else None


def _name(plan: Plan) -> str:
    return plan.algorithm.name or type(plan.algorithm).__name__


def _sections(plan: Plan) -> str | None:
    others = [s.name for s in plan.algorithm.sections(1) if s.name != "delta"]
    if others:
        return (
            f"{_name(plan)} also sends {', '.join(others)}, which the mechanism neither bounds nor "
            "covers with noise."
        )
    kept = [s.name for s in plan.algorithm.memory_sections(1)]
    if kept or plan.requirement.individual_norms:
        what = f"keeps {', '.join(kept)} at the client" if kept else "needs the norms of updates"
        return f"{_name(plan)} {what}; that does not agree with updates that were clipped."
    return None


def _averaging(plan: Plan) -> tuple[Alternative, ...]:
    return (
        Alternative("average with momentum", {"algorithm": {"name": "fedavgm"}}),
        Alternative("average", {"algorithm": {"name": "fedavg"}}),
        _NO_PROMISE,
    )


def _evaluated(plan: Plan) -> str | None:
    if plan.evaluation.on not in ("holdout", "nowhere") and not _pays_for_scores(plan):
        return (
            f"evaluation.on is {plan.evaluation.on!r}: metrics of clients' own examples would "
            "leave them without noise, and per client; no part of the budget is set aside for them."
        )
    if plan.evaluation.baselines:
        return "baselines are trained on the clients' data without noise, and their metrics leave."
    assert plan.privacy is not None
    if plan.privacy.evaluation_share and plan.evaluation.on in ("holdout", "nowhere"):
        return (
            f"privacy.evaluation_share sets budget aside for metrics of clients, but evaluation.on "
            f"is {plan.evaluation.on!r}: nothing would spend it, and the model would be noisier."
        )
    return None


def _pays_for_scores(plan: Plan) -> bool:
    """Whether clients may tell one bounded number each: a coordinator adds the noise to its sum."""
    assert plan.privacy is not None
    trusted = not isinstance(plan.privacy.mechanism, DistributedNoise)
    return trusted and plan.privacy.evaluation_share > 0 and plan.secure_aggregation is None


def _holdout(plan: Plan) -> tuple[Alternative, ...]:
    return (
        Alternative("set no budget aside for metrics", {"privacy.evaluation_share": None}),
        Alternative(
            "measure on examples of the coordinator (data.holdout_fraction, or a source with a "
            "hold-out)",
            {"evaluation.on": "holdout", "evaluation.baselines": None},
        ),
        Alternative(
            "set a tenth of the budget aside for a noisy accuracy, measured every tenth round",
            {"privacy.evaluation_share": 0.1, "evaluation.every": 10, "evaluation.baselines": None},
        ),
        Alternative("measure nowhere", {"evaluation.on": "nowhere", "evaluation.baselines": None}),
        _NO_PROMISE,
    )


def _weights(plan: Plan) -> str | None:
    if math.isfinite(plan.weighting.bound):
        return None
    return (
        f"aggregation.weighting is {plan.weighting.kind!r} without a cap: one client could count "
        "for any number of others."
    )


def _capped(plan: Plan) -> tuple[Alternative, ...]:
    return (
        Alternative("count every client the same", {"aggregation.weighting": {"kind": "uniform"}}),
        Alternative("cap the weight", {"aggregation.weighting": {"kind": "examples", "cap": 100}}),
        _NO_PROMISE,
    )


def _stages(plan: Plan) -> str | None:
    if not plan.updates.stages:
        return None
    names = ", ".join(repr(stage.name) for stage in plan.updates.stages)
    return (
        f"stage {names} would work on the update beside the mechanism, which clips, rounds and "
        "packs it itself: what the noise covers would not be what is sent."
    )


def _without_stages(plan: Plan) -> tuple[Alternative, ...]:
    return (Alternative("leave the stages out", {"updates.stages": None}), _NO_PROMISE)


def _adaptive(plan: Plan) -> str | None:
    assert plan.privacy is not None
    mechanism = plan.privacy.mechanism
    if not isinstance(mechanism.clip, AdaptiveClip):
        return None
    if isinstance(mechanism, MatrixMechanism):
        return (
            "DP-FTRL correlates the noise of many rounds, which all need one clip norm; an "
            "adaptive norm changes from round to round."
        )
    if isinstance(mechanism, DistributedNoise) and mechanism.noise == "skellam":
        return (
            "the proof for Skellam noise is about one scale, and the count of unclipped updates "
            "would have another."
        )
    return None


def _fixed(plan: Plan) -> tuple[Alternative, ...]:
    assert plan.privacy is not None
    first = plan.privacy.mechanism.clip.first
    return (
        Alternative(
            "clip at a fixed norm (find a good one on public data)",
            {"privacy.mechanism.clip": {"kind": "fixed", "norm": first}},
        ),
        _NO_PROMISE,
    )


def _rounds(plan: Plan) -> str | None:
    rounds = plan.rounds
    if rounds.asynchronous is not None or rounds.late_window:
        key = "rounds.asynchronous" if rounds.asynchronous is not None else "rounds.late_window"
        return (
            f"with {key} an update counts for a later round with another weight; the mechanism "
            "rounds updates of one round to integers of equal weight."
        )
    return None


def _synchronous(plan: Plan) -> tuple[Alternative, ...]:
    changes = {"rounds.asynchronous": None, "rounds.late_window": None}
    return (Alternative("make rounds synchronous", changes), _NO_PROMISE)


def _allocated(plan: Plan) -> str | None:
    assert plan.privacy is not None
    mechanism = plan.privacy.mechanism
    if isinstance(plan.privacy.allocation, UniformAllocation):
        return None
    if isinstance(mechanism, MatrixMechanism):
        return "the noise of a DP-FTRL run is one release with one noise multiplier."
    if isinstance(mechanism, DistributedNoise):
        return "the clients' scale and their part of the noise are fixed for the whole run."
    if mechanism.noise_multiplier is not None:
        return "the plan states one noise multiplier for all rounds."
    if getattr(mechanism, "sampling", "none") == "poisson":
        return "rounds with a claimed sampling are accounted as equal ones."
    return None


def _uniform(plan: Plan) -> tuple[Alternative, ...]:
    return (
        Alternative("give every round the same share", {"privacy.allocation": None}),
        _NO_PROMISE,
    )


RULES = (
    Rule(
        "AB-936",
        "a private run releases the mean update and nothing else",
        ("algorithm", "privacy"),
        _under_mechanism(_sections),
        _averaging,
    ),
    Rule(
        "AB-937",
        "a private run is measured on examples that are not its clients'",
        ("evaluation", "privacy"),
        _under_mechanism(_evaluated),
        _holdout,
    ),
    Rule(
        "AB-939",
        "a private run bounds what one client counts",
        ("aggregation.weighting", "privacy"),
        _under_mechanism(_weights),
        _capped,
    ),
    Rule(
        "AB-940",
        "the mechanism is the only thing between an update and the sum",
        ("updates.stages", "privacy"),
        _under_mechanism(_stages),
        _without_stages,
    ),
    Rule(
        "AB-933",
        "the clip norm suits the mechanism",
        ("privacy.mechanism.clip",),
        _under_mechanism(_adaptive),
        _fixed,
    ),
    Rule(
        "AB-941",
        "a private round merges the updates of its own cohort",
        ("rounds", "privacy"),
        _under_mechanism(_rounds),
        _synchronous,
    ),
    Rule(
        "AB-944",
        "the budget can be dealt to rounds as planned",
        ("privacy.allocation", "privacy.mechanism"),
        _under_mechanism(_allocated),
        _uniform,
    ),
)
