"""Clients whose clocks are a year off: they end with the reason, and the run goes on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from served_ends import plan_text
from served_fleets import NAMES, ServedFleet

from anabranch.coordinator.store import Store

YEAR = 365 * 86_400.0

CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
static time_t shift(void) { const char *by = getenv("CLOCK_SHIFT"); return by ? atol(by) : 0; }
time_t time(time_t *out) {
    struct timespec now;
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    real(CLOCK_REALTIME, &now);
    now.tv_sec += shift();
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
int clock_gettime(clockid_t which, struct timespec *out) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int done = real(which, out);
    if (which == CLOCK_REALTIME) out->tv_sec += shift();
    return done;
}
int gettimeofday(struct timeval *restrict out, void *restrict zone) {
    static int (*real)(struct timeval *, void *);
    if (!real) real = dlsym(RTLD_NEXT, "gettimeofday");
    int done = real(out, zone);
    if (out) out->tv_sec += shift();
    return done;
}
"""
"""A clock that is wrong for one process, as a library that the loader puts before the system's."""


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[ServedFleet]:
    made = ServedFleet(tmp_path / "f", patience=1.5)
    yield made
    made.close()


def require_the_run_ends_without(fleet: ServedFleet, name: str) -> None:
    # It did not come while the run was prepared: no round may wait for it once more.
    text = plan_text(fleet, 4).replace("[rounds]", "[rounds]\ndeadline = 3600.0")
    run = fleet.submit(text)
    assert fleet.ended(run).state == "complete"
    with Store.open(fleet.store, create=False) as store:
        rounds = [stored for stored in store.rounds(run) if stored.round]
    for stored in rounds:
        columns = stored.client_columns
        fates = dict(zip(columns["client"], columns["fate"], strict=True))
        assert fates.pop(name, "lost") == "lost"
        assert fates == {other: "merged" for other in NAMES if other != name}


@pytest.mark.parametrize("off", [YEAR, pytest.param(-YEAR, marks=pytest.mark.slow)])
def test_a_client_whose_clock_is_a_year_off_does_not_begin(fleet: ServedFleet, off: float) -> None:
    fleet.start_daemon()
    for name in NAMES:
        clock = (lambda: time.time() + off) if name == "east" else time.time
        fleet.start_client(name, clock=clock)
    fleet.until(lambda status: len(fleet.members()) == len(NAMES))
    fleet.clients["east"].join(20.0)
    assert not fleet.clients["east"].is_alive()
    told = fleet.screen("east")
    assert told.startswith("AB-753")
    assert time.strftime("%Y", time.gmtime(time.time() + off)) in told
    assert "See docs/errors/AB-753.md" in told
    require_the_run_ends_without(fleet, "east")


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("the wrong clock of a process needs a C compiler and Linux")
    folder = tmp_path_factory.mktemp("clock")
    (folder / "clock.c").write_text(CLOCK)
    command = [compiler, "-shared", "-fPIC", "-o", "clock.so", "clock.c", "-ldl"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "clock.so"


@pytest.mark.slow
@pytest.mark.parametrize("off", [3 * YEAR, -3 * YEAR])
def test_certificates_do_not_count_under_a_wrong_clock(
    fleet: ServedFleet, clock: Path, off: float
) -> None:
    """The whole process believes the wrong clock, TLS included; certificates of trials count two
    years."""
    fleet.start_daemon()
    token = fleet.fleet.invite(fleet.fleet.coordinator().fingerprint, 600, name="east")
    for name in NAMES:
        if name != "east":
            fleet.start_client(name)
    fleet.until(lambda status: len(fleet.members()) == len(NAMES) - 1)
    home = fleet.folder / "homes" / "east"
    start = "from anabranch.cli import main; main()"
    command = [sys.executable, "-c", start, "join", "--token", token]
    command += ["--ca", str(fleet.authority), "--data", str(fleet.sites / "east.csv")]
    command += ["--home", str(home), "--key-file", str(home.with_suffix(".key"))]
    shifted = {"LD_PRELOAD": str(clock), "CLOCK_SHIFT": str(int(off)), "COVERAGE_PROCESS_START": ""}
    done = subprocess.run(
        command,
        env={**os.environ, **shifted},
        capture_output=True,
        text=True,
        timeout=60.0,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "AB-741" in done.stderr
    assert time.strftime("%Y", time.gmtime(time.time() + off)) in done.stderr
    assert "clock" in done.stderr
    assert not fleet.members().count("east")
