"""What noise that is made inside sites (DP-SGD) can keep its promise with."""

from __future__ import annotations

from collections.abc import Callable

from anabranch.plan.privacy import LocalDpSgd
from anabranch.plan.rules.base import Alternative, Rule
from anabranch.plan.schema import Plan
from anabranch.privacy.events import Unit
from anabranch.privacy.mechanisms import AdaptiveClip

__all__ = ["RULES"]

_NO_PROMISE = Alternative("promise nothing", {"privacy": None})
_PUBLIC_WEIGHTS = ("uniform",)


_Objection = Callable[[Plan, LocalDpSgd], str | None]


def _when_inside(objection: _Objection) -> Callable[[Plan], str | None]:
    def check(plan: Plan) -> str | None:
        mechanism = plan.privacy.mechanism if plan.privacy is not None else None
        return objection(plan, mechanism) if isinstance(mechanism, LocalDpSgd) else None

    return check


def _weights(plan: Plan, mechanism: LocalDpSgd) -> str | None:
    if plan.weighting.kind in _PUBLIC_WEIGHTS:
        return None
    return (
        f"aggregation.weighting is {plan.weighting.kind!r}: how many examples a site has would "
        "leave it exactly, and depends on whether one of them is there."
    )


def _evaluated(plan: Plan, mechanism: LocalDpSgd) -> str | None:
    assert plan.privacy is not None  # a plan with a mechanism
    own, share = plan.evaluation.on not in ("holdout", "nowhere"), plan.privacy.evaluation_share
    if plan.evaluation.baselines:
        return "baselines are trained on the sites' data without noise, and their metrics leave."
    if own and not share:
        return (
            f"evaluation.on is {plan.evaluation.on!r}: metrics of a site's own examples would "
            "leave it without noise; no part of the budget is set aside for them."
        )
    if share and not own:
        return (
            "privacy.evaluation_share sets budget aside for metrics of the sites' examples, but "
            f"evaluation.on is {plan.evaluation.on!r}: nothing would spend it."
        )
    if share and plan.secure_aggregation is not None:
        return "a site's noisy scores travel beside secure sums, which carry plain metrics only."
    if share and plan.privacy.unit is Unit.SUBJECT and not mechanism.disjoint:
        return (
            "a person may have data at several sites, and no site knows at how many: it cannot "
            "find the noise of its scores."
        )
    return None


def _unit(plan: Plan, mechanism: LocalDpSgd) -> str | None:
    assert plan.privacy is not None
    if plan.privacy.unit in (Unit.EXAMPLE, Unit.SUBJECT):
        return None
    return (
        f"privacy.unit is {plan.privacy.unit.value!r}, but DP-SGD bounds what one example or one "
        "subject inside a site can do, never a whole site."
    )


def _clip(plan: Plan, mechanism: LocalDpSgd) -> str | None:
    if isinstance(mechanism.clip, AdaptiveClip):
        return "an adaptive clip norm needs a release of every step, which no ledger line covers."
    return None


def _asked_once(plan: Plan, mechanism: LocalDpSgd) -> str | None:
    if plan.rounds.asynchronous is None:
        return None
    return (
        "rounds are asynchronous: a site could be asked several times in one round, and the ledger "
        "counts one set of steps a round for each site."
    )


RULES: tuple[Rule, ...] = (
    Rule(
        "AB-983",
        "noise inside sites: every site counts the same",
        ("aggregation.weighting", "privacy"),
        _when_inside(_weights),
        lambda plan: (
            Alternative(
                "count every site the same", {"aggregation.weighting": {"kind": "uniform"}}
            ),
            _NO_PROMISE,
        ),
    ),
    Rule(
        "AB-984",
        "noise inside sites: nothing is measured on the sites' examples",
        ("evaluation", "privacy"),
        _when_inside(_evaluated),
        lambda plan: (
            Alternative(
                "measure on examples of the coordinator",
                {
                    "evaluation.on": "holdout",
                    "evaluation.baselines": None,
                    "privacy.evaluation_share": None,
                },
            ),
            Alternative(
                "set a tenth of the budget aside for noisy metrics after the last round",
                {
                    "privacy.evaluation_share": 0.1,
                    "evaluation.on": "clients",
                    "evaluation.every": 0,
                    "evaluation.baselines": None,
                },
            ),
            _NO_PROMISE,
        ),
    ),
    Rule(
        "AB-985",
        "noise inside sites protects what is inside a site",
        ("privacy.unit", "privacy.mechanism"),
        _when_inside(_unit),
        lambda plan: (
            Alternative("protect examples", {"privacy.unit": "example"}),
            _NO_PROMISE,
        ),
    ),
    Rule(
        "AB-986",
        "noise inside sites: the clip norm is fixed",
        ("privacy.mechanism.clip",),
        _when_inside(_clip),
        lambda plan: (
            Alternative("fix it", {"privacy.mechanism.clip": {"kind": "fixed", "norm": 1.0}}),
            _NO_PROMISE,
        ),
    ),
    Rule(
        "AB-987",
        "noise inside sites: every site is asked once a round",
        ("rounds.asynchronous", "privacy"),
        _when_inside(_asked_once),
        lambda plan: (
            Alternative("ask together", {"rounds.asynchronous": None}),
            _NO_PROMISE,
        ),
    ),
)
