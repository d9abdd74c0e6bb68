"""What selection may read, and what a claim of amplification needs."""

from __future__ import annotations

from collections.abc import Iterator

from anabranch.plan.rules.base import Alternative, Note, Rule
from anabranch.plan.schema import Plan
from anabranch.plan.trust import hides_updates

__all__ = ["RULES", "selection_notes"]

_UNIFORM = Alternative("select with equal chances", {"selection": {"kind": "uniform"}})
_POISSON = Alternative(
    "toss a coin for each client",
    {
        "selection": {"kind": "poisson"},
        "rounds.over_selection": None,
        "rounds.late_window": None,
        "rounds.asynchronous": None,
    },
)
_NO_PROMISE = Alternative("promise nothing", {"privacy": None})


def _kind(plan: Plan) -> str:
    return plan.selection.kind or type(plan.selection).__name__


def _claims_coins(plan: Plan) -> bool:
    if plan.privacy is None:
        return False
    return getattr(plan.privacy.mechanism, "sampling", "none") == "poisson"


def _losses(plan: Plan) -> str | None:
    if not plan.selection.reads_losses:
        return None
    if hides_updates(plan):
        return (
            f"{_kind(plan)} decides by single clients' losses, but with secure aggregation nobody "
            "sees more than their sum."
        )
    if plan.privacy is None:
        return None
    return (
        f"{_kind(plan)} decides by single clients' losses. Who is asked next then tells about "
        "their data, and no line of the ledger pays for it: the mechanism releases sums alone."
    )


def _without_losses(plan: Plan) -> tuple[Alternative, ...]:
    device = Alternative("select by devices alone", {"selection": {"kind": "utility"}})
    return (_UNIFORM, device, _NO_PROMISE) if plan.privacy is not None else (_UNIFORM, device)


def _coins(plan: Plan) -> str | None:
    if not _claims_coins(plan) or plan.selection.amplifies:
        return None
    return (
        "privacy.mechanism.sampling claims that every enrolled client is drawn by an independent "
        f"secret coin, but the selector is {_kind(plan)}: amplification would be claimed for a "
        "sampling that does not happen."
    )


def _no_claim(plan: Plan) -> tuple[Alternative, ...]:
    unclaimed = Alternative("claim no sampling", {"privacy.mechanism.sampling": "none"})
    return (_POISSON, unclaimed)


def _voids(plan: Plan) -> Iterator[tuple[str, str]]:
    """What breaks the independence of coins: the setting, and why."""
    rounds, selector = plan.rounds, plan.selection
    if rounds.asynchronous is not None:
        yield "rounds.asynchronous", "who is asked depends on who has answered"
    if rounds.over_selection > 1:
        yield "rounds.over_selection", "more coins are tossed than the rate says"
    if rounds.late_window:
        yield "rounds.late_window", "a late update joins a round that it was not drawn for"
    if selector.separation > 1:
        yield "selection.separation", "a coin depends on earlier ones"
    if selector.max_participations is not None:
        yield "selection.max_participations", "a coin depends on earlier ones"


def _void(plan: Plan) -> str | None:
    if not plan.selection.amplifies or not _claims_coins(plan):
        return None
    found = list(_voids(plan))
    if not found:
        return None
    return "; ".join(f"with {key} {why}" for key, why in found) + ": coins are not independent."


def _independent(plan: Plan) -> tuple[Alternative, ...]:
    keys = {key: None for key, _ in _voids(plan)}
    unclaimed = Alternative("claim no sampling", {"privacy.mechanism.sampling": "none"})
    return (Alternative("leave that out", keys), unclaimed)


def _buffered(plan: Plan) -> str | None:
    if not plan.selection.amplifies or plan.rounds.asynchronous is None:
        return None
    return (
        f"{_kind(plan)} draws a cohort for a round, but asynchronous rounds replace one client at "
        "a time: a cohort would be drawn whenever one task is free."
    )


def _rounds_or_uniform(plan: Plan) -> tuple[Alternative, ...]:
    return (
        Alternative("make rounds synchronous", {"rounds.asynchronous": None}),
        _UNIFORM,
    )


def selection_notes(plan: Plan) -> Iterator[Note]:
    """What a reader should know of an accepted selection."""
    selector, floor = plan.selection, plan.selection.floor_rounds
    capped = selector.separation > 1 or selector.max_participations is not None
    limited = getattr(plan.privacy.mechanism, "participations", None) if plan.privacy else None
    if floor is not None and (capped or limited is not None):
        yield Note(
            ("selection", "privacy") if plan.privacy else ("selection",),
            "The fairness floor yields to separation and participation caps: a client that may not "
            "be asked is not owed a turn.",
        )
    if selector.reads_losses:
        yield Note(
            ("selection",),
            "Clients are selected by losses that they claim themselves; one that claims more is "
            "asked more often.",
        )
    if plan.admission.adapt and not plan.requirement.known_coefficients and _cuts(plan):
        yield Note(
            ("admission", "algorithm"),
            "Slow devices may be asked for fewer steps. FedNova corrects for it; averaging counts "
            "short updates like long ones.",
        )


def _cuts(plan: Plan) -> bool:
    rules = plan.admission
    caps = (rules.max_seconds, rules.max_joules, rules.max_battery, plan.rounds.deadline)
    return plan.devices is not None and any(cap is not None for cap in caps)


RULES = (
    Rule(
        "AB-470",
        "selection from losses must see them, and is a release",
        ("selection", "privacy", "updates.stages"),
        _losses,
        _without_losses,
    ),
    Rule(
        "AB-472",
        "amplification needs a coin for each client",
        ("selection", "privacy.mechanism"),
        _coins,
        _no_claim,
    ),
    Rule(
        "AB-473",
        "amplification needs independent coins",
        ("selection", "rounds", "privacy.mechanism"),
        _void,
        _independent,
    ),
    Rule(
        "AB-474",
        "coins are tossed for rounds",
        ("selection", "rounds.asynchronous"),
        _buffered,
        _rounds_or_uniform,
    ),
)
