"""The algebra: which options go together. A plan is judged before anything starts.

Parts of a plan declare what they need and promise (`Algorithm.requirement`, `Stage.contract`, the
optimizer, the weight rule, …). A rule is a value that reads these declarations and objects with a
reason. Every refusal comes with alternatives that the algebra itself accepts; nothing silently
computes something else than it says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from anabranch.errors import AnabranchError
from anabranch.plan.load import changed
from anabranch.plan.rules import RULES, Alternative, Note, Rule, notes
from anabranch.plan.schema import Plan

__all__ = ["Alternative", "Note", "Refusal", "Verdict", "judge", "require_accepted"]

_DEPTH = 4  # rules that one change may still leave to be satisfied by further ones


@dataclass(frozen=True)
class Refusal:
    """One reason why a plan is refused.

    Attributes:
        code: of the rule; its page says more.
        title: what the rule requires.
        options: the keys that do not go together.
        reason: why, in one or two sentences.
        alternatives: complete sets of changes, each of which makes the whole plan acceptable.
    """

    code: str
    title: str
    options: tuple[str, ...]
    reason: str
    alternatives: tuple[Alternative, ...]


@dataclass(frozen=True)
class Verdict:
    """What the algebra says about a plan.

    Attributes:
        refusals: one for each rule that objects; none when the plan is accepted.
        notes: what a reader should know, when it is accepted.
    """

    refusals: tuple[Refusal, ...]
    notes: tuple[Note, ...] = ()

    @property
    def accepted(self) -> bool:
        """Whether no rule objects."""
        return not self.refusals


def judge(plan: Plan, rules: Sequence[Rule] = RULES) -> Verdict:
    """Judge a plan by every rule.

    >>> from anabranch.plan import Plan
    >>> plan = Plan.model_validate({
    ...     "data": {"source": "heart"},
    ...     "model": {"name": "logistic"},
    ...     "algorithm": {"name": "scaffold"},
    ...     "aggregation": {"weighting": {"kind": "examples"}},
    ... })
    >>> [(refusal.code, refusal.alternatives[0].settings) for refusal in judge(plan).refusals]
    [('AB-402', '--set \\'aggregation.weighting={kind = "uniform"}\\'')]
    """
    refusals = tuple(
        Refusal(rule.code, rule.title, rule.options, reason, _accepted(plan, rule, rules))
        for rule, reason in _objections(plan, rules)
    )
    return Verdict(refusals, () if refusals else tuple(notes(plan)))


def _objections(plan: Plan, rules: Sequence[Rule]) -> list[tuple[Rule, str]]:
    asked = ((rule, rule.objection(plan)) for rule in rules)
    return [(rule, reason) for rule, reason in asked if reason is not None]


def _accepted(plan: Plan, rule: Rule, rules: Sequence[Rule]) -> tuple[Alternative, ...]:
    """The rule's alternatives, each completed until no rule objects any more."""
    complete = (
        _completed(plan, alternative, rules, _DEPTH) for alternative in rule.alternatives(plan)
    )
    found = {a.settings: a for a in complete if a is not None}
    return tuple(found.values())


def _completed(
    plan: Plan, alternative: Alternative, rules: Sequence[Rule], depth: int
) -> Alternative | None:
    """``alternative`` with what else must change; None when no way was found."""
    try:
        after = changed(plan, alternative.changes)
    except AnabranchError:  # the change does not make a plan; another alternative may
        return None
    left = _objections(after, rules)
    if not left:
        return alternative
    if depth == 0:
        return None
    for further in left[0][0].alternatives(after):
        both = Alternative(
            f"{alternative.words}, and {further.words}",
            {**alternative.changes, **further.changes},
        )
        found = _completed(plan, both, rules, depth - 1)
        if found is not None:
            return found
    return None


def require_accepted(plan: Plan) -> tuple[Note, ...]:
    """The notes on an accepted plan.

    Raises:
        AnabranchError: with the code of the first rule that objects, AB-401 and following.
    """
    verdict = judge(plan)
    if verdict.accepted:
        return verdict.notes
    first, *others = verdict.refusals
    more = f" Also refused: {', '.join(refusal.code for refusal in others)}." if others else ""
    ways = "; or ".join(f"{a.words} ({a.settings})" for a in first.alternatives)
    raise AnabranchError(
        first.code,
        f"{first.title}: {first.reason}{more}",
        fix=f"{ways}." if ways else "choose other options.",
        kept="Nothing was started.",
    )
