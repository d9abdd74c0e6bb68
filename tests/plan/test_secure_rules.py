"""Which plans may be added up behind masks; accepted ones compute what they do in the clear."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest

from anabranch.algorithms import ALGORITHMS
from anabranch.api.conduct import conduct, new_record
from anabranch.api.prepare import Prepared, prepare
from anabranch.api.run import Run
from anabranch.coordinator.events import Event
from anabranch.coordinator.store import Store
from anabranch.data.federation import Federation
from anabranch.errors import AnabranchError
from anabranch.plan import Plan, changed, judge
from anabranch.plan.schema import STAGES

BASE = Plan.model_validate(
    {
        "data": {"source": "arrays"},
        "model": {"name": "logistic"},
        "local": {"batch_size": 4},
        "rounds": {"count": 2},
        "aggregation": {"weighting": {"kind": "uniform"}},
        "evaluation": {"on": "holdout"},
        "runtime": {"kind": "inline", "engine": "numpy"},
        "secure_aggregation": {"bits": 64, "bound": 64.0, "dropout_share": 0.0},
    }
)
UNIFORM = {"kind": "uniform"}
WEIGHTINGS = {
    "uniform": (UNIFORM, None),
    "capped": ({"kind": "examples", "cap": 20}, None),
    "examples": ({"kind": "examples"}, "AB-973"),
    "steps": ({"kind": "steps"}, "AB-973"),
    "custom": ({"kind": "custom", "function": "math:hypot"}, "AB-973"),
}
CODECS = sorted(set(STAGES) - {"clip", "subsample", "lowrank_shared"})


def codes(plan: Plan) -> list[str]:
    return [refusal.code for refusal in judge(plan).refusals]


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_weights_without_a_largest_are_refused(weighting: str) -> None:
    rule, code = WEIGHTINGS[weighting]
    found = codes(changed(BASE, {"aggregation.weighting": rule}))
    assert found == ([] if code is None else [code])


@pytest.mark.parametrize("name", CODECS)
def test_stages_that_leave_bytes_are_refused(name: str) -> None:
    plan = changed(BASE, {"updates.stages": [{"kind": name}]})
    assert "AB-972" in codes(plan)


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_vectors_without_a_largest_coordinate_are_refused(name: str) -> None:
    vectors = [s.name for s in ALGORITHMS[name]().sections(1) if s.kind.value == "vector"]
    clip = [{"kind": "clip", "max_norm": 1.0}]
    for bounded, clipped in product((False, True), (False, True)):
        settings: dict[str, object] = {
            "algorithm": {"name": name},
            "secure_aggregation.bound": 1.0 if bounded else None,
            "updates.stages": clip if clipped else None,
        }
        free = not bounded and not (clipped and vectors == ["delta"])
        assert ("AB-973" in codes(changed(BASE, settings))) is free


@pytest.mark.parametrize(
    "rounds",
    [
        {"count": 2, "late_window": 1},
        {"asynchronous": {"buffer": 1, "concurrency": 4}},
        {"asynchronous": {"buffer": 3, "concurrency": 4, "rebase": True}},
    ],
)
def test_masks_that_would_outlive_their_sum_are_refused(rounds: dict[str, object]) -> None:
    assert codes(changed(BASE, {"rounds": rounds})) == ["AB-974"]


def test_buffers_of_updates_that_wait_are_summed_behind_masks() -> None:
    waiting = {"asynchronous": {"buffer": 3, "concurrency": 4}}
    assert codes(changed(BASE, {"rounds": waiting})) == []


def test_every_refusal_has_a_way_out_that_the_algebra_accepts() -> None:
    for settings in (
        {"updates.stages": [{"kind": "eden"}]},
        {"aggregation.weighting": {"kind": "examples"}},
        {"secure_aggregation.bound": None},
        {"rounds": {"count": 2, "late_window": 1}},
        {"rounds": {"asynchronous": {"buffer": 1, "concurrency": 4}}},
        {"rounds": {"asynchronous": {"buffer": 3, "concurrency": 4, "rebase": True}}},
    ):
        plan = changed(BASE, settings)
        refusals = [r for r in judge(plan).refusals if r.code.startswith("AB-97")]
        assert refusals
        for refusal in refusals:
            assert refusal.alternatives
            for alternative in refusal.alternatives:
                assert judge(changed(plan, alternative.changes)).accepted


def prepared(plan: Plan) -> Prepared:
    draw = np.random.default_rng(1)
    clients = {}
    for client in range(4):
        x = draw.normal(size=(9 + 3 * client, 4)).astype(np.float32)
        clients[f"c{client}"] = (x, (np.arange(len(x)) % 2).astype(np.int64))
    return prepare(plan, Federation.from_arrays(clients, test=clients, holdout=clients["c0"]))


def silent(event: Event) -> None:
    """Nobody listens."""


def run(plan: Plan, path: Path) -> Run:
    made = prepared(plan)
    with Store.open(path) as store:
        return conduct(made, store, store.create_run(new_record(made)), silent)


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_every_algorithm_behind_masks_is_the_one_in_the_clear(name: str, tmp_path: Path) -> None:
    plan = changed(BASE, {"algorithm": {"name": name}})
    if codes(plan):
        pytest.fail(f"{name} is refused: {codes(plan)}")
    one = run(plan, tmp_path / "masked").parameters()
    other = run(changed(plan, {"secure_aggregation": None}), tmp_path / "clear").parameters()
    assert all(np.array_equal(one[key], other[key]) for key in other)


def test_a_public_part_of_the_coordinates_and_a_clip_behind_masks(tmp_path: Path) -> None:
    clip = {"kind": "clip", "max_norm": 0.01}
    for number, stages in enumerate(([clip], [{"kind": "subsample", "fraction": 0.5}])):
        plan = changed(BASE, {"updates.stages": stages})
        assert codes(plan) == []
        one = run(plan, tmp_path / f"masked{number}").parameters()
        clear = changed(plan, {"secure_aggregation": None})
        other = run(clear, tmp_path / f"clear{number}").parameters()
        assert all(np.array_equal(one[key], other[key]) for key in other)


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"bits": 12, "bound": 1.0}, None),
        ({"minimum": 9}, "AB-953"),
        ({"dropout_share": 0.3}, "AB-953"),
        ({"drawn": 2}, "AB-953"),
    ],
)
def test_a_fleet_for_which_no_round_could_be_made_is_refused_before_the_first(
    settings: dict[str, object], code: str | None, tmp_path: Path
) -> None:
    table = {"bits": 64, "bound": 1.0, "dropout_share": 0.0, **settings}
    plan = changed(BASE, {"secure_aggregation": table})
    if code is None:
        assert run(plan, tmp_path).history[-1].outcome == "complete"
        return
    with pytest.raises(AnabranchError, match=code):
        run(plan, tmp_path)


def test_a_modulus_that_holds_no_step_of_so_many_clients_is_refused() -> None:
    from anabranch.api.secure import check_sums
    from anabranch.client.secure import terms_of

    made = prepared(changed(BASE, {"secure_aggregation": {"bits": 12, "bound": 1.0}}))
    terms = terms_of(made.plan, made.program)
    with pytest.raises(AnabranchError, match="AB-951"):
        check_sums(terms, 3000, 3)
