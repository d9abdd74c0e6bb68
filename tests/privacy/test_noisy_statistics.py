"""Statistics and metrics within the promise: bounds by hand, noise by its variance, the ledger."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.api.prepare import prepare
from anabranch.api.simulate import resume, run_plan
from anabranch.client.bounded import bounded_statistics, exact_statistics
from anabranch.client.execute import execute
from anabranch.client.task import Task, TaskKind
from anabranch.coordinator.store import Store
from anabranch.coordinator.store.ledger import PopulationLedger
from anabranch.data.bounded import (
    NoisyStatistics,
    bound,
    bounded_rows,
    fit_noisy,
    length,
    neutral,
    unit_means,
)
from anabranch.data.preprocess import PreprocessRules
from anabranch.data.schema import Column, DataSchema, Target
from anabranch.data.table import Table
from anabranch.errors import AnabranchError
from anabranch.plan import Plan, plan_from
from anabranch.plan.mechanism import statistics_of
from anabranch.plan.promise import promise_of, share_event
from anabranch.privacy.accounting import exact_noise
from anabranch.privacy.ledger import epsilon_of
from anabranch.privacy.mechanisms import BoundedSums, SiteScores
from anabranch.privacy.noise import SecretStream

SCHEMA = DataSchema(
    columns=(
        Column(name="age", range=(0, 100)),
        Column(name="smokes", type="flag"),
        Column(name="sex", type="category", codes={"f": 0, "m": 1}),
    ),
    target=Target(column="ill", rule="> 0"),
    subject="person",
)
RULES = PreprocessRules(min_count=2)
NAN = math.nan


def table(ages: list[float], smokes: list[float], sex: list[str], who: list[int]) -> Table:
    columns = {
        "age": np.array(ages, np.float64),
        "smokes": np.array(smokes, np.float64),
        "sex": np.array(sex, np.str_),
    }
    rows = np.arange(len(ages))
    return Table(SCHEMA, columns, np.zeros(len(ages), np.int64), np.array(who), rows)


def plan(schema: bool = True, **privacy: object) -> Plan:
    tables: dict[str, object] = {
        "name": "noisy",
        "seed": 3,
        "data": {"source": "heart", "holdout_fraction": 0.25},
        "model": {"name": "logistic"},
        "aggregation": {"weighting": {"kind": "uniform"}},
        "local": {"steps": 2, "learning_rate": 0.5},
        "rounds": {"count": 3},
        "evaluation": {"on": "holdout"},
        "runtime": {"kind": "inline", "commit_seconds": 0},
        "privacy": {
            "epsilon": 2.0, "delta": 1e-4, "population": "people", "unit": "example",
            "statistics_share": 0.1,
            "mechanism": {"kind": "dp-sgd", "batch": 512, "clip": {"kind": "fixed", "norm": 1.0}},
            **privacy,
        },
    }  # fmt: skip
    if privacy.get("evaluation_share"):
        tables["evaluation"] = {"on": "clients", "every": 2}
    return plan_from(tables)


# Bounds by hand -----------------------------------------------------------------------------------


def test_a_row_is_what_the_contract_bounds() -> None:
    rows = bounded_rows(table([75, NAN, 400], [1, 0, NAN], ["f", "", "m"], [0, 1, 2]))
    # units; age: unknown, s, 2 s^2 - 1; smokes: unknown, sign; sex: f, m, unknown
    assert rows.tolist() == [
        [1, 0, 0.5, -0.5, 0, 1, 1, 0, 0],
        [1, 1, 0, 0, 0, -1, 0, 0, 1],
        [1, 0, 1, 1, 1, 0, 0, 1, 0],
    ]
    assert length(SCHEMA) == 9
    assert bound(SCHEMA) ** 2 == pytest.approx(1 + 2 + 1 + 1)


@given(
    st.lists(
        st.tuples(
            st.one_of(st.floats(-1e12, 1e12), st.just(NAN)),
            st.sampled_from([0.0, 1.0, NAN]),
            st.sampled_from(["f", "m", "", "x"]),
            st.integers(0, 3),
        ),
        min_size=1,
        max_size=12,
    ),
    st.integers(1, 3),
)
def test_one_unit_never_moves_the_sum_by_more_than_the_bound(
    cells: list[tuple[float, float, str, int]], most: int
) -> None:
    ages, smokes, sex, who = (list(column) for column in zip(*cells, strict=True))
    sums = BoundedSums("statistics", length(SCHEMA), bound(SCHEMA))
    everybody = table(ages, smokes, sex, who)

    def total(kept: Table) -> np.ndarray:
        return sums.exact(unit_means(bounded_rows(kept), kept.subjects, most))

    without = everybody.take(everybody.subjects != who[0])
    moved = total(everybody) - (total(without) if len(without) else 0)
    steps = sums.exact(np.array([[sums.bound, *[0.0] * (sums.dim - 1)]]))
    assert float(moved @ moved) <= float(steps[0] * 1.001) ** 2
    assert float(moved @ moved) <= float(2**31) ** 2


def test_a_subject_counts_with_the_mean_of_its_first_rows() -> None:
    rows = np.array([[1.0, 4.0], [1.0, 8.0], [1.0, 100.0], [1.0, 2.0]])
    found = unit_means(rows, np.array([7, 7, 7, 3]), most=2)
    assert found.tolist() == [[1.0, 2.0], [1.0, 6.0]]


def test_without_noise_the_moments_are_found_and_with_much_the_contract_stays() -> None:
    draw = np.random.default_rng(0)
    ages = np.clip(draw.normal(60, 10, 4000), 0, 100)
    cells = table(ages.tolist(), [1.0] * 4000, ["m"] * 3000 + ["f"] * 1000, list(range(4000)))
    sums = bounded_rows(cells).sum(0)
    step = fit_noisy(SCHEMA, NoisyStatistics(sums, 0.001), RULES).steps
    assert step[0].mean == pytest.approx(ages.mean(), abs=0.01)
    assert step[0].scale == pytest.approx(ages.std(), abs=0.01)
    assert (step[1].fill, step[2].fill) == (1, "m")
    contract = neutral(SCHEMA, RULES).steps
    assert (contract[0].mean, contract[0].scale) == (50.0, 25.0)
    loud = fit_noisy(SCHEMA, NoisyStatistics(sums, 1300.0), RULES).steps
    assert abs(loud[0].mean - 50) < abs(step[0].mean - 50)
    assert abs(loud[0].scale - 25) < abs(step[0].scale - 25)
    # Less than the noise could make: nothing is said, and nothing counts as missing.
    few = fit_noisy(SCHEMA, NoisyStatistics(sums, 2000.0), RULES)
    assert few.withheld == ("age", "smokes", "sex")
    assert not any(step.indicator for step in few.steps)


@pytest.mark.parametrize(
    "column", [Column(name="chol"), Column(name="town", type="category")], ids=["range", "codes"]
)
def test_columns_that_only_data_could_bound_are_refused(column: Column) -> None:
    schema = SCHEMA.replace(columns=(*SCHEMA.columns, column))
    with pytest.raises(AnabranchError, match=f"AB-989.*{column.name}"):
        neutral(schema, RULES)


# What leaves a site -------------------------------------------------------------------------------


def test_a_site_tells_integers_with_the_planned_noise() -> None:
    accepted = plan()
    cells = table([50.0] * 5, [1.0] * 5, ["m"] * 5, list(range(5)))
    sums, event = statistics_of(accepted, SCHEMA), share_event(accepted, "statistics")
    assert sums is not None
    assert event is not None
    # A tenth of the whole: the noise of one release of everything, times the root of ten.
    assert event.noise_multiplier == pytest.approx(exact_noise(2.0, 1e-4) * math.sqrt(10), rel=1e-6)
    exact = exact_statistics(accepted, sums, cells)
    noises = []
    for number in range(60):
        stream = SecretStream.keyed(bytes(32), str(number))
        update, sections = bounded_statistics(accepted, cells, stream)
        told = update.vectors["statistics"]
        assert np.array_equal(told, np.rint(told))
        noises.append(sums.values(told - exact))
    assert [section.name for section in sections] == ["statistics"]
    spread = float(np.std(np.concatenate(noises)))
    assert spread == pytest.approx(sums.deviation(event.noise_multiplier), rel=0.12)


def test_the_line_of_every_site_holds_model_statistics_and_metrics(tmp_path: Path) -> None:
    run = run_plan(plan(evaluation_share=0.2), store=tmp_path)
    assert run.status == "complete"
    with PopulationLedger.existing(tmp_path / "ledgers", "people") as ledger:
        balance = ledger.balance()
    (state,) = balance.runs.values()
    released = sorted((r.reserved.purpose, r.reserved.round) for r in state.releases.values())
    evaluations = [("evaluation", number) for number in (2, 3) for _ in range(4)]
    models = [("model", number) for number in (1, 2, 3) for _ in range(4)]
    assert released == [*evaluations, *models, *[("statistics", 0)] * 4]
    assert all(r.settled is not None for r in state.releases.values())
    for site in balance.sites:
        assert 1.95 < epsilon_of(state.events(site), 1e-4) <= 2.0 * (1 + 1e-6)
    with Store.open(tmp_path) as store:
        told = {(r.round, r.entry.what): r.entry.mechanism for r in store.releases(run.id)}
        last = store.rounds(run.id)[-1].metrics
    assert told[(2, "metrics of the sites")].startswith("noise ")
    statistics = [words for (round_, _), words in told.items() if round_ == 0]
    assert len(statistics) == 1
    assert "added by each site" in statistics[0]
    assert {"accuracy", "loss", "accuracy_noise"} <= set(last)
    assert 0 <= last["accuracy"] <= 1


def test_statistics_of_clients_get_the_coordinators_noise(tmp_path: Path) -> None:
    mechanism = {"kind": "gaussian", "clip": {"kind": "fixed", "norm": 1.0}, "noise_multiplier": 1}
    promise = {
        "epsilon": 200.0, "delta": 1e-2, "unit": "site", "mechanism": mechanism,
        "population_size": 4,
    }  # fmt: skip
    run_plan(plan(**promise), store=tmp_path)
    with PopulationLedger.existing(tmp_path / "ledgers", "people") as ledger:
        (state,) = ledger.balance().runs.values()
    (release,) = [r for r in state.releases.values() if r.reserved.purpose == "statistics"]
    assert release.reserved.contributors == 4
    assert release.settled is not None
    assert len(release.settled.output) == 64


def test_a_stopped_run_goes_on_with_the_same_statistics(tmp_path: Path) -> None:
    asked = iter([False, False, True])
    stopped = run_plan(plan(), store=tmp_path, stopped=lambda: next(asked, True))
    assert stopped.status == "stopped"
    with Store.open(tmp_path) as store:
        before = [r.entry.details["sha256"] for r in store.releases(stopped.id) if not r.round]
    done = resume(stopped.id, store=tmp_path)
    assert done.status == "complete"
    with PopulationLedger.existing(tmp_path / "ledgers", "people") as ledger:
        (state,) = ledger.balance().runs.values()
    assert sum(r.reserved.purpose == "statistics" for r in state.releases.values()) == 4
    other = run_plan(plan(population="others"), store=tmp_path)
    with Store.open(tmp_path) as store:
        after = [r.entry.details["sha256"] for r in store.releases(other.id) if not r.round]
    assert before != after, "another run has other noise on the same rows"


# What is refused ----------------------------------------------------------------------------------


def test_a_budget_that_nothing_would_spend_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AnabranchError, match="AB-989"):
        prepare(plan_from({**plan().model_dump(mode="json"), "data": {"source": "digits",
                "partition": {"kind": "iid", "clients": 4}, "holdout_fraction": 0.2}}))  # fmt: skip
    with pytest.raises(AnabranchError) as refused:
        prepare(plan(unit="subject"))
    assert "AB-989" in str(refused.value)
    assert "disjoint" in str(refused.value)


def test_a_client_tells_no_metrics_that_nothing_pays_for() -> None:
    prepared = prepare(plan())
    program = prepared.program
    broadcast = program.algorithm.broadcast(program.algorithm.init(program.base.copy()))
    task = Task(TaskKind.EVALUATE, 1, 0, "Cleveland", 1)
    with pytest.raises(AnabranchError, match="AB-984"):
        execute(program, task, broadcast, None, prepared.federation.train.of(0))


def test_scores_of_a_site_by_hand() -> None:
    """Two right of three, losses 1, 2 and far too much, of at most 4."""
    scores = SiteScores(4.0)
    rows = scores.rows(np.array([True, True, False]), np.array([1.0, 2.0, 99.0]))
    assert rows.tolist() == [[1, 1, -0.5], [1, 1, 0], [1, -1, 1]]
    values = scores.sums.values(scores.sums.exact(rows))
    found = scores.metrics(values, deviation=0.6)
    assert found["accuracy"] == pytest.approx(2 / 3, abs=2e-3)
    assert found["loss"] == pytest.approx((1 + 2 + 4) / 3, abs=1e-2)
    assert found["accuracy_noise"] == pytest.approx(0.1, rel=1e-3)
    regression = SiteScores(4.0, decides=False)
    assert regression.rows(None, np.array([math.nan])).tolist() == [[1, 1]]
    assert set(regression.metrics(np.array([1.0, 0.0]), 0.1)) == {"loss"}


def test_shares_leave_the_model_its_part() -> None:
    """Line by line: model, statistics and metrics together are the promise, at every site."""
    sites = {"a": 300, "b": 200}
    whole = promise_of(plan(statistics_share=0.0), 2, sites)
    parts = promise_of(plan(evaluation_share=0.2), 2, sites)
    assert [(line.purpose, line.site) for line in parts.lines] == [
        ("model", "a"), ("model", "b"), ("evaluation", "a"), ("evaluation", "b"),
        ("statistics", "a"), ("statistics", "b"),
    ]  # fmt: skip
    for before, after in zip(whole.lines, parts.lines[:2], strict=True):
        assert after.charges[0].noise_multiplier > before.charges[0].noise_multiplier
    assert parts.statistics_charge() == replace(parts.lines[4].charges[0], rounds=1)
    with pytest.raises(AnabranchError, match="nothing for the model"):
        plan(evaluation_share=0.5, statistics_share=0.5)
