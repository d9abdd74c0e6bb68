"""Groups, locks, collection and slot maps, one by one."""

import multiprocessing
import os
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from anabranch.client.states import SlotFile, SlotMap
from anabranch.coordinator.store import (
    GroupedCommits,
    RoundRecord,
    RunRecord,
    RunSession,
    Store,
    StoredEvent,
)
from anabranch.coordinator.store.blobs import Blobs
from anabranch.coordinator.store.locks import FileLock
from anabranch.disk import no_faults
from anabranch.errors import AnabranchError
from anabranch.testing.faults import Trace
from anabranch.testing.store import record


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Recorder:
    """Client states that only write down the order of calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def sync(self) -> None:
        self.calls.append("sync")

    def durable(self) -> Mapping[int, int]:
        self.calls.append("durable")
        return {7: 2}

    def committed(self) -> None:
        self.calls.append("committed")


@pytest.fixture
def session(tmp_path: Path):
    with Store.open(tmp_path) as store, store.session(store.create_run(RunRecord("r"))) as opened:
        yield opened


def test_groups_close_by_time(session: RunSession) -> None:
    clock = Clock()
    commits = GroupedCommits(session, 1.0, clock=clock)
    assert [commits.add(record(number)) for number in (1, 2)] == [False, False]
    assert session.latest() is None
    clock.now = 1.0
    assert commits.add(record(3))
    assert session.latest().round == 3
    clock.now = 1.5
    assert not commits.add(record(4))
    assert commits.add(record(5), force=True)
    clock.now = 30.0  # a slow round does not wait for the next one
    assert commits.add(record(6))
    assert commits.buffered == 0


def test_groups_drop_states_that_are_not_written(session: RunSession) -> None:
    commits = GroupedCommits(session, 1e9)
    for number, keep in enumerate(["", "best", "", "best", "", ""], start=1):
        commits.add(record(number, keep=keep))
    held = [bool(r.state) for r in commits._buffer]
    assert held == [False, False, False, True, False, True]
    commits.flush()
    commits.flush()
    assert session.latest().round == 6


def test_group_commits_client_states_in_order(session: RunSession) -> None:
    states = Recorder()
    with GroupedCommits(session, 1e9, states=states) as commits:
        commits.add(record(1, slots={1: 1}))
    assert states.calls == ["sync", "durable", "committed"]
    assert session.latest().slots == {1: 1, 7: 2}


def test_group_is_not_committed_after_an_error(session: RunSession) -> None:

    def fail() -> None:
        with GroupedCommits(session, 1e9) as commits:
            commits.add(record(1))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert session.latest() is None


def test_slots_in_many_blocks(session: RunSession) -> None:
    first = {client * 401: client % 3 for client in range(1700)}
    second = dict.fromkeys(range(0, 1700 * 401, 802), 2) | {1023: 0, 1024: 1}
    session.commit([record(1, slots=first)])
    session.commit([record(2, slots=second)])
    assert session.latest().slots == {**first, **second}


def test_numpy_values_in_columns(session: RunSession, tmp_path: Path) -> None:
    columns = {"n": np.arange(2), "ok": [np.bool_(True), None], "x": [np.float32(0.5), 1]}
    session.commit([RoundRecord(1, metrics={"a": np.float64(0.1)}, client_columns=columns)])
    with Store.open(tmp_path, create=False) as store:
        (found,) = store.rounds(session.run_id)
    assert found.metrics == {"a": 0.1}
    assert found.client_columns == {"n": [0, 1], "ok": [True, None], "x": [0.5, 1]}


def test_transposed_arrays_keep_their_values(session: RunSession) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3).T
    session.commit([RoundRecord(1, state={"a": array, "b": np.float64(2.5)})])
    state = session.latest().state
    np.testing.assert_array_equal(state["a"], array)
    assert state["b"].shape == ()


def test_collection_waits_while_somebody_writes(tmp_path: Path) -> None:
    """Between writing a blob and naming it, no other process deletes it."""
    (tmp_path / "b").mkdir()
    mine, theirs = (Blobs(tmp_path / "b", FileLock(tmp_path / "lock"), no_faults) for _ in range(2))
    with mine.writing():
        digest = mine.put({"a": np.ones(3)})
        assert theirs.collect(lambda _: set()) == 0
        assert theirs.delete({digest}, lambda _: set()) == {digest}
        assert mine.path(digest).exists()
    assert theirs.delete({digest}, lambda _: {digest}) == set()
    assert mine.path(digest).exists()
    assert theirs.collect(lambda _: set()) == 1


def test_equal_content_is_written_once(tmp_path: Path) -> None:
    trace = Trace()
    (tmp_path / "b").mkdir()
    blobs = Blobs(tmp_path / "b", FileLock(tmp_path / "lock"), trace)
    assert blobs.put({"a": np.ones(3), "b": np.zeros(2)}) == blobs.put(
        {"b": np.zeros(2), "a": np.ones(3)}
    )
    assert trace.counts["blob.rename.after"] == 1
    assert trace.counts["blob.directory.after"] == 2


def test_reader_while_a_run_goes_on(session: RunSession, tmp_path: Path) -> None:
    with Store.open(tmp_path, create=False) as reader:
        for number in range(1, 30):
            session.commit([record(number)])
            assert reader.model(session.run_id)["step"] == number
        assert len(reader.rounds(session.run_id, clients=False)) == 29


def test_two_processes_with_equal_states(tmp_path: Path) -> None:
    """Twice the same run at the same time: they share blobs and neither loses one."""
    with Store.open(tmp_path) as store:
        runs = [store.create_run(RunRecord("r")) for _ in range(2)]
    children = []
    for run_id in runs:
        children.append(os.fork())
        if children[-1] == 0:
            code = 1
            try:
                with Store.open(tmp_path) as store, store.session(run_id) as mine:
                    for number in range(1, 80):
                        mine.commit([record(number, slots={number: 1})])
                        mine.note(StoredEvent("resumed", "reads first, then writes"))
                        assert store.model(run_id)["step"] == number
                code = 0
            finally:
                os._exit(code)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    with Store.open(tmp_path) as store:
        assert [store.model(run_id)["step"] for run_id in runs] == [79, 79]
    assert len(list(tmp_path.glob("blobs/*/*"))) == 1


def _fill(path: Path, client: int, slot: int) -> None:
    states = SlotMap(path, 3, 4)
    states.write(client, slot, np.full(4, client + 1, np.float32))
    states.close()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_write_the_slots_that_they_are_told(method: str, tmp_path: Path) -> None:
    context = multiprocessing.get_context(method)
    with SlotFile(tmp_path / "s", 3, 4) as states:
        told = [(states.map.path, client, states.pending_slot(client)) for client in (0, 2)]
        workers = [context.Process(target=_fill, args=args) for args in told]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(30)
            assert worker.exitcode == 0
        states.promote(0)
        states.discard(2)
        np.testing.assert_array_equal(states.read(0), np.ones(4))
        assert states.read(1) is None
        assert states.read(2) is None


def test_left_over_workers_are_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "s"
    first = SlotFile(path, 3, 4)
    child = os.fork()  # a worker that outlives its coordinator
    if child == 0:
        time.sleep(0.5)
        os._exit(0)
    first.close()
    with SlotFile(path, 3, 4) as second:
        with pytest.raises(AnabranchError, match="AB-616"):
            second.restore({}, patience=0.05)
        second.restore({}, patience=10)
    os.waitpid(child, 0)


def test_a_reserved_slot_stays_reserved(tmp_path: Path) -> None:
    """Told once, told always: a commit in the middle of a task does not give the slot away."""
    with SlotFile(tmp_path / "s", 1, 4) as states:
        for _ in range(2):
            states.write_pending(0, np.ones(4, np.float32))
            states.promote(0)
        told = states.pending_slot(0)
        states.committed()
        assert states.pending_slot(0) == told
        states.discard(0)
        assert states.pending_slot(0) != states.current_slot(0)


def test_closed_sessions_write_nothing(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        session = store.session(store.create_run(RunRecord("r")))
        session.close()
        session.close()
        for call in (
            lambda: session.commit([record(1)]),
            session.note,
            lambda: session.finish("failed"),
        ):
            with pytest.raises(ValueError, match="closed"):
                call()


def test_many_stores_leave_no_open_files(tmp_path: Path) -> None:
    def opened() -> int:
        return len(os.listdir("/proc/self/fd"))

    Store.open(tmp_path).close()
    before = opened()
    for _ in range(5):
        with Store.open(tmp_path) as store, store.session(store.create_run(RunRecord("r"))) as one:
            one.commit([record(1)])
            with SlotFile(one.states_path, 2, 2):
                pass
    assert opened() <= before


def test_slot_arguments(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        SlotMap(tmp_path / "s", 0, 4)
    states = SlotMap(tmp_path / "s", 3, 4)
    for client, slot in ((3, 0), (-1, 0), (0, 3), (0, -1)):
        with pytest.raises(IndexError):
            states.read(client, slot)
    for wrong in (np.zeros(5, np.float32), np.zeros(4)):
        with pytest.raises(ValueError):
            states.write(0, 0, wrong)
    np.testing.assert_array_equal(states.read(2, 2), np.zeros(4))
    states.close()
    states.close()


def test_the_file_is_sparse(tmp_path: Path) -> None:
    with SlotFile(tmp_path / "s", 100_000, 61) as states:
        states.write_pending(99_999, np.ones(61, np.float32))
        states.sync()
    status = (tmp_path / "s").stat()
    assert status.st_size > 73_000_000
    assert status.st_blocks * 512 < 1_000_000
