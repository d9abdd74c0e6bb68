"""The contract of a run store: all or nothing, in order, one writer, nothing left behind.

Subclass `StoreContract`, say how to open the store, and run it with pytest::

    class TestMyStore(StoreContract):
        def open_store(self, path, faults=no_faults):
            return MyStore.open(path, faults)
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from anabranch.coordinator.store import (
    ReleaseEntry,
    RoundRecord,
    RunRecord,
    Store,
    StoredEvent,
)
from anabranch.disk import Faults, no_faults
from anabranch.errors import AnabranchError

__all__ = ["StoreContract", "record"]


def record(number: int, *, keep: str = "", slots: dict[int, int] | None = None) -> RoundRecord:
    """A small round whose state is ``number`` everywhere."""
    return RoundRecord(
        round=number,
        metrics={"auc": number / 10, "loss": math.nan},
        client_columns={"client": ["va", "ch"], "auc": np.array([0.5, 0.25])},
        phases={"train": 0.5},
        bytes_up=80,
        bytes_down=40,
        started=float(number),
        ended=number + 0.5,
        releases=(ReleaseEntry("model", details={"contributors": 2}),),
        events=(StoredEvent("late", "client 'va' was late", "va", 1.0, {"seconds": 2.5}),),
        state={
            "model": np.full((2, 3), number, np.float32),
            "step": np.asarray(float(number)),
            "empty": np.zeros(0, np.float64),
        },
        slots=slots or {},
        keep=keep,
    )


class StoreContract:
    """Every store passes these tests."""

    def open_store(self, path: Path, faults: Faults = no_faults) -> Store:
        """Open the store in folder ``path``."""
        return Store.open(path, faults)

    def test_run_round_trip(self, tmp_path: Path) -> None:
        given = RunRecord(
            name="Heart, 4 hospitals",
            plan={"rounds": {"count": 3}, "names": ["a", None, True, 1.5]},
            plan_digest="p",
            contract_digest="c",
            data_digest="d",
            seed=2**62,
            versions={"numpy": "2"},
            trust_line="the coordinator can read every update",
            created=1_795_305_600.0,
        )
        with self.open_store(tmp_path) as store:
            run_id = store.create_run(given)
            other = store.create_run(RunRecord("heart", created=1.0))
            assert run_id.startswith("heart-4-hospitals-20261122-")
            found = store.run(run_id)
            assert [run.id for run in store.runs()] == [run_id, other]
        assert (found.id, found.status, found.ended) == (run_id, "running", None)
        for name in ("name", "plan", "plan_digest", "contract_digest", "data_digest", "seed"):
            assert getattr(found, name) == getattr(given, name)
        assert (found.versions, found.trust_line) == (given.versions, given.trust_line)

    def test_rounds_round_trip(self, tmp_path: Path) -> None:
        with self.open_store(tmp_path) as store:
            run_id = _started(store, [record(1, slots={7: 0}), record(2, slots={7: 1, 9: 0})])
        with self.open_store(tmp_path) as store:
            first, second = store.rounds(run_id)
            assert (first.round, first.outcome, first.bytes_up) == (1, "complete", 80)
            assert first.metrics["auc"] == 0.1
            assert math.isnan(first.metrics["loss"])
            assert first.client_columns == {"client": ["va", "ch"], "auc": [0.5, 0.25]}
            assert (first.state_digest, second.ended) == (None, 2.5)
            assert store.rounds(run_id, clients=False)[0].client_columns == {}
            assert [event.round for event in store.events(run_id)] == [1, 2]
            assert [release.round for release in store.releases(run_id)] == [1, 2]
            with store.session(run_id) as session:
                latest = session.latest()
            assert latest is not None
            number, state, slots = latest
            assert (number, slots) == (2, {7: 1, 9: 0})
            _same_state(state, record(2))

    def test_state_survives_by_label(self, tmp_path: Path) -> None:
        """The latest and the last labelled state are kept, all others are deleted."""
        with self.open_store(tmp_path) as store:
            run_id = store.create_run(RunRecord("r"))
            with store.session(run_id) as session:
                session.commit([record(0)])
                session.commit([record(1, keep="best"), record(2, keep="best"), record(3)])
                session.commit([record(4)])
            assert dict(store.kept(run_id)) == {"best": 2}
            _same_state(store.model(run_id, "best"), record(2))
            _same_state(store.model(run_id, 2), record(2))
            _same_state(store.model(run_id), record(4))
            for gone in (0, 1, 3, 9, "worst"):
                with pytest.raises(AnabranchError, match="AB-618"):
                    store.model(run_id, gone)

    def test_equal_states_of_two_runs_do_not_disturb_each_other(self, tmp_path: Path) -> None:
        with self.open_store(tmp_path) as store:
            one, two = (_started(store, [record(1)]) for _ in range(2))
            with store.session(one) as session:
                session.commit([record(2)])
            _same_state(store.model(two), record(1))

    def test_rounds_come_one_by_one(self, tmp_path: Path) -> None:
        with self.open_store(tmp_path) as store:
            run_id = _started(store, [record(1)])
            with store.session(run_id) as session:
                for wrong in ([record(1)], [record(3)], [record(2), record(4)]):
                    with pytest.raises(ValueError, match="one by one"):
                        session.commit(wrong)
                session.commit([record(2)])
            assert [r.round for r in store.rounds(run_id)] == [1, 2]

    def test_one_writer(self, tmp_path: Path) -> None:
        with self.open_store(tmp_path) as store, self.open_store(tmp_path) as second:
            run_id = store.create_run(RunRecord("r"))
            assert not store.is_open(run_id)
            with store.session(run_id):
                assert second.is_open(run_id)
                with pytest.raises(AnabranchError, match="AB-607"):
                    second.session(run_id)
            second.session(run_id).close()

    def test_ends_of_a_run(self, tmp_path: Path) -> None:
        with self.open_store(tmp_path) as store:
            run_id = store.create_run(RunRecord("r"))
            with store.session(run_id) as session:
                session.finish("stopped", "interrupted")
            assert (store.run(run_id).status, store.run(run_id).reason) == (
                "stopped",
                "interrupted",
            )
            with store.session(run_id) as session:
                assert (store.run(run_id).status, store.run(run_id).ended) == ("running", None)
                session.note(StoredEvent("resumed", "the run goes on"))
                session.finish("complete", "all rounds")
            assert store.events(run_id)[0].round is None
            assert store.run(run_id).ended is not None
            with pytest.raises(AnabranchError, match="AB-609"):
                store.session(run_id)

    def test_unknown_run(self, tmp_path: Path) -> None:
        with self.open_store(tmp_path) as store:
            run_id = store.create_run(RunRecord("heart", created=1.0))
            with pytest.raises(AnabranchError, match="AB-608") as caught:
                store.run(run_id[:-1])
            assert run_id in caught.value.fix


def _started(store: Store, rounds: list[RoundRecord]) -> str:
    run_id = store.create_run(RunRecord("r"))
    with store.session(run_id) as session:
        session.commit(rounds)
    return run_id


def _same_state(found: object, wanted: RoundRecord) -> None:
    assert isinstance(found, dict)
    assert found.keys() == wanted.state.keys()
    for name, array in wanted.state.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()
