"""A device that fetches a task, works without a connection, and comes back in time or too late."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from served_fleets import NAMES, sites_plan, write_sites

from anabranch.api import run_plan
from anabranch.api.serve import Daemon, ServeOptions
from anabranch.client.task import Fate
from anabranch.errors import AnabranchError
from anabranch.plan import Plan
from anabranch.runtimes.http import HttpLimits, JoinOptions
from anabranch.runtimes.http.client.joining import Attendance
from anabranch.runtimes.http.client.line import Line
from anabranch.runtimes.http.client.offline import deliver, fetch, work
from anabranch.runtimes.http.client.places import MemberPlaces

WAIT = JoinOptions(wait=5.0, timeout=10.0, patience=5.0)
BRIEF = JoinOptions(wait=0.1, timeout=10.0, patience=5.0)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    made = sites_plan(write_sites(tmp_path / "sites"), 1, "scaffold")
    return made.replace(evaluation=made.evaluation.replace(every=0))


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    limits = HttpLimits(poll_seconds=5.0)
    made = Daemon(ServeOptions(tmp_path / "store", clients=NAMES, limits=limits))
    yield made
    made.close()


def places(tmp_path: Path, name: str) -> MemberPlaces:
    """As a process that was just started has them."""
    return MemberPlaces(name, tmp_path / "sites" / f"{name}.csv", tmp_path / name, engine="numpy")


def prepared(daemon: Daemon, tmp_path: Path) -> None:
    """Answer what is asked before the first round."""
    for _ in range(3):
        for name in NAMES:
            line = Line(daemon.url, name, WAIT)
            member = Attendance(line, places(tmp_path, name))
            offer, until = None, time.monotonic() + 30
            while offer is None and time.monotonic() < until:
                offer = member.once()
            assert offer is not None
            assert offer.kind.value == "statistics"
            member._answer(offer)


def test_a_round_of_offline_devices_is_the_simulated_one(
    daemon: Daemon, plan: Plan, tmp_path: Path
) -> None:
    wanted = run_plan(plan, store=tmp_path / "simulated")
    run = daemon.submit(plan)
    prepared(daemon, tmp_path)
    for name in NAMES:
        bundle = tmp_path / f"bundle-{name}"
        offer = fetch(Line(daemon.url, name, WAIT), places(tmp_path, name), bundle, daemon.url)
        assert offer is not None
        with pytest.raises(AnabranchError, match="AB-773"):
            deliver(Line(daemon.url, name, WAIT), places(tmp_path, name), bundle)
        assert work(bundle, places(tmp_path, name)) == work(bundle, places(tmp_path, name)) > 0
        with pytest.raises(AnabranchError, match="AB-773"):
            fetch(Line(daemon.url, name, WAIT), places(tmp_path, name), bundle, daemon.url)
    fates: dict[str, dict[str, Fate]] = {name: {} for name in NAMES}
    for name in NAMES:
        bundle = tmp_path / f"bundle-{name}"
        deliver(Line(daemon.url, name, BRIEF), places(tmp_path, name), bundle)
        assert not bundle.exists()
    until = time.monotonic() + 60
    while not all(fates.values()) and time.monotonic() < until:  # everybody is also measured
        for name in NAMES:
            member = Attendance(Line(daemon.url, name, BRIEF), places(tmp_path, name))
            offer = member.once(fates[name])
            if offer is not None:
                member._answer(offer)
    assert [list(told.values()) for told in fates.values()] == [[Fate.MERGED]] * len(NAMES)
    daemon.wait(run, 20.0)
    assert daemon.status().runs[0].state == "complete"
    served = load_file(tmp_path / "store" / "models" / f"{run}.safetensors")
    for parameter, value in wanted.parameters().items():
        np.testing.assert_array_equal(served[parameter], value)


def test_a_bundle_that_was_changed_or_has_expired_is_not_used(
    daemon: Daemon, plan: Plan, tmp_path: Path
) -> None:
    daemon.submit(plan)
    prepared(daemon, tmp_path)
    bundle, member = tmp_path / "bundle", places(tmp_path, "north")
    line = Line(daemon.url, "north", WAIT)
    offer = fetch(line, member, bundle, daemon.url, clock=lambda: 1000.0)
    assert offer is not None
    hour = offer.milliseconds / 1000
    for now in (999.0, 1001.0 + hour):  # a clock that was set back counts as expired too
        with pytest.raises(AnabranchError, match="expired"):
            work(bundle, member, clock=lambda now=now: now)  # type: ignore[misc]
    model = (bundle / offer.broadcast).read_bytes()
    (bundle / offer.broadcast).write_bytes(model[:-1] + b"\0")
    with pytest.raises(AnabranchError, match="damaged"):
        work(bundle, member, clock=lambda: 1001.0)
    (bundle / offer.broadcast).unlink()
    with pytest.raises(AnabranchError, match="missing"):
        work(bundle, member, clock=lambda: 1001.0)
    (bundle / "bundle.json").write_text("{}")
    with pytest.raises(AnabranchError, match="no bundle"):
        work(bundle, member)


def test_what_comes_too_late_is_acknowledged_and_dropped(
    daemon: Daemon, plan: Plan, tmp_path: Path
) -> None:
    deadline = plan.rounds.replace(deadline=1.0, max_failures=0)
    daemon.submit(plan.replace(rounds=deadline))
    prepared(daemon, tmp_path)
    bundle = tmp_path / "bundle"
    line = Line(daemon.url, "north", WAIT)
    assert fetch(line, places(tmp_path, "north"), bundle, daemon.url) is not None
    work(bundle, places(tmp_path, "north"))
    memory = places(tmp_path, "north").memories()
    assert [m.pending() is not None for m in memory.values()] == [True]
    assert daemon.wait(daemon.status().runs[0].run, 20.0).state == "failed"
    with pytest.raises(AnabranchError, match="AB-718"):
        deliver(
            Line("http://127.0.0.1:1", "north", JoinOptions(patience=0.1)),
            places(tmp_path, "north"),
            bundle,
        )
    assert bundle.exists()  # nobody was reached: it is kept
    deliver(Line(daemon.url, "north", WAIT), places(tmp_path, "north"), bundle)
    assert not bundle.exists()
