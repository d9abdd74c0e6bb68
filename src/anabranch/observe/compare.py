"""Runs side by side: repeats of one plan become one row, and plans are compared key by key."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from anabranch.errors import AnabranchError
from anabranch.observe.intervals import Estimate, bootstrap_mean
from anabranch.observe.view import (
    EvaluationView,
    RunView,
    headline_metric,
    higher_is_better,
    overall,
)

__all__ = [
    "Difference",
    "Measure",
    "Variant",
    "are_repeats",
    "common_metric",
    "compare",
    "plan_differences",
]

Measure: TypeAlias = Callable[[EvaluationView, str], float | None]
"""One number for an evaluation and a metric's name."""

_PRIVATE_TO_A_RUN = ("seed", "runtime.", "name", "data.split_repeat")
"""Keys in which repeats of one plan may differ."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A key in which two plans differ; None where a plan does not have it."""

    key: str
    left: object
    right: object


@dataclass(frozen=True, slots=True)
class Variant:
    """Runs of one plan that differ in seed and runtime only.

    Attributes:
        label: what tells this variant from the first one.
        runs: their identifiers.
        seeds: their seeds, in the same order.
        metric: mean over the runs with standard error and bootstrap interval.
        advantage: over the first variant on the seeds that both have, paired; positive is better.
            None for the first variant and without common seeds.
        rounds: rounds done, of the longest run.
        seconds: mean wall time of the runs.
    """

    label: str
    runs: tuple[str, ...]
    seeds: tuple[int, ...]
    metric: Estimate
    advantage: Estimate | None
    rounds: int
    seconds: float


def plan_differences(left: RunView, right: RunView) -> tuple[Difference, ...]:
    """Every key in which the resolved plans of two runs differ, in alphabetical order."""
    keys = sorted({*left.plan, *right.plan})
    pairs = ((key, left.plan.get(key), right.plan.get(key)) for key in keys)
    return tuple(Difference(key, a, b) for key, a, b in pairs if a != b)


def common_metric(views: Sequence[RunView], wanted: str | None = None) -> str:
    """The metric to compare by: ``wanted``, else the usual one of those that every run has.

    Raises:
        AnabranchError: AB-808 no metric is common to all runs, or ``wanted`` is not.
    """
    measured = [set(view.result.metrics) for view in views]
    shared = set.intersection(*measured) if measured else set()
    found = headline_metric(sorted(shared), wanted)
    if found is None or (wanted is not None and found != wanted):
        known = ", ".join(sorted(shared)) or "none"
        raise AnabranchError(
            "AB-808",
            f"not every run has measured {wanted!r}."
            if wanted
            else "the runs have no metric in common.",
            fix=f"compare by a metric that all of them have (in common: {known}).",
            kept="The runs are unchanged.",
        )
    return found


def compare(
    views: Sequence[RunView], metric: str, measure: Measure = overall
) -> tuple[Variant, ...]:
    """One row for each plan, in the order of the first run of each.

    Args:
        views: the runs; those whose plans differ in seed and runtime only are repeats.
        metric: as `common_metric` chose it.
        measure: how a run's evaluation becomes one number: `overall` or `mean_over_clients`.
    """
    groups: list[list[RunView]] = []
    for view in views:
        same = next((g for g in groups if are_repeats(g[0], view)), None)
        groups.append([view]) if same is None else same.append(view)
    return tuple(_variant(group, groups[0], measure, metric) for group in groups)


def are_repeats(left: RunView, right: RunView) -> bool:
    """Whether two runs have the same plan but for seed, split and runtime."""
    return _identity(left.plan) == _identity(right.plan)


def _identity(plan: Mapping[str, object]) -> Mapping[str, object]:
    return {k: v for k, v in plan.items() if not k.startswith(_PRIVATE_TO_A_RUN)}


def _variant(
    group: Sequence[RunView], first: Sequence[RunView], measure: Measure, metric: str
) -> Variant:
    values = [v for v in (measure(view.result, metric) for view in group) if v is not None]
    return Variant(
        label=_label(group[0], first[0]),
        runs=tuple(view.run_id for view in group),
        seeds=tuple(map(_seed, group)),
        metric=bootstrap_mean(values),
        advantage=None if group is first else _advantage(group, first, measure, metric),
        rounds=max((view.rounds[-1].number for view in group if view.rounds), default=0),
        seconds=sum(view.seconds for view in group) / len(group),
    )


def _label(view: RunView, first: RunView) -> str:
    if view is first:
        return view.name
    differences = [d for d in plan_differences(first, view) if _identity({d.key: 0})]
    words = [f"{d.key}={d.right}" for d in differences[:3]]
    more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
    return f"{', '.join(words)}{more}" or view.name


def _advantage(
    group: Sequence[RunView], first: Sequence[RunView], measure: Measure, metric: str
) -> Estimate | None:
    sign = 1.0 if higher_is_better(metric) else -1.0
    base = {_seed(view): measure(view.result, metric) for view in first}
    differences = []
    for view in group:
        mine, theirs = measure(view.result, metric), base.get(_seed(view))
        if mine is not None and theirs is not None:
            differences.append(sign * (mine - theirs))
    return bootstrap_mean(differences) if differences else None


def _seed(view: RunView) -> int:
    seed = view.plan.get("seed", 0)
    return seed if isinstance(seed, int) else 0
