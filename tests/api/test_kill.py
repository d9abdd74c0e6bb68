"""`kill -9` at any instant, then resume: the run ends as if nothing had happened, bit for bit."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from killed_runs import ALGORITHMS, end_of, go, in_child, killed_after, prepared

from anabranch.coordinator.store import KILL_POINTS
from anabranch.testing.faults import KillAt, Trace


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    """The end of the uninterrupted run of each algorithm."""
    ends = {}
    for algorithm in ALGORITHMS:
        folder = tmp_path_factory.mktemp(algorithm)
        go(prepared(algorithm), folder)
        ends[algorithm] = end_of(folder)
    return ends


def reached(algorithm: str, folder: Path) -> dict[str, int]:
    trace = Trace()
    go(prepared(algorithm), folder, trace)
    return dict(trace.counts)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_kill_point(
    algorithm: str, tmp_path: Path, wanted: dict[str, dict[str, object]]
) -> None:
    work = prepared(algorithm)
    counts = reached(algorithm, tmp_path / "traced")
    for point, total in counts.items():
        nth = 1 + total // 2
        folder = tmp_path / f"{point}-{nth}"
        status = in_child(work, folder, KillAt(point, min(nth, total)))
        assert status == -signal.SIGKILL, f"{point} was not reached"
        assert in_child(work, folder) == 0
        assert end_of(folder) == wanted[algorithm], point
    if algorithm == "scaffold":
        stated = {point for point in KILL_POINTS if not point.startswith("collect.")}
        assert stated - set(counts) == set(), "a kill point is never reached by a real run"


@pytest.mark.parametrize("kind", ["inline", "fork"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_random_instants(
    algorithm: str, kind: str, tmp_path: Path, wanted: dict[str, dict[str, object]]
) -> None:
    random_instants(algorithm, kind, tmp_path, wanted, attempts=3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["inline", "fork"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_fifty_random_instants(
    algorithm: str, kind: str, tmp_path: Path, wanted: dict[str, dict[str, object]]
) -> None:
    random_instants(algorithm, kind, tmp_path, wanted, attempts=50)


def random_instants(
    algorithm: str,
    kind: str,
    tmp_path: Path,
    wanted: dict[str, dict[str, object]],
    attempts: int,
) -> None:
    work = prepared(algorithm, kind, commit_seconds=0.02)
    started = time.monotonic()
    assert in_child(work, tmp_path / "whole") == 0
    whole = time.monotonic() - started
    assert end_of(tmp_path / "whole") == wanted[algorithm]
    draw = np.random.default_rng(11)
    for attempt in range(attempts):
        folder = tmp_path / str(attempt)
        killed_after(work, folder, float(draw.uniform(0, whole)))
        assert in_child(work, folder) == 0
        assert end_of(folder) == wanted[algorithm]


def test_a_killed_worker_is_replaced(tmp_path: Path, wanted: dict[str, dict[str, object]]) -> None:
    work = prepared("scaffold", "fork")
    killed: list[int] = []

    def kill_workers() -> None:
        deadline = time.monotonic() + 20
        while len(killed) < 3 and time.monotonic() < deadline:
            for child in psutil.Process().children():
                if child.pid not in killed and len(killed) < 3:
                    os.kill(child.pid, signal.SIGKILL)
                    killed.append(child.pid)
            time.sleep(0.005)

    thread = threading.Thread(target=kill_workers)
    thread.start()
    go(work, tmp_path)
    thread.join()
    assert len(killed) == 3
    assert end_of(tmp_path) == wanted["scaffold"]


def test_nothing_is_left_after_a_kill(tmp_path: Path) -> None:
    before = set(os.listdir("/dev/shm")) if Path("/dev/shm").is_dir() else set()
    mark = f"anabranch-test-{os.getpid()}"
    child = os.fork()
    if child == 0:
        os.environ["ANABRANCH_TEST_MARK"] = mark
        os.setpgid(0, 0)
        try:
            go(prepared("scaffold", "fork"), tmp_path)
        finally:
            time.sleep(30)
            os._exit(0)
    deadline = time.monotonic() + 10
    workers: list[psutil.Process] = []
    while not workers and time.monotonic() < deadline:
        workers = psutil.Process(child).children(recursive=True)
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert workers, "the run ended before its workers were seen"
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive
    after = set(os.listdir("/dev/shm")) if Path("/dev/shm").is_dir() else set()
    assert after <= before
