"""Noise inside the sites: what leaves, what the ledger says, and going on after a stop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from anabranch.api.amending import propose
from anabranch.api.prepare import prepare
from anabranch.api.private import protection_of
from anabranch.api.simulate import resume, run_plan
from anabranch.client.execute import execute
from anabranch.client.inside import units_of
from anabranch.client.task import Fate, Task, TaskKind
from anabranch.coordinator.declined import declined_of
from anabranch.coordinator.runtime import Outcome
from anabranch.coordinator.site_releases import SiteReleases
from anabranch.coordinator.store import Store
from anabranch.coordinator.store.ledger import PopulationLedger
from anabranch.data.federation import Examples, Ragged
from anabranch.errors import AnabranchError
from anabranch.plan import Plan, plan_from
from anabranch.plan.promise import promise_of
from anabranch.privacy.accounting import claim
from anabranch.privacy.events import Unit


def plan(**changes: object) -> Plan:
    values: dict[str, object] = {
        "name": "sites",
        "seed": 3,
        "data": {"source": "heart", "holdout_fraction": 0.25},
        "model": {"name": "logistic"},
        "aggregation": {"weighting": {"kind": "uniform"}},
        "local": {"steps": 2, "learning_rate": 0.5},
        "rounds": {"count": 3},
        "evaluation": {"on": "holdout"},
        "runtime": {"kind": "inline", "commit_seconds": 0},
        "privacy": {
            "epsilon": 2.0,
            "delta": 1e-4,
            "population": "people",
            "unit": "example",
            "open_statistics": "the data set is public",
            "mechanism": {
                "kind": "dp-sgd", "batch": 32, "clip": {"kind": "fixed", "norm": 1.0},
            },
        },
    }  # fmt: skip
    return plan_from({**values, **changes})


def test_every_site_has_a_line_that_keeps_the_promise(tmp_path: Path) -> None:
    run = run_plan(plan(), store=tmp_path)
    assert run.status == "complete"
    with PopulationLedger.existing(tmp_path / "ledgers", "people") as ledger:
        balance = ledger.balance()
    (state,) = balance.runs.values()
    names = {"Cleveland", "Hungary", "Switzerland", "VA Long Beach"}
    assert set(balance.sites) == names
    for site in names:
        (event,) = state.line("model", site).charges  # type: ignore[union-attr]  # there is one
        assert event.rounds == 3 * 2
        assert claim([event], 1e-4).epsilon <= 2.0 + 1e-9
        # Twice the noise that is needed would be a waste: the promise is nearly used.
        assert claim([event], 1e-4).epsilon > 1.98


def test_nothing_leaves_a_site_but_what_the_noise_covers() -> None:
    prepared = prepare(plan())
    program = prepared.program
    assert {section.name for section in program.sections} == {"delta", "weight"}
    task = Task(TaskKind.TRAIN, 1, 0, "Cleveland", 1)
    server = program.algorithm.init(program.base.copy())
    broadcast = program.algorithm.broadcast(server)
    data = prepared.federation.train.of(0)
    reply = execute(program, task, broadcast, None, data)
    assert set(reply.update.vectors) == {"delta"}
    assert reply.update.scalars == {"weight": 1.0}


def test_a_stopped_run_goes_on_with_the_same_noise(tmp_path: Path) -> None:
    whole = run_plan(plan(), store=tmp_path / "whole")
    asked = iter([False, False, True])
    stopped = run_plan(plan(), store=tmp_path / "cut", stopped=lambda: next(asked, True))
    assert stopped.status == "stopped"
    done = resume(stopped.id, store=tmp_path / "cut")
    assert done.status == "complete"
    assert done.rounds == whole.rounds == 3
    # Another run has another secret, so its noise differs although plan and seed are the same.
    assert not np.array_equal(done.vector, whole.vector)
    with PopulationLedger.existing(tmp_path / "cut" / "ledgers", "people") as ledger:
        (state,) = ledger.balance().runs.values()
    assert len(state.releases) == 3 * 4


def test_a_second_run_on_the_same_people_is_refused(tmp_path: Path) -> None:
    run_plan(plan(), store=tmp_path)
    with pytest.raises(AnabranchError, match="AB-916"):
        run_plan(plan(), store=tmp_path)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"aggregation": {"weighting": {"kind": "examples"}}}, "AB-983"),
        ({"evaluation": {"on": "clients"}}, "AB-984"),
        ({"evaluation": {"on": "holdout", "baselines": ["pooled"]}}, "AB-984"),
        ({"selection": {"kind": "oort"}}, "AB-470"),
        ({"rounds": {"count": 3, "asynchronous": {"buffer": 2, "concurrency": 3}}}, "AB-987"),
    ],
)
def test_what_would_leave_without_noise_is_refused(changes: dict[str, object], code: str) -> None:
    with pytest.raises(AnabranchError) as refused:
        prepare(plan(**changes))
    assert code in str(refused.value)


def test_statistics_outside_the_promise_need_a_reason(tmp_path: Path) -> None:
    promise = plan().model_dump(mode="json")["privacy"]
    with pytest.raises(AnabranchError, match=r"AB-988.*column statistics"):
        run_plan(plan(privacy={**promise, "open_statistics": ""}), store=tmp_path)


def test_a_run_ends_when_nobody_may_take_part_any_more(tmp_path: Path) -> None:
    """Noise on the sum, every site once: the second round has nobody to ask, and nothing waits."""
    once = {
        "epsilon": 50.0, "delta": 1e-2, "population": "sites", "unit": "site",
        "open_statistics": "the data set is public",
        "mechanism": {"kind": "ftrl", "clip": {"kind": "fixed", "norm": 1.0}},
    }  # fmt: skip
    run = run_plan(plan(privacy=once), store=tmp_path)
    assert run.status == "complete"
    assert run.rounds == 2
    assert "as often as it may" in run.reason


def test_units_are_persons_only_where_the_data_name_them() -> None:
    rows = Examples(np.zeros((4, 1)), np.zeros(4))
    assert units_of(rows, Unit.EXAMPLE, "va") == 4
    persons = Examples(rows.x, rows.y, np.array([1, 1, 2, 9]))
    assert units_of(persons, Unit.SUBJECT, "va") == 3
    with pytest.raises(AnabranchError, match="AB-981"):
        units_of(rows, Unit.SUBJECT, "va")


def test_sites_that_may_share_persons_need_more_noise() -> None:
    sites = {"a": 300, "b": 200}

    def noise(disjoint: bool) -> float:
        mechanism = {
            "kind": "dp-sgd", "batch": 32, "clip": {"kind": "fixed", "norm": 1.0},
            "disjoint": disjoint, "max_examples": 3,
        }  # fmt: skip
        table = {
            "epsilon": 2.0, "delta": 1e-4, "population": "people", "unit": "subject",
            "mechanism": mechanism,
        }  # fmt: skip
        lines = promise_of(plan(privacy=table), 2, sites).lines
        return min(line.charges[0].noise_multiplier for line in lines)

    assert noise(disjoint=False) > 1.1 * noise(disjoint=True)


def test_a_coordinator_without_rows_charges_by_how_many_each_site_has(tmp_path: Path) -> None:
    """As in a served run: sizes are known, and one row of zeros stands for all."""
    prepared = prepare(plan())
    train = prepared.federation.train
    stand_in = Ragged(np.zeros((1, 16), np.float32), np.zeros(1, np.int64), train.offsets)
    federation = replace(prepared.federation, train=stand_in)
    with protection_of(replace(prepared, federation=federation), "served", tmp_path) as protection:
        assert isinstance(protection.releases, SiteReleases)
        rates = {n: c.sampling.rate for n, c in protection.releases.charges.items()}  # type: ignore[union-attr]  # coins
    wanted = zip(prepared.federation.names, train.counts, strict=True)
    assert rates == {name: pytest.approx(min(1.0, 32 / count)) for name, count in wanted}


def test_a_site_that_never_began_spends_nothing(tmp_path: Path) -> None:
    """By its own word nothing was computed; other refusals say nothing of an earlier answer."""
    prepared = prepare(plan())
    with protection_of(prepared, "served", tmp_path) as protection:
        releases = protection.releases
        assert isinstance(releases, SiteReleases)
        releases.asked(1, [0, 1, 2, 3])
        outcomes = [
            Outcome(0, Fate.DECLINED, "AB-929 more than its own cap of 3"),
            Outcome(1, Fate.DECLINED, "AB-743 tasks are done at 20:00-06:00 only"),
            Outcome(2, Fate.LOST, "AB-929"),
            Outcome(3, Fate.DECLINED, "AB-744 nobody here has approved it"),
        ]
        releases.declined(1, declined_of(outcomes))
        releases.declined(1, declined_of(outcomes))
        releases.committed()
        assert protection.ledger is not None
        (state,) = protection.ledger.ledger.balance().runs.values()
        spent = {r.reserved.site for r in state.releases.values() if r.charge is not None}
        assert spent == {"Hungary", "Switzerland"}
        releases.asked(2, [0])  # it agreed in the meantime
        releases.committed()
        (state,) = protection.ledger.ledger.balance().runs.values()
        assert len([r for r in state.releases.values() if r.charge is not None]) == 3


def test_what_has_nothing_to_do_with_noise_is_amended(tmp_path: Path) -> None:
    """A deadline; the sites' lines stay as they were allotted, and need no numbers of units."""
    table = dict(plan().model_dump(mode="json")["privacy"], population_size=400)
    first = plan(privacy=table)
    run = run_plan(first, store=tmp_path)
    wanted = plan(privacy=table, rounds={"count": 3, "deadline": 60.0})
    with Store.open(tmp_path) as store:
        found = propose(store, run.id, wanted, ("Cleveland", "Hungary"))
    assert [change.partition(":")[0] for change in found.changes] == ["rounds.deadline"]
    with Store.open(tmp_path) as store, pytest.raises(AnabranchError, match="AB-797"):
        propose(store, run.id, plan(privacy=table, rounds={"count": 9}), ("Cleveland",))
