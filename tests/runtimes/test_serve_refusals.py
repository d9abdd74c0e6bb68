"""What a daemon, its control routes and a member refuse: each with a code, at the right end."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from served_fleets import AGREES, NAMES, ServedFleet, sites_plan, write_sites

from anabranch.api.serve import Daemon, ServeOptions
from anabranch.client.policy import ClientPolicy, WorkRules
from anabranch.errors import AnabranchError
from anabranch.fleet.folder import FleetFolder
from anabranch.fleet.identity import Identity
from anabranch.plan import Plan
from anabranch.runtimes.http import FleetServer, HttpLimits, JoinOptions, Tls
from anabranch.runtimes.http.client.line import Line
from anabranch.runtimes.http.client.operator import Operator
from anabranch.runtimes.http.client.options import Credentials
from anabranch.runtimes.http.client.places import MemberPlaces
from anabranch.runtimes.http.messages import SessionRequest, TaskOffer
from anabranch.runtimes.http.statements import SESSION, session_claim

QUICK = JoinOptions(wait=0.2, timeout=5.0, patience=1.0)


@pytest.fixture
def sites(tmp_path: Path) -> Path:
    return write_sites(tmp_path / "sites")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    limits = HttpLimits(poll_seconds=1.0)
    made = Daemon(ServeOptions(tmp_path / "store", clients=NAMES, limits=limits))
    yield made
    made.close()


def code(response: httpx.Response) -> tuple[int, str]:
    assert b"Traceback" not in response.content
    return response.status_code, response.json()["code"]


def changed(plan: Plan, **tables: object) -> Plan:
    return plan.replace(**tables)


def test_a_plan_about_persons_needs_protection_or_a_reason(daemon: Daemon, sites: Path) -> None:
    plan = sites_plan(sites, 2)
    with pytest.raises(AnabranchError, match="AB-765"):
        daemon.submit(plan.replace(unprotected=""))
    assert daemon.submit(plan).startswith("sites-")


def test_a_plan_that_others_cannot_run_is_not_served(daemon: Daemon, sites: Path) -> None:
    plan = sites_plan(sites, 2)
    data = plan.data
    for wrong in (
        data.replace(holdout_fraction=0.1),
        data.replace(partition={"kind": "iid", "clients": 3}),
        data.replace(source="arrays", path=""),
    ):
        with pytest.raises(AnabranchError, match="AB-764"):
            daemon.submit(plan.replace(data=wrong))


def test_a_run_needs_clients(tmp_path: Path, sites: Path) -> None:
    fleet = FleetFolder.create(tmp_path / "fleet", "empty")
    daemon = Daemon(ServeOptions(tmp_path / "store", fleet.path))
    try:
        with pytest.raises(AnabranchError, match="AB-769"):
            daemon.submit(sites_plan(sites, 2))
    finally:
        daemon.close()


def test_one_daemon_a_store(daemon: Daemon, tmp_path: Path) -> None:
    with pytest.raises(AnabranchError, match="AB-768"):
        Daemon(ServeOptions(tmp_path / "store"))


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.org", ""])
def test_beyond_loopback_needs_tls_and_a_roster(host: str, tmp_path: Path) -> None:
    with pytest.raises(AnabranchError, match="AB-710"):
        FleetServer(host=host, directory=tmp_path)
    with pytest.raises(AnabranchError, match="AB-750"):
        Tls(tmp_path / "no.crt", tmp_path / "no.key").context()


def test_control_needs_the_operators_token(daemon: Daemon, tmp_path: Path) -> None:
    token = json.loads((tmp_path / "store" / "served" / "control.json").read_text())["token"]
    assert (tmp_path / "store" / "served" / "control.json").stat().st_mode & 0o077 == 0
    with httpx.Client(base_url=f"{daemon.url}/control/v1") as http:
        for given in ("", "Bearer x", "Bearer " + "0" * 64, f"bearer {token}x", token):
            for method, path in (("GET", "/status"), ("POST", "/runs"), ("POST", "/drain")):
                headers = {"Authorization": given}
                assert code(http.request(method, path, headers=headers)) == (401, "AB-760")
        good = {"Authorization": f"Bearer {token}"}
        assert http.get("/status", headers=good).json()["runs"] == []
        assert code(http.post("/runs", headers=good, content=b"{}")) == (400, "AB-717")
        body = json.dumps({"plan": "schema = 1"}).encode()
        assert code(http.post("/runs", headers=good, content=body))[1].startswith("AB-1")
        assert code(http.post("/runs/none/stop", headers=good))[1] == "AB-771"


def test_a_drained_daemon_takes_no_plans_and_goes_on_later(tmp_path: Path, sites: Path) -> None:
    options = ServeOptions(tmp_path / "store", clients=NAMES)
    daemon = Daemon(options)
    run = daemon.submit(sites_plan(sites, 2))
    with Operator(tmp_path / "store") as operator:
        assert operator.status().runs[0].state in ("waiting", "working")
        operator.drain()
        assert daemon.ended.wait(20.0)
    with pytest.raises(AnabranchError, match="AB-770"):
        daemon.submit(sites_plan(sites, 2))
    daemon.close()
    with pytest.raises(AnabranchError, match="AB-772"):
        Operator(tmp_path / "store")
    again = Daemon(options)
    try:
        assert [status.run for status in again.status().runs] == [run]
    finally:
        again.close()


def test_the_status_says_for_whom_and_until_when(daemon: Daemon, sites: Path) -> None:
    run = daemon.submit(sites_plan(sites, 2))
    deadline = time.monotonic() + 20
    while not daemon.status().runs[0].open:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    Line(daemon.url, "north", QUICK).contact([])
    status = daemon.status().runs[0]
    assert (status.run, status.state) == (run, "waiting")
    assert {w.client for w in status.open[0].waiting} == set(NAMES)
    assert {w.client for w in status.open[0].waiting if w.fetched} == {"north"}
    assert {w.client for w in status.open[0].waiting if w.silent_milliseconds < 0} >= {"west"}
    assert 0 < status.open[0].milliseconds <= 3_600_000
    assert "north" in status.reason


class TestSessions:
    """Who is at the door."""

    @pytest.fixture
    def fleet(self, tmp_path: Path) -> FleetFolder:
        made = FleetFolder.create(tmp_path / "fleet", "small")
        self.identity = Identity.generate()
        roster = made.membership().roster.added("a", self.identity.public_key.hex())
        made.publish(roster, made.federation())
        return made

    @pytest.fixture
    def server(self, fleet: FleetFolder, tmp_path: Path) -> Iterator[FleetServer]:
        served = FleetServer(members=fleet, directory=tmp_path / "spool")
        yield served
        served.close()

    def line(self, server: FleetServer, fleet: FleetFolder, name: str = "a") -> Line:
        credentials = Credentials(self.identity, fleet.coordinator().public_key)
        return Line(server.url, name, QUICK, credentials)

    def test_a_member_is_let_in_and_nobody_else(
        self, server: FleetServer, fleet: FleetFolder
    ) -> None:
        assert self.line(server, fleet).hello().identities
        assert self.line(server, fleet).contact([]).task is None
        with pytest.raises(AnabranchError, match="AB-756"):
            self.line(server, fleet, "b").contact([])
        with pytest.raises(AnabranchError, match="AB-756"):
            Line(server.url, "a", QUICK).hello()
        self.identity = Identity.generate()
        with pytest.raises(AnabranchError, match="AB-756"):
            self.line(server, fleet).contact([])

    def test_another_coordinator_is_noticed(self, server: FleetServer) -> None:
        credentials = Credentials(self.identity, Identity.generate().public_key)
        with pytest.raises(AnabranchError, match="AB-757"):
            Line(server.url, "a", QUICK, credentials).hello()
        with pytest.raises(AnabranchError, match="AB-756"):  # the claim names the pinned key
            Line(server.url, "a", QUICK, credentials).contact([])

    def test_a_suspended_member_is_out_at_its_next_request(
        self, server: FleetServer, fleet: FleetFolder
    ) -> None:
        line = self.line(server, fleet)
        line.contact([])
        fleet.membership().suspend(self.identity.public_key.hex(), "lost laptop")
        with pytest.raises(AnabranchError, match="AB-738"):
            line.contact([])
        with pytest.raises(AnabranchError, match="AB-738"):
            self.line(server, fleet).contact([])
        fleet.membership().resume(self.identity.public_key.hex())
        self.line(server, fleet).contact([])

    def test_a_challenge_counts_once_and_requests_need_a_session(
        self, server: FleetServer, fleet: FleetFolder
    ) -> None:
        with httpx.Client(base_url=f"{server.url}/v1") as http:
            number = http.post("/challenge").json()["challenge"]
            key = fleet.coordinator().public_key.hex()
            claim = session_claim("a", number, "00" * 32, key)
            request = SessionRequest(
                client="a",
                challenge=number,
                nonce="00" * 32,
                signature=self.identity.sign(SESSION, claim).hex(),
            ).model_dump_json()
            assert http.post("/session", content=request).status_code == 200
            assert code(http.post("/session", content=request)) == (403, "AB-756")
            for path in ("/tasks", "/blobs/" + "0" * 64, "/roster", "/uploads/" + "0" * 32):
                assert code(http.get(path, params={"client": "a"})) == (401, "AB-755")
                bearer = {"Authorization": "Bearer " + "0" * 64}
                assert code(http.get(path, headers=bearer)) == (401, "AB-755")

    def test_an_old_session_is_renewed_by_itself(self, fleet: FleetFolder, tmp_path: Path) -> None:
        limits = HttpLimits(session_seconds=0.05, poll_seconds=0.0)
        server = FleetServer(members=fleet, directory=tmp_path / "other", limits=limits)
        try:
            line = self.line(server, fleet)
            for _ in range(3):
                assert line.contact([]).task is None
                time.sleep(0.06)
        finally:
            server.close()


OFFER = TaskOffer(
    task="0" * 32, kind="train", round=1, broadcast="0" * 64, bytes=0, run="r", contract="1" * 64
)


def test_data_that_change_under_a_client_are_noticed(tmp_path: Path, sites: Path) -> None:
    site = sites / "north.csv"
    places = MemberPlaces("north", site, tmp_path / "home")
    line = Line("http://127.0.0.1:1", "north", JoinOptions(patience=0.0))
    for change in (lambda: site.write_text("age\n1\n"), site.unlink):
        with pytest.raises(AnabranchError, match="AB-718"):
            places.place(OFFER, line)  # so far it only fails to fetch the contract
        change()
        with pytest.raises(AnabranchError, match="AB-763"):
            places.place(OFFER, line)
        places = MemberPlaces("north", site, tmp_path / "home")


def test_a_site_whose_policy_says_no_declines_and_the_run_goes_on(tmp_path: Path) -> None:
    fleet = ServedFleet(tmp_path / "f")
    try:
        fleet.start_daemon()
        for name in NAMES:
            strict = ClientPolicy(work=WorkRules(max_rounds=1), contract=AGREES.contract)
            fleet.start_client(name, strict if name == "east" else AGREES)
        fleet.until(lambda status: len(fleet.members()) == len(NAMES))
        from served_fleets import PLAN

        run = fleet.submit(PLAN.format(sites=fleet.sites, rounds=2, algorithm="fedavg"))
        status = fleet.ended(run)
    finally:
        fleet.close()
    assert status.state == "complete"
    declined = next(t for t in status.troubles if "AB-743" in t)
    assert declined.startswith("east: round 2: declined")
