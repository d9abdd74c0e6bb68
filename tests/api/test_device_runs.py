"""Runs with devices: stopped and resumed they end as if nothing had happened."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest
from killed_runs import end_of, go, in_child

from anabranch.api.prepare import prepare
from anabranch.api.run import Run
from anabranch.api.simulate import resume, run_plan
from anabranch.fleet.timeline import traces_of
from anabranch.observe.export import trace_csv
from anabranch.plan import Plan
from anabranch.testing.faults import KillAt, Trace

PLAN: dict[str, object] = {
    "name": "devices",
    "seed": 3,
    "data": {"source": "digits", "partition": {"kind": "iid", "clients": 30}},
    "model": {"name": "logistic"},
    "local": {"epochs": 1, "batch_size": 16},
    "evaluation": {"every": 3},
    "runtime": {"kind": "inline", "engine": "numpy", "commit_seconds": 0},
    "devices": {
        "regions": {"kenya": 3.0, "india": 5.5},
        "flops_per_example": 5e8,
        "behaviour": {"session_minutes": 1.0, "permanent_loss": 0.1},
    },
}
ROUNDS: dict[str, dict[str, object]] = {
    "synchronous": {"count": 6, "cohort": 6, "over_selection": 1.5, "deadline": 60.0},
    "late window": {"count": 6, "cohort": 6, "deadline": 4.0, "late_window": 2, "quorum": 1},
    "buffered": {
        "count": 9,
        "asynchronous": {"buffer": 3, "concurrency": 8},
    },
}
FATES: dict[str, set[str]] = {
    "synchronous": {"merged"},
    "late window": {"merged", "merged late"},
    "buffered": {"merged", "merged late"},
}


def plan(kind: str) -> Plan:
    return Plan.model_validate({**PLAN, "rounds": ROUNDS[kind]})


class StopAfter:
    """True once it has been asked so many times."""

    def __init__(self, turns: int) -> None:
        self.turns = turns

    def __call__(self) -> bool:
        self.turns -= 1
        return self.turns < 0


def told(run: Run) -> list[object]:
    """Everything about tasks in the round records that does not depend on this machine."""
    rounds: list[object] = []
    for found in run.history:
        columns = {name: list(cells) for name, cells in found.client_columns.items()}
        rows = zip(columns.get("client", []), columns.get("fate", []), strict=True)
        asked = [(client, fate) for client, fate in rows if fate]
        seen = [trace for trace in traces_of(columns) if trace is not None]
        clock = found.metrics.get("virtual_seconds")
        rounds.append((found.round, found.outcome, clock, asked, str(seen)))
    return rounds


@pytest.mark.parametrize("kind", list(ROUNDS))
def test_a_run_that_was_stopped_ends_as_the_whole_one(kind: str, tmp_path: Path) -> None:
    whole = run_plan(plan(kind), store=tmp_path / "whole")
    first = run_plan(plan(kind), store=tmp_path / "parts", stopped=StopAfter(2))
    assert first.status == "stopped"
    second = resume(first.id, store=tmp_path / "parts")
    for name, values in whole.parameters().items():
        np.testing.assert_array_equal(second.parameters()[name], values)
    assert told(second) == told(whole)
    fates = {fate for found in whole.history for fate in found.client_columns.get("fate", [])}
    assert FATES[kind] <= fates, fates
    assert len(told(whole)) > ROUNDS[kind]["count"]  # version 0 is one of them


def test_a_run_is_replayed_from_its_trace(tmp_path: Path) -> None:
    """What one run showed of its devices is what the next one meets."""
    first = run_plan(plan("synchronous"), store=tmp_path / "first")
    path = tmp_path / "trace.csv"
    path.write_text(trace_csv(first.history), encoding="utf-8")
    seen = [t for found in first.history for t in traces_of(found.client_columns) if t is not None]
    devices = {**PLAN["devices"], "trace": str(path)}  # type: ignore[dict-item]  # a table
    again = run_plan(
        Plan.model_validate({**PLAN, "devices": devices, "rounds": ROUNDS["synchronous"]}),
        store=tmp_path / "again",
    )
    replayed = [t for r in again.history for t in traces_of(r.client_columns) if t is not None]
    speeds = {round(trace.flops / trace.train) for trace in seen if trace.upload > 0}
    known = [round(trace.flops / trace.train) for trace in replayed if trace.upload > 0]
    # Speeds of the replay are speeds that were seen, up to the six decimals of the record.
    near = [min(abs(speed - other) / speed for other in speeds) for speed in known]
    assert len(near) > 10
    assert np.median(near) < 1e-4


def test_workers_change_nothing(tmp_path: Path) -> None:
    """Memory included: SCAFFOLD's variates are promoted by fate, whoever computed them."""
    given = {**PLAN, "algorithm": {"name": "scaffold"}, "rounds": ROUNDS["synchronous"]}
    ends = []
    for kind in ("inline", "fork"):
        runtime = {"kind": kind, "workers": 2, "engine": "numpy", "commit_seconds": 0}
        one = Plan.model_validate({**given, "runtime": runtime})
        ends.append(run_plan(one, store=tmp_path / kind))
    np.testing.assert_array_equal(ends[0].vector, ends[1].vector)
    assert told(ends[0]) == told(ends[1])


@pytest.mark.slow
def test_a_killed_run_goes_on_with_its_open_tasks(tmp_path: Path) -> None:
    """``kill -9`` at every kind of step of an asynchronous run with tasks under way."""
    work = prepare(plan("buffered"))
    traced = Trace()
    go(work, tmp_path / "whole", traced)
    wanted = end_of(tmp_path / "whole")
    for point, total in traced.counts.items():
        folder = tmp_path / point
        nth = 1 + total // 2
        assert in_child(work, folder, KillAt(point, min(nth, total))) == -signal.SIGKILL
        assert in_child(work, folder) == 0
        assert end_of(folder) == wanted, point
