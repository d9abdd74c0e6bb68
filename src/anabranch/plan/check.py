"""Everything that can be checked of a plan without running it: ``anabranch plan check``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import TypeVar

import numpy as np

from anabranch.aggregation.fold import Accumulator, FoldPlan
from anabranch.data.federation import Examples, Federation
from anabranch.data.load import load_federation
from anabranch.errors import AnabranchError
from anabranch.learners.base import Learner
from anabranch.learners.build import build_learner
from anabranch.learners.metrics import MetricSet
from anabranch.plan.algebra import judge
from anabranch.plan.budget import check_budget
from anabranch.plan.explain import Facts
from anabranch.plan.fleet import check_against_fleet
from anabranch.plan.schema import Plan
from anabranch.updates.layout import Layout, Policy

__all__ = [
    "Finding",
    "PlanReport",
    "check",
    "check_against_data",
    "check_against_layout",
    "measured_metrics",
]

T = TypeVar("T")

_FEW = 2  # examples that are predicted to see whether model, loss and labels fit


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
        part: what was checked.
        text: the result in words.
        error: what is wrong; None when it fits.
    """

    part: str
    text: str
    error: AnabranchError | None = None


@dataclass(frozen=True, slots=True)
class PlanReport:
    """What all checks found.

    Attributes:
        findings: in the order of the checks; those that another one's failure prevents are absent.
        facts: sizes that became known, for `explain`.
    """

    findings: tuple[Finding, ...]
    facts: Facts

    @property
    def errors(self) -> tuple[AnabranchError, ...]:
        """Everything that is wrong."""
        return tuple(f.error for f in self.findings if f.error is not None)

    def text(self) -> str:
        """The report for people."""
        return "\n".join(
            f"{'wrong' if f.error else 'fits '}  {f.part}: {f.error or f.text}"
            for f in self.findings
        )


def check(plan: Plan, federation: Federation | None = None) -> PlanReport:
    """Check a plan as far as possible without training: options, data, fleet, model, metrics.

    Args:
        plan: what to check.
        federation: data given in Python instead of the plan's source.
    """
    findings = list(_options(plan))
    data = federation
    if data is None:
        finding, data = _try("data", lambda: load_federation(plan.data, plan.seed).federation)
        findings += [finding] if finding else []
    if data is None:
        return PlanReport(tuple(findings), Facts())
    loaded = data
    findings.append(Finding("data", f"{len(loaded)} clients, {len(loaded.train.y)} rows to learn"))
    findings += _checked(
        "fleet", "rounds can be filled", lambda: check_against_fleet(plan, len(loaded))
    )
    finding, learner = _try("model", lambda: _learner(plan, loaded))
    if learner is None:
        findings += [finding] if finding else []
        return PlanReport(tuple(findings), Facts(clients=len(loaded)))
    findings += _model(plan, loaded, learner)
    return PlanReport(tuple(findings), Facts(clients=len(loaded), dim=learner.layout.averaged))


def _options(plan: Plan) -> Iterator[Finding]:
    verdict = judge(plan)
    for refusal in verdict.refusals:
        ways = "; or ".join(f"{a.words} ({a.settings})" for a in refusal.alternatives)
        message = f"{refusal.title}: {refusal.reason}"
        yield Finding("options", refusal.title, AnabranchError(refusal.code, message, fix=ways))
    if verdict.accepted:
        yield Finding("options", "they go together")


def _model(plan: Plan, data: Federation, learner: Learner) -> Iterator[Finding]:
    layout = learner.layout
    kept = f", {layout.local} stay at each client" if layout.local else ""
    sizes = f"{layout.size} parameters, {layout.averaged} are shared{kept}"
    yield from _checked("model", sizes, lambda: check_against_layout(plan, layout))
    yield from _checked(
        "metrics", "they are measured", lambda: check_against_data(plan, data, learner)
    )


def _try(part: str, work: Callable[[], T]) -> tuple[Finding | None, T | None]:
    try:
        return None, work()
    except AnabranchError as error:
        return Finding(part, error.message, error), None


