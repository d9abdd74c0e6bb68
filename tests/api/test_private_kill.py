"""`kill -9` a private run at every step of its ledger: nothing is released that is not counted."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
from killed_runs import federation, go, in_child

from anabranch.api.prepare import Prepared, prepare
from anabranch.coordinator.store import Store
from anabranch.coordinator.store.ledger import PopulationLedger
from anabranch.plan import Plan
from anabranch.testing.faults import KillAt, Trace

ROUNDS = 3
MECHANISMS: dict[str, dict[str, object]] = {
    "gaussian": {"kind": "gaussian", "participations": 3},
    "ftrl": {"kind": "ftrl", "participations": 2},
}


def prepared(mechanism: str) -> Prepared:
    clip = {"kind": "fixed", "norm": 1.0}
    plan = Plan.model_validate(
        {
            "name": "killed",
            "data": {"source": "arrays"},
            "model": {"name": "logistic"},
            "local": {"batch_size": 4, "learning_rate": 0.1},
            "rounds": {"count": ROUNDS, "cohort": 3, "quorum": 3},
            "evaluation": {"on": "holdout", "every": 0},
            "aggregation": {"weighting": {"kind": "uniform"}},
            "runtime": {"kind": "inline", "engine": "numpy", "commit_seconds": 0.0},
            "privacy": {
                "epsilon": 60.0,
                "delta": 0.01,
                "population": "people",
                "mechanism": {**MECHANISMS[mechanism], "clip": clip},
            },
        }
    )
    data = federation()
    return prepare(plan, type(data)(**{**vars(data), "holdout": data.test.of(0)}))


@dataclass(frozen=True)
class End:
    status: str
    rounds: int
    reserved: int
    settled: int
    outputs: list[str]
    released: list[str]
    closed: bool
    secrets: int


def end_of(folder: Path) -> End:
    with (
        Store.open(folder) as store,
        PopulationLedger.existing(folder / "ledgers", "people") as ledger,
    ):
        (run,) = store.runs()
        ledger.links()
        state = ledger.balance().runs[run.id]
        releases = list(state.releases.values())
        settled = [held.settled for held in releases if held.settled is not None]
        released = [
            str(stored.entry.details["sha256"])
            for stored in store.releases(run.id)
            if stored.entry.what == "model"
        ]
        return End(
            status=run.status,
            rounds=len([r for r in store.rounds(run.id) if r.round and r.outcome != "failed"]),
            reserved=len(releases),
            settled=len(settled),
            outputs=[entry.output for entry in settled],
            released=released,
            closed=state.closed is not None,
            secrets=len(list((folder / "ledgers" / "people.secrets").iterdir())),
        )


def killed_at(work: Prepared, folder: Path, point: str, nth: int) -> None:
    assert in_child(work, folder, KillAt(point, nth)) == -signal.SIGKILL, point
    assert in_child(work, folder) == 0, point
    end = end_of(folder)
    assert end.status == "complete", point
    assert (end.rounds, end.reserved, end.settled) == (ROUNDS, ROUNDS, ROUNDS), point
    assert end.outputs == end.released, "the ledger and the run name the same releases"
    assert end.closed, point
    assert end.secrets == 0, point


@pytest.fixture(scope="module", autouse=True)
def _imported(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What a run imports, once here and not in every child."""
    go(prepared("ftrl"), tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize(
    "point",
    [
        "ledger.allot.commit.after",
        "ledger.reserve.commit.after",
        "round.commit.before",
        "round.commit.after",
        "ledger.close.commit.after",
        "secret.unlink.before",
    ],
)
def test_the_steps_that_matter_most(point: str, tmp_path: Path) -> None:
    killed_at(
        prepared("ftrl"), tmp_path, point, 2 if point.startswith(("ledger.reserve", "round")) else 1
    )


@pytest.mark.slow
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_every_step_of_the_ledger_and_of_the_round(mechanism: str, tmp_path: Path) -> None:
    work, trace = prepared(mechanism), Trace()
    go(work, tmp_path / "traced", trace)
    for point, total in trace.counts.items():
        if point.startswith(("ledger.", "secret.", "round.")):
            for nth in sorted({1, total // 2 + 1, total}):
                killed_at(work, tmp_path / f"{point}-{nth}", point, nth)
