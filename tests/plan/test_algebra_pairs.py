"""Every pair of options: accepted ones compute what the papers say, refused ones name their rule.

The table `REFUSED` is written by hand. Each pair of values of two axes, the others at their
defaults, is either in it, with the code of the rule, or runs two rounds through the package's own
client code and must agree with the slow float64 federation of `oracle`.
"""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from small_federation import run_oracle, run_package

from anabranch.errors import AnabranchError
from anabranch.plan import Plan, changed, judge, require_accepted

Setting = dict[str, object]

AXES: dict[str, dict[str, Setting]] = {
    "algorithm": {
        "fedavg": {"algorithm": {"name": "fedavg", "server_learning_rate": 0.75}},
        "fedprox": {"algorithm": {"name": "fedprox", "mu": 0.5}},
        "scaffold": {"algorithm": {"name": "scaffold", "server_learning_rate": 0.9}},
        "fednova": {"algorithm": {"name": "fednova", "mu": 0.25}},
        "fedavgm": {"algorithm": {"name": "fedavgm"}},
        "fedadagrad": {"algorithm": {"name": "fedadagrad"}},
        "fedadam": {"algorithm": {"name": "fedadam"}},
        "fedyogi": {"algorithm": {"name": "fedyogi"}},
        "feddyn": {"algorithm": {"name": "feddyn", "alpha": 0.5}},
        "fedexp": {"algorithm": {"name": "fedexp"}},
    },
    "weighting": {
        "default": {},
        "examples": {"aggregation.weighting": {"kind": "examples"}},
        "capped": {"aggregation.weighting": {"kind": "examples", "cap": 9}},
        "uniform": {"aggregation.weighting": {"kind": "uniform"}},
        "steps": {"aggregation.weighting": {"kind": "steps"}},
        "custom": {"aggregation.weighting": {"kind": "custom", "function": "math:hypot"}},
    },
    "optimizer": {
        "sgd": {},
        "momentum": {"local.optimizer": {"kind": "sgd", "momentum": 0.5}},
        "nesterov": {"local.optimizer": {"kind": "sgd", "momentum": 0.5, "nesterov": True}},
        "decay": {"local.optimizer": {"kind": "sgd", "weight_decay": 0.1}},
        "adam": {"local.optimizer": {"kind": "adam", "weight_decay": 0.1}},
        "adamw": {"local.optimizer": {"kind": "adam", "weight_decay": 0.1, "decoupled": True}},
    },
    "clip_norm": {"none": {}, "clip": {"local.clip_norm": 0.5}},
    "stages": {"none": {}, "clip": {"updates.stages": [{"kind": "clip", "max_norm": 0.25}]}},
    "normalisation": {
        "refuse": {},
        "local": {"model.normalisation": "local"},
        "average": {"model.normalisation": "average"},
    },
    "sharing": {"all": {}, "head": {"model.keep_local": ["b"]}},
    "memory": {"yes": {}, "no": {"clients.memory": False}},
    "server_schedule": {
        "constant": {},
        "falling": {"rounds.server_schedule": {"kind": "exponential", "gamma": 0.5}},
    },
    "local_schedule": {
        "constant": {},
        "falling": {"local.schedule": {"kind": "exponential", "gamma": 0.5}},
    },
    "work": {"epochs": {}, "steps": {"local.epochs": None, "local.steps": 3}},
    "cohort": {"everyone": {}, "two": {"rounds.cohort": 2}},
}

