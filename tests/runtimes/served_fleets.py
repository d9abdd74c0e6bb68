"""A fleet over TLS for the tests: a daemon that can be killed, and enrolled client processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np

from anabranch.api.serve import Daemon, ServeOptions
from anabranch.client.home import ClientHome
from anabranch.client.policy import ClientPolicy, ContractRules
from anabranch.client.vault import FileKey
from anabranch.disk import Faults, no_faults
from anabranch.errors import AnabranchError
from anabranch.fleet.folder import FleetFolder
from anabranch.fleet.pki import (
    CA_CERTIFICATE,
    SERVER_CERTIFICATE,
    SERVER_KEY,
    issue,
    make_authority,
)
from anabranch.learners.threads import use_one_thread
from anabranch.plan import Plan, parse_plan
from anabranch.runtimes.http import HttpLimits, JoinOptions, Route, Tls
from anabranch.runtimes.http.client.member import attend, enrol
from anabranch.runtimes.http.client.operator import Operator
from anabranch.runtimes.http.client.places import MemberPlaces
from anabranch.runtimes.http.messages import TaskOffer
from anabranch.runtimes.http.status import FleetStatus, RunStatus

NAMES = ("north", "south", "east", "west")
LIMITS = HttpLimits(poll_seconds=2.0)
DIRECT = Route(environment=False)
AGREES = ClientPolicy(contract=ContractRules(approve="never"))

PLAN = """
schema = 1
name = "sites"
seed = 11
unprotected = "synthetic rows of a test"
[data]
source = "folder"
path = "{sites}"
[data.table]
columns = [
    {{ name = "age", unit = "years" }},
    {{ name = "sex", type = "category", codes = {{ f = 0, m = 1 }} }},
    {{ name = "centre", type = "category" }},
]
target = {{ column = "ill", rule = "> 0" }}
[model]
name = "logistic"
[algorithm]
name = "{algorithm}"
[local]
batch_size = 8
learning_rate = 0.1
[rounds]
count = {rounds}
[runtime]
engine = "numpy"
kind = "inline"
"""
MASKED = """
[aggregation.weighting]
kind = "uniform"
[secure_aggregation]
bits = 64
bound = 8.0
dropout_share = 0.0
stage_seconds = 20.0
attempts = 10
"""


def write_sites(folder: Path) -> Path:
    """One CSV file a site, of different sizes and distributions."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(5)
    for number, name in enumerate(NAMES):
        lines = ["age,sex,centre,ill"]
        for row in range(40 + 10 * number):
            age = draw.normal(50 + number, 10)
            sex, ill = "fm"[int(draw.integers(2))], int(age + draw.normal(0, 5) > 52)
            lines.append(f"{age:.1f},{sex},{'ab'[row % 2]},{ill}")
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    return folder


def sites_plan(sites: Path, rounds: int, algorithm: str = "fedavg") -> Plan:
    return parse_plan(PLAN.format(sites=sites, rounds=rounds, algorithm=algorithm))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _serve(
    store: Path,
    folder: Path,
    port: int,
    certificates: Path,
    patience: float,
    limits: HttpLimits,
    faults: Faults,
    host: str,
    enter: Callable[[str], None],
) -> None:
    enter("daemon")
    use_one_thread()
    tls = Tls(certificates / SERVER_CERTIFICATE, certificates / SERVER_KEY)
    options = ServeOptions(
        store,
        folder,
        host=host,
        port=port,
        tls=tls,
        limits=limits,
        patience=patience,
        faults=faults,
    )
    daemon = Daemon(options)
    signal.signal(signal.SIGTERM, lambda number, frame: daemon.drain())
    while not daemon.ended.wait(0.1):
        pass
    daemon.close()


def _attend(
    token: str,
    site: Path,
    home: Path,
    ca: Path,
    policy: ClientPolicy,
    engine: str,
    die: int,
    faults: Faults,
    clock: Callable[[], float],
    screen: Path,
    enter: Callable[[str], None],
    route: Route,
) -> None:
    enter(screen.stem)
    use_one_thread()

    def told(offer: TaskOffer) -> None:
        if die and offer.round == die and offer.kind.value == "train":
            os.kill(os.getpid(), signal.SIGKILL)

    def shown(error: Exception) -> None:
        with screen.open("a") as file:
            file.write(f"{error}\n")

    options = JoinOptions(
        wait=2.0, timeout=10.0, patience=20.0, on_task=told, on_trouble=shown, faults=faults
    )
    route, key = replace(route, ca=ca), FileKey(home.with_suffix(".key"))
    try:
        with ClientHome(home, key, policy, data=[site], clock=clock, faults=faults) as opened:
            pins = opened.pins if opened.enrolled else enrol(token, opened, "", options, route)[0]
            places = MemberPlaces(pins.name, site, home / "runs", opened, engine)
            attend("", places, options, route)
    except AnabranchError as error:
        shown(error)


def _stay(who: str) -> None:
    """Every process stays where the test is."""