def _checked(part: str, good: str, work: Callable[[], None]) -> Iterator[Finding]:
    finding, _ = _try(part, work)
    yield finding or Finding(part, good)


def _learner(plan: Plan, data: Federation) -> Learner:
    numpy = plan.runtime.engine == "numpy"
    return build_learner(
        plan.model,
        "numpy" if numpy else "auto",
        input_shape=data.input_shape,
        classes=data.classes,
        vocabulary_size=len(data.vocabulary),
        precision=plan.local.precision,
        device=plan.runtime.device,
    )


def check_against_layout(plan: Plan, layout: Layout) -> None:
    """Refuse a model that learns nothing, patterns that no parameter has, and too large updates.

    Raises:
        AnabranchError: AB-116, AB-117; AB-465 when no update can keep to ``updates.max_bytes``.
    """
    if not any(p.trained and p.policy is not Policy.FREEZE for p in layout.parameters):
        raise AnabranchError(
            "AB-117",
            f"the model {plan.model.name!r} has no parameter that could be trained.",
            fix="unfreeze some (model.freeze), or give the module parameters.",
        )
    check_budget(plan, layout.averaged)
    known = [parameter.name for parameter in layout.parameters]
    for key, patterns in (("keep_local", plan.model.keep_local), ("freeze", plan.model.freeze)):
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in known):
                raise AnabranchError(
                    "AB-116",
                    f"model.{key} has the pattern {pattern!r}, which no parameter of "
                    f"{plan.model.name!r} matches.",
                    fix=f"{_close(pattern, known)}the parameters are: {', '.join(known)}.",
                )


def check_against_data(plan: Plan, data: Federation, learner: Learner) -> None:
    """Refuse an evaluation that these data do not allow.

    Raises:
        AnabranchError: AB-114 a metric that is not measured, AB-115 no examples to measure on;
            AB-3xx when the model does not fit the data.
    """
    wanted, at_clients = plan.evaluation.on, data.test is not None and len(data.test.y) > 0
    if wanted in ("holdout", "both") and data.holdout is None:
        raise _nowhere(wanted, "the coordinator has no hold-out examples", "holdout_fraction")
    if wanted in ("clients", "both") and not at_clients:
        raise _nowhere(wanted, "no client has test examples", "test_fraction")
    if wanted == "nowhere" and (plan.stop.target is not None or plan.stop.patience is not None):
        raise _nowhere(wanted, "a stop rule looks at a metric", "holdout_fraction")
    measured = measured_metrics(plan, data, learner)
    if plan.stop.metric not in measured:
        raise AnabranchError(
            "AB-114",
            f"stop.metric is {plan.stop.metric!r}, which is not measured on these data.",
            fix=f"{_close(plan.stop.metric, measured)}measured are: {', '.join(measured)}.",
        )


def measured_metrics(plan: Plan, data: Federation, learner: Learner) -> list[str]:
    """Names of the metrics that an evaluation on these data gives, found by doing it once."""
    few = Examples(data.train.x[:_FEW], data.train.y[:_FEW])
    metrics = MetricSet.of(data.classes, bins=plan.evaluation.bins)
    fold = Accumulator(FoldPlan(metrics.sections(), capacity=1))
    # Only the names matter here; wild data must not look like a failed evaluation.
    outputs = learner.predict(learner.initial(plan.seed), few.x)
    outputs = np.clip(np.nan_to_num(outputs), -100, 100)
    fold.add(metrics.measure(outputs, few.y), "the first client")
    return sorted(metrics.summary(fold.total()))


def _nowhere(on: str, why: str, key: str) -> AnabranchError:
    return AnabranchError(
        "AB-115",
        f"evaluation.on is {on!r}, but {why}.",
        fix=f"set data.{key}, or measure elsewhere (evaluation.on).",
    )


def _close(name: str, known: Sequence[str]) -> str:
    found = get_close_matches(name, known, n=1)
    return f"did you mean {found[0]!r}? " if found else ""
