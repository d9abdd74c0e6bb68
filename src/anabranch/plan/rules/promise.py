"""What a promise needs to make sense at all, before any fleet is known."""

from __future__ import annotations

from anabranch.errors import AnabranchError
from anabranch.plan.privacy import MatrixMechanism
from anabranch.plan.rules.base import Alternative, Rule
from anabranch.plan.schema import Plan
from anabranch.privacy.accounting import population_warning

__all__ = ["RULES"]

_NO_PROMISE = Alternative("promise nothing", {"privacy": None})


def _delta(plan: Plan) -> str | None:
    if plan.privacy is None or plan.privacy.population_size is None:
        return None
    try:
        population_warning(plan.privacy.delta, plan.privacy.population_size)
    except AnabranchError as error:
        return error.message
    return None


def _smaller_delta(plan: Plan) -> tuple[Alternative, ...]:
    if plan.privacy is None or plan.privacy.population_size is None:
        return ()
    delta = float(f"{0.1 / plan.privacy.population_size:.0e}")
    return (Alternative("state a delta that exposes nobody", {"privacy.delta": delta}),)


def _participations(plan: Plan) -> str | None:
    mechanism = plan.privacy.mechanism if plan.privacy is not None else None
    if not isinstance(mechanism, MatrixMechanism):
        return None
    rounds, most = plan.rounds.count, mechanism.participations
    separation = mechanism.separation or max(1, rounds // most)
    if (most - 1) * separation >= rounds:
        return (
            f"{most} participations, {separation} rounds apart, do not fit into {rounds} rounds: "
            "noise would be paid for that nobody needs."
        )
    if mechanism.bands is not None and mechanism.bands > separation:
        return (
            f"{mechanism.bands} bands of correlated noise are more than the separation of "
            f"{separation} rounds: two participations of a client would meet in one band."
        )
    return None


def _fitting(plan: Plan) -> tuple[Alternative, ...]:
    derived = {"privacy.mechanism.separation": None, "privacy.mechanism.bands": None}
    fewer = min(plan.rounds.count, getattr(plan.privacy.mechanism, "participations", 1))  # type: ignore[union-attr]  # asked of private plans only
    return (
        Alternative("leave separation and bands to be derived", derived),
        Alternative("fewer participations", {**derived, "privacy.mechanism.participations": fewer}),
        _NO_PROMISE,
    )


RULES = (
    Rule(
        "AB-910",
        "delta is small enough for the population",
        ("privacy.delta", "privacy.population_size"),
        _delta,
        _smaller_delta,
    ),
    Rule(
        "AB-928",
        "the participations that correlated noise is made for can happen",
        ("privacy.mechanism", "rounds.count"),
        _participations,
        _fitting,
    ),
)