@dataclass
class ServedFleet:
    """Folders, certificates, a daemon process and client processes.

    Attributes:
        folder: for everything.
        patience: seconds that the preparation waits for sites.
        small_bytes: answers up to this are kept in rows; None as in production.
        homes: folders of clients that are not where the others' are.
        host: address of the daemon.
        enter: called at the start of each process, with ``daemon`` or the client's name.
    """

    folder: Path
    patience: float = 20.0
    daemon: BaseProcess | None = None
    clients: dict[str, BaseProcess] = field(default_factory=dict)
    small_bytes: int | None = None
    homes: dict[str, Path] = field(default_factory=dict)
    host: str = "127.0.0.1"
    enter: Callable[[str], None] = _stay

    def __post_init__(self) -> None:
        self.context = multiprocessing.get_context("fork")
        self.store, self.port = self.folder / "store", free_port()
        self.certificates = self.folder / "tls"
        make_authority(self.certificates, "test authority", 2)
        issue(self.certificates, self.certificates, [self.host, "localhost"], 2)
        self.url = f"https://{self.host}:{self.port}"
        self.fleet = FleetFolder.create(self.folder / "fleet", "test-fleet", self.url)
        self.sites = write_sites(self.folder / "sites")

    @property
    def authority(self) -> Path:
        return self.certificates / CA_CERTIFICATE

    def start_daemon(self, faults: Faults = no_faults, *, wait: bool = True) -> None:
        small = self.small_bytes if self.small_bytes is not None else LIMITS.small_bytes
        limits = replace(LIMITS, small_bytes=small)
        folders = (self.store, self.fleet.path, self.port, self.certificates)
        args = (*folders, self.patience, limits, faults, self.host, self.enter)
        self.daemon = self.context.Process(target=_serve, args=args, daemon=True)
        self.daemon.start()
        if wait:
            self.until(lambda status: bool(status.url))

    def until_up_or_dead(self) -> None:
        """Wait for a daemon that may be killed while it starts."""
        assert self.daemon is not None
        until = time.monotonic() + 30.0
        while self.daemon.is_alive() and self.status() is None:
            assert time.monotonic() < until
            time.sleep(0.05)
        if self.status() is None:  # the file may be there, and nobody behind it
            self.daemon.join(10.0)

    def kill_daemon(self) -> None:
        assert self.daemon is not None
        self.daemon.kill()
        self.daemon.join()

    def start_client(
        self,
        name: str,
        policy: ClientPolicy = AGREES,
        engine: str = "numpy",
        die: int = 0,
        faults: Faults = no_faults,
        clock: Callable[[], float] = time.time,
        route: Route = DIRECT,
    ) -> None:
        key = self.fleet.coordinator().fingerprint
        token = self.fleet.invite(key, 600, name=name)
        args = (
            token,
            self.sites / f"{name}.csv",
            self.home(name),
            self.authority,
            policy,
            engine,
            die,
            faults,
            clock,
            self.folder / f"{name}.screen",
            self.enter,
            route,
        )
        process = self.context.Process(target=_attend, args=args, daemon=True)
        process.start()
        self.clients[name] = process

    def restart_client(self, name: str) -> None:
        self.clients[name].kill()
        self.clients[name].join()
        self.start_client(name)

    def start_clients(self) -> None:
        for name in NAMES:
            self.start_client(name)
        self.until(lambda status: len(self.members()) == len(NAMES))

    def home(self, name: str) -> Path:
        """Where a client keeps what it must not lose."""
        return self.homes.get(name, self.folder / "homes" / name)

    def screen(self, name: str) -> str:
        """What the terminal of a site has shown."""
        path = self.folder / f"{name}.screen"
        return path.read_text() if path.exists() else ""

    def screens(self) -> dict[str, str]:
        """Of all sites."""
        return {name: self.screen(name) for name in NAMES}

    def members(self) -> list[str]:
        return [entry.name for entry in self.fleet.membership().roster.active()]

    def status(self) -> FleetStatus | None:
        try:
            with Operator(self.store) as operator:
                return operator.status()
        except AnabranchError:
            return None

    def until(self, holds: Callable[[FleetStatus], bool], seconds: float = 60.0) -> FleetStatus:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            status = self.status()
            if status is not None and holds(status):
                return status
            time.sleep(0.05)
        raise AssertionError(f"did not happen within {seconds} s: {self.status()}")

    def submit(self, text: str) -> str:
        with Operator(self.store) as operator:
            return operator.submit(text)

    def run(self, run: str) -> RunStatus:
        status = self.status()
        assert status is not None
        return next(r for r in status.runs if r.run == run)

    def ended(self, run: str, seconds: float = 180.0) -> RunStatus:
        over = ("complete", "failed", "stopped", "dead")
        self.until(lambda s: any(r.run == run and r.state in over for r in s.runs), seconds)
        return self.run(run)

    def close(self) -> None:
        for process in (*self.clients.values(), self.daemon):
            if process is not None and process.is_alive():
                process.kill()
                process.join()
