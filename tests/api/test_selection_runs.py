"""Selection, admission and limits in whole runs with devices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from anabranch.api.run import Run
from anabranch.api.simulate import resume, run_plan
from anabranch.coordinator.chosen import SELECTION, codes_of
from anabranch.coordinator.events import RoundCommitted
from anabranch.coordinator.store import Store, StoredRound
from anabranch.fleet.selection import Code
from anabranch.fleet.timeline import traces_of
from anabranch.plan import Plan

PLAN: dict[str, object] = {
    "name": "selection",
    "seed": 5,
    "data": {"source": "digits", "partition": {"kind": "iid", "clients": 30}},
    "model": {"name": "logistic"},
    "local": {"epochs": 1, "batch_size": 8},
    "rounds": {"count": 5, "cohort": 6, "over_selection": 1.5, "quorum": 1, "late_window": 1},
    "evaluation": {"every": 5},
    "runtime": {"kind": "inline", "engine": "numpy", "commit_seconds": 0},
    "devices": {"flops_per_example": 1e10, "behaviour": {"availability": 0.8, "swing": 1.0}},
}


def ran(store: Path, **tables: object) -> Run:
    return run_plan(Plan.model_validate({**PLAN, **tables}), store=store)


@pytest.mark.parametrize("kind", ["oort", "power-of-choice", "utility", "stratified", "weighted"])
def test_every_selector_runs_and_says_why(kind: str, tmp_path: Path) -> None:
    run = ran(tmp_path, selection={"kind": kind})
    assert run.status == "complete"
    with Store.open(tmp_path) as store:
        events = [event for event in store.events(run.id) if event.kind == SELECTION]
        rounds = [stored for stored in store.rounds(run.id) if stored.round]
    assert len(events) == 5
    for event, stored in zip(events, rounds, strict=True):
        codes = codes_of(event.details)
        asked = {trace.asked for trace in traces_of(stored.client_columns) if trace is not None}
        assert codes.shape == (30,)
        assert (codes == Code.SELECTED).sum() <= 9
        assert asked


def test_a_resumed_run_selects_and_predicts_as_the_uninterrupted_one(tmp_path: Path) -> None:
    tables = {"selection": {"kind": "utility", "floor": 8}, "admission": {"max_battery": 0.002}}
    whole = ran(tmp_path / "whole", **tables)
    turns = iter([False, False, True, True])
    plan = Plan.model_validate({**PLAN, **tables})
    first = run_plan(plan, store=tmp_path / "parts", stopped=lambda: next(turns))
    assert first.status == "stopped"
    again = resume(first.id, store=tmp_path / "parts")
    np.testing.assert_array_equal(again.vector, whole.vector)
    assert [_fates(a) for a in again.history] == [_fates(w) for w in whole.history]


def _fates(stored: StoredRound) -> list[object]:
    columns = stored.client_columns
    names = ("client", "fate", "device.work", "device.spent")
    return [columns.get(name) for name in names]


def test_a_joule_budget_cuts_the_work(tmp_path: Path) -> None:
    """A digits client has 48 examples: six steps, which cost up to half a per cent."""
    capped = ran(tmp_path, admission={"max_battery": 0.002, "energy_quantile": 0.5})
    work = [
        trace.work
        for stored in capped.history[1:]
        for trace in traces_of(stored.client_columns)
        if trace is not None
    ]
    assert min(work) < 1
    assert all(fraction * 6 == pytest.approx(round(fraction * 6), abs=1e-5) for fraction in work)


def test_limits_are_shown_live_and_judged_at_the_end(tmp_path: Path) -> None:
    limits = {"min_participation": 0.3, "max_battery": 1e-6, "max_median_battery": 1e-6}
    seen: list[RoundCommitted] = []

    def listen(event: object) -> None:
        if isinstance(event, RoundCommitted):
            seen.append(event)

    plan = Plan.model_validate({**PLAN, "limits": limits})
    run = run_plan(plan, store=tmp_path, listener=listen)
    names = {"min_participation", "max_battery", "max_median_battery"}
    assert all({check.name for check in event.limits} == names for event in seen)
    assert seen[-1].limits == run.limits
    checks = {check.name: check for check in run.limits}
    assert checks["min_participation"].met
    assert "Gini" in checks["min_participation"].beside
    assert not checks["max_battery"].met
    assert not checks["max_median_battery"].met
