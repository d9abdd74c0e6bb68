"""A coordinator and four sites as hosts of their own: network namespaces joined by a switch.

Links go down and come up again in the middle of a run; the model is the simulated one. Needs root
on Linux; skipped elsewhere.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from served_ends import end_of, plan_text, stored_end
from served_fleets import NAMES, ServedFleet, sites_plan

from anabranch.api import run_plan
from anabranch.runtimes.http.status import FleetStatus

HOSTS = ("daemon", *NAMES)
NEW_NET = 0x40000000  # CLONE_NEWNET of <sched.h>


def ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")


@dataclass
class Network:
    """Namespaces; `close` removes them and with them every link."""

    mark: str = field(default_factory=lambda: f"anab{os.getpid()}")
    made: list[str] = field(default_factory=list)

    def name(self, host: str) -> str:
        return f"{self.mark}-{host}"

    def build(self) -> None:
        for host in ("switch", *HOSTS):
            ip("netns", "add", self.name(host))
            self.made.append(self.name(host))
            ip("-n", self.name(host), "link", "set", "lo", "up")
        switch = self.name("switch")
        ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        ip("-n", switch, "link", "set", "bridge", "up")
        for number, host in enumerate(HOSTS, 1):
            own = self.name(host)
            ip(
                "-n",
                switch,
                "link",
                "add",
                host,
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                own,
            )
            ip("-n", switch, "link", "set", host, "master", "bridge")
            ip("-n", switch, "link", "set", host, "up")
            ip("-n", own, "addr", "add", f"10.77.0.{number}/24", "dev", "eth0")
            ip("-n", own, "link", "set", "eth0", "up")

    def pull(self, host: str, seconds: float) -> None:
        """Pull a host's cable for a while."""
        ip("-n", self.name("switch"), "link", "set", host, "down")
        time.sleep(seconds)
        ip("-n", self.name("switch"), "link", "set", host, "up")

    def enter(self, host: str) -> None:
        """The calling thread, and those that it starts, are on this host from now on."""
        with Path("/run/netns", self.name(host)).open() as file:
            _enter(file.fileno())

    @contextmanager
    def visiting(self, host: str) -> Iterator[None]:
        """The calling thread is on this host inside the block."""
        with Path("/proc/thread-self/ns/net").open() as home:
            self.enter(host)
            try:
                yield
            finally:
                _enter(home.fileno())

    def close(self) -> None:
        for name in self.made:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def _enter(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, NEW_NET):
        raise OSError(ctypes.get_errno(), "setns")


@dataclass
class HostedFleet(ServedFleet):
    """The daemon and its clients are on hosts of their own; its operator is where the daemon is."""

    network: Network = field(default_factory=Network)

    def status(self) -> FleetStatus | None:
        with self.network.visiting("daemon"):
            return super().status()

    def submit(self, text: str) -> str:
        with self.network.visiting("daemon"):
            return super().submit(text)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[HostedFleet]:
    if not sys.platform.startswith("linux") or shutil.which("ip") is None:
        pytest.skip("network namespaces need Linux and iproute2")
    network = Network()
    try:
        try:
            network.build()
        except OSError as error:
            pytest.skip(f"network namespaces cannot be made here: {error}")
        made = HostedFleet(tmp_path / "f", host="10.77.0.1", enter=network.enter, network=network)
        try:
            yield made
        finally:
            made.close()
    finally:
        network.close()


@pytest.mark.slow
def test_hosts_whose_cables_are_pulled_train_the_simulated_model(fleet: HostedFleet) -> None:
    rounds = 60
    simulated = run_plan(sites_plan(fleet.sites, rounds, "scaffold"), store=fleet.folder / "sim")
    wanted = stored_end(fleet.folder / "sim", simulated.id)
    fleet.start_daemon()
    fleet.start_clients()
    run = fleet.submit(plan_text(fleet, rounds))
    fleet.until(lambda s: any(r.round >= 5 for r in s.runs))
    at = fleet.run(run).round
    fleet.network.pull("north", 3.0)
    assert fleet.run(run).round <= at + 2  # it was waited for: the cable was needed
    fleet.until(lambda s: any(r.round >= at + 5 for r in s.runs))
    fleet.network.pull("daemon", 3.0)  # everybody is cut off
    assert fleet.ended(run).state == "complete"
    end = end_of(fleet, run)
    assert end.fates == (tuple((name, "merged") for name in sorted(NAMES)),) * rounds
    assert (end.model, end.control) == (wanted.model, wanted.control)


@pytest.mark.slow
def test_a_host_that_is_gone_for_good_costs_its_updates_and_nothing_else(
    fleet: HostedFleet,
) -> None:
    """Its cable is pulled while it works: nothing tells the coordinator that it has gone."""
    text = plan_text(fleet, 20).replace("[rounds]", "[rounds]\ndeadline = 4.0")
    fleet.start_daemon()
    fleet.start_clients()
    run = fleet.submit(text)
    fleet.until(lambda s: any(r.round >= 2 for r in s.runs))
    ip("-n", fleet.network.name("switch"), "link", "set", "west", "down")
    assert fleet.ended(run).state == "complete"
    end = stored_end(fleet.store, run)
    assert len(end.fates) == 20
    assert dict(end.fates[0])["west"] == "merged"
    last = dict(end.fates[-1])
    assert last.pop("west") in ("lost", "too late")
    assert set(last.values()) == {"merged"}
