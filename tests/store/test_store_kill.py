"""Killed at every point and at random instants, a resumed run ends as if nothing had happened."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from toy_run import KILLED, ROUNDS, End, end_of, in_child, plant_leftovers, run_toy

from anabranch.coordinator.store import KILL_POINTS, RunRecord, Store
from anabranch.testing.faults import KillAt, Trace


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> End:
    folder = tmp_path_factory.mktemp("uninterrupted")
    run_toy(folder)
    return end_of(folder)


@pytest.fixture(scope="module")
def counts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """How often the uninterrupted run reaches each point."""
    folder = tmp_path_factory.mktemp("traced")
    plant_leftovers(folder)
    trace = Trace()
    run_toy(folder, trace)
    return dict(trace.counts)


def test_points_are_exactly_those_reached(counts: dict[str, int]) -> None:
    assert set(counts) == set(KILL_POINTS)
    assert len(set(KILL_POINTS)) == len(KILL_POINTS)


def test_uninterrupted_run(wanted: End) -> None:
    assert len(wanted.rounds) == ROUNDS
    assert wanted.status == "complete"
    assert sum(memory is not None for memory in wanted.memories) >= 4


@pytest.mark.parametrize("point", KILL_POINTS)
def test_kill_at_every_point(
    point: str, tmp_path: Path, wanted: End, counts: dict[str, int]
) -> None:
    """At the first time the point is reached, and in the middle of the run."""
    total = counts[point]
    for nth in sorted({1, total // 2 + 1}):
        folder = tmp_path / str(nth)
        folder.mkdir()
        plant_leftovers(folder)
        assert in_child(folder, KillAt(point, nth)) == KILLED, f"{point} not reached {nth} times"
        assert in_child(folder, Trace()) is None
        assert end_of(folder) == wanted


@pytest.mark.slow
def test_kill_at_every_hit_of_every_point(
    tmp_path: Path, wanted: End, counts: dict[str, int]
) -> None:
    for point, total in counts.items():
        for nth in range(1, total + 1):
            folder = tmp_path / f"{point}-{nth}"
            folder.mkdir()
            plant_leftovers(folder)
            assert in_child(folder, KillAt(point, nth)) == KILLED
            assert in_child(folder, Trace()) is None
            assert end_of(folder) == wanted


@pytest.mark.parametrize(("point", "durable"), [("before", []), ("after", [1, 2])])
def test_the_commit_is_the_instant(point: str, durable: list[int], tmp_path: Path) -> None:
    assert in_child(tmp_path, KillAt(f"round.commit.{point}")) == KILLED
    with Store.open(tmp_path) as store:
        (run,) = store.runs()
        assert [r.round for r in store.rounds(run.id)] == durable
        assert run.status == "running"
        assert not store.is_open(run.id)


def test_killed_again_and_again(tmp_path: Path, wanted: End) -> None:
    """Each attempt dies at another point; the one that survives ends right."""
    for point in KILL_POINTS:
        in_child(tmp_path, KillAt(point, 2))
    assert in_child(tmp_path, Trace()) is None
    assert end_of(tmp_path) == wanted


def test_kill_at_random_instants(tmp_path: Path, wanted: End) -> None:
    """Not at a point of ours: anywhere, also inside SQLite."""
    started = time.monotonic()
    assert in_child(tmp_path / "timed", Trace()) is None
    whole = time.monotonic() - started
    draw = np.random.default_rng(7)
    for attempt in range(15):
        folder = tmp_path / str(attempt)
        child = os.fork()
        if child == 0:
            try:
                run_toy(folder)
            finally:
                os._exit(0)
        time.sleep(float(draw.uniform(0, whole)))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        run_toy(folder)
        assert end_of(folder) == wanted


def test_order_of_a_commit(tmp_path: Path) -> None:
    """Client states synced, blob written, synced, renamed, folder synced; then the rows."""
    trace = Trace()
    run_toy(tmp_path, trace)
    points = trace.points
    commit = points.index("round.commit.before")
    steps = [
        "slots.write.after",
        "slots.sync.after",
        "blob.mkdir.after",
        "blob.write.after",
        "blob.sync.after",
        "blob.rename.before",
        "blob.directory.after",
        "round.begin",
    ]
    places = [max(i for i, p in enumerate(points[:commit]) if p == step) for step in steps]
    assert places == sorted(places)
    assert points.index("collect.delete.before") > commit


def test_a_killed_coordinator_frees_its_run(tmp_path: Path) -> None:
    """Also when a worker that it forked survives it."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        store = Store.open(tmp_path)
        session = store.session(store.create_run(RunRecord("toy")))
        worker = os.fork()
        if worker == 0:
            time.sleep(30)
            os._exit(0)
        os.write(write, f"{worker} {session.run_id}".encode())
        time.sleep(30)
        os._exit(0)
    worker_text, run_id = os.read(read, 200).decode().split()
    try:
        with Store.open(tmp_path) as store:
            assert store.is_open(run_id)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            assert not store.is_open(run_id)
            store.session(run_id).close()
    finally:
        os.kill(int(worker_text), signal.SIGKILL)