REFUSED: dict[tuple[str, str], str] = {
    ("algorithm=scaffold", "memory=no"): "AB-401",
    ("algorithm=feddyn", "memory=no"): "AB-401",
    ("normalisation=local", "memory=no"): "AB-401",
    ("sharing=head", "memory=no"): "AB-401",
    ("algorithm=scaffold", "weighting=examples"): "AB-402",
    ("algorithm=scaffold", "weighting=capped"): "AB-402",
    ("algorithm=scaffold", "weighting=steps"): "AB-402",
    ("algorithm=scaffold", "weighting=custom"): "AB-402",
    ("algorithm=feddyn", "weighting=examples"): "AB-402",
    ("algorithm=feddyn", "weighting=capped"): "AB-402",
    ("algorithm=feddyn", "weighting=steps"): "AB-402",
    ("algorithm=feddyn", "weighting=custom"): "AB-402",
    ("algorithm=scaffold", "optimizer=momentum"): "AB-403",
    ("algorithm=scaffold", "optimizer=nesterov"): "AB-403",
    ("algorithm=scaffold", "optimizer=adam"): "AB-403",
    ("algorithm=scaffold", "optimizer=adamw"): "AB-403",
    ("algorithm=fednova", "optimizer=adam"): "AB-404",
    ("algorithm=fednova", "optimizer=adamw"): "AB-404",
    ("algorithm=fednova", "normalisation=average"): "AB-405",
    ("algorithm=fedavgm", "normalisation=average"): "AB-405",
    ("algorithm=fedadagrad", "normalisation=average"): "AB-405",
    ("algorithm=fedadam", "normalisation=average"): "AB-405",
    ("algorithm=fedyogi", "normalisation=average"): "AB-405",
    ("algorithm=feddyn", "normalisation=average"): "AB-405",
    ("algorithm=fedexp", "normalisation=average"): "AB-405",
    ("algorithm=fedexp", "stages=clip"): "AB-406",
    ("algorithm=feddyn", "stages=clip"): "AB-407",
}

BASE = Plan.model_validate(
    {
        "name": "pairs",
        "data": {"source": "arrays"},
        "model": {"name": "linear"},
        "local": {"epochs": 2, "batch_size": 4, "learning_rate": 0.05, "shuffle": False},
        "rounds": {"count": 2},
    }
)


def all_pairs() -> list[tuple[str, str, Setting]]:
    """Every pair of values of two axes, as (name, name, changes)."""
    found = []
    for (axis, values), (other, others) in combinations(AXES.items(), 2):
        for (name, setting), (second, more) in product(values.items(), others.items()):
            found.append((f"{axis}={name}", f"{other}={second}", {**setting, **more}))
    return found


PAIRS = all_pairs()
WANTED_REFUSALS = [pair for pair in PAIRS if pair[:2] in REFUSED]
ACCEPTED = [pair for pair in PAIRS if pair[:2] not in REFUSED]


def label(pair: tuple[str, str, Setting]) -> str:
    return f"{pair[0]},{pair[1]}"


def test_every_pair_is_enumerated() -> None:
    assert {pair[:2] for pair in PAIRS} >= set(REFUSED)
    assert len(PAIRS) == sum(len(a) * len(b) for a, b in combinations(AXES.values(), 2))


@pytest.mark.parametrize("pair", WANTED_REFUSALS, ids=label)
def test_refused_pair_names_its_rule_and_accepted_ways_out(
    pair: tuple[str, str, Setting],
) -> None:
    plan = changed(BASE, pair[2])
    (refusal,) = judge(plan).refusals
    assert refusal.code == REFUSED[pair[:2]]
    assert set(pair[2]) <= set(refusal.options)
    assert refusal.alternatives
    for alternative in refusal.alternatives:
        assert judge(changed(plan, alternative.changes)).accepted, alternative
    with pytest.raises(AnabranchError, match=refusal.code) as caught:
        require_accepted(plan)
    assert refusal.alternatives[0].settings in caught.value.fix


@pytest.mark.parametrize("pair", ACCEPTED, ids=label)
def test_accepted_pair_agrees_with_the_oracle(pair: tuple[str, str, Setting]) -> None:
    plan = changed(BASE, pair[2])
    assert judge(plan).accepted
    cohorts = [[0, 2], [3, 2]] if plan.rounds.cohort == 2 else [[0, 1, 2, 3]] * 2
    found, wanted = run_package(plan, cohorts), run_oracle(plan, cohorts)
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-5)


SILENT = {("weighting", "examples"), ("memory", "no"), ("normalisation", "local")}
"""The default said aloud; a ban on what nobody here does; a statistic that stays at home."""


@pytest.mark.parametrize("axis", AXES)
def test_every_option_is_felt(axis: str) -> None:
    """No axis is empty words: each value computes another model than the default does."""
    first, *others = AXES[axis]
    standard = run_oracle(changed(BASE, AXES[axis][first]), [[0, 1, 2, 3]] * 2)
    for name in others:
        plan = changed(BASE, AXES[axis][name])
        cohorts = [[0, 2], [3, 2]] if plan.rounds.cohort == 2 else [[0, 1, 2, 3]] * 2
        model = run_oracle(plan, cohorts)
        felt = model.shape != standard.shape or np.abs(model - standard).max() > 1e-3
        assert felt != ((axis, name) in SILENT), name
