"""What goes wrong at a site or a coordinator, over TLS: said at the right end, with a code."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from connect_proxy import ConnectProxy
from served_ends import pairs, plan_text
from served_fleets import AGREES, NAMES, ServedFleet

from anabranch.api.serve import Daemon, ServeOptions
from anabranch.client.home import ClientHome
from anabranch.client.vault import PassphraseKey
from anabranch.coordinator.store import Store
from anabranch.errors import AnabranchError
from anabranch.runtimes.http import JoinOptions, Route
from anabranch.runtimes.http.client.line import Line
from anabranch.runtimes.http.client.member import enrol

HASTY = JoinOptions(wait=0.1, timeout=5.0, patience=0.2)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[ServedFleet]:
    made = ServedFleet(tmp_path / "f")
    yield made
    made.close()


def fates_of(fleet: ServedFleet, run: str) -> list[dict[str, str]]:
    with Store.open(fleet.store, create=False) as store:
        return [dict(pairs(stored)) for stored in store.rounds(run) if stored.round]


@pytest.mark.slow
def test_clients_behind_a_forward_proxy_take_part(fleet: ServedFleet) -> None:
    proxy = ConnectProxy()
    try:
        fleet.start_daemon()
        behind = Route(proxy=proxy.url, environment=False)
        for name in NAMES:
            fleet.start_client(name, route=behind)
        fleet.until(lambda status: len(fleet.members()) == len(NAMES))
        run = fleet.submit(plan_text(fleet, 2))
        assert fleet.ended(run).state == "complete"
    finally:
        proxy.close()
    assert fates_of(fleet, run) == [dict.fromkeys(NAMES, "merged")] * 2
    assert len(proxy.asked) >= len(NAMES)  # TLS goes through it: the proxy reads nothing
    assert set(proxy.asked) == {f"CONNECT 127.0.0.1:{fleet.port}"}


def test_a_proxy_that_refuses_or_is_gone_is_named(fleet: ServedFleet) -> None:
    fleet.start_daemon()
    proxy = ConnectProxy(refuses="407 Proxy Authentication Required")
    for_site = Route(fleet.authority, proxy.url, environment=False)
    with pytest.raises(AnabranchError, match=r"AB-718.*ProxyError.*407"):
        Line(fleet.url, "east", HASTY, route=for_site).hello()
    proxy.close()
    with pytest.raises(AnabranchError, match=r"AB-718.*ConnectError"):
        Line(fleet.url, "east", HASTY, route=for_site).hello()
    nowhere = Route(fleet.authority, "socks9://proxy", environment=False)
    with pytest.raises(AnabranchError, match=r"AB-719.*not the address of a proxy"):
        Line(fleet.url, "east", HASTY, route=nowhere)


def test_tokens_that_are_wrong_or_too_old_are_refused_at_the_site(
    fleet: ServedFleet, tmp_path: Path
) -> None:
    fleet.start_daemon()
    key = fleet.fleet.coordinator().fingerprint
    route = Route(fleet.authority, environment=False)
    good = fleet.fleet.invite(key, 600, name="east")
    with ClientHome(tmp_path / "home", PassphraseKey(b"secret"), AGREES) as home:
        with pytest.raises(AnabranchError, match="AB-732"):  # cut off while it was copied
            enrol(good[:-4], home, "", HASTY, route)
        old = fleet.fleet.invite(key, 1, name="east")
        time.sleep(2.1)
        with pytest.raises(AnabranchError, match=r"AB-733.*expired"):
            enrol(old, home, "", HASTY, route)
        other = fleet.fleet.invite("-".join(["abcd"] * 8), 600, name="east")
        with pytest.raises(AnabranchError, match="AB-734"):  # for another coordinator
            enrol(other, home, "", HASTY, route)
        assert not home.enrolled
        assert enrol(good, home, "", HASTY, route)[1]
    assert fleet.members() == ["east"]


@pytest.mark.slow
def test_a_site_that_is_suspended_or_loses_its_data_says_why_and_the_run_goes_on(
    fleet: ServedFleet,
) -> None:
    fleet.start_daemon()
    fleet.start_clients()
    run = fleet.submit(plan_text(fleet, 4000))
    fleet.until(lambda s: any(r.round >= 1 for r in s.runs))
    (fleet.sites / "south.csv").unlink()
    entry = fleet.fleet.membership().roster.of_name("west")
    assert entry is not None
    fleet.fleet.membership().suspend(entry.key, "its key was lost")
    fleet.clients["west"].join(20.0)
    assert "AB-738" in fleet.screen("west")
    assert "its key was lost" in fleet.screen("west")
    assert "See docs/errors/AB-738.md" in fleet.screen("west")
    fleet.until(lambda s: "AB-763" in fleet.screen("south"))
    at = fleet.run(run).round
    status = fleet.until(lambda s: any(r.round >= at + 3 for r in s.runs))
    told = " ".join(status.runs[0].troubles)
    assert "AB-763" in told
    assert "suspended" in told or "revoked" in told
    last = fates_of(fleet, run)[-1]
    assert last == {"north": "merged", "east": "merged", "south": "failed", "west": "lost"}


def test_a_daemon_whose_port_is_taken_says_so_and_leaves_nothing_behind(
    fleet: ServedFleet,
) -> None:
    with socket.create_server(("127.0.0.1", fleet.port)):
        with pytest.raises(AnabranchError, match=f"AB-711.*{fleet.port}") as caught:
            Daemon(ServeOptions(fleet.store, fleet.fleet.path, port=fleet.port))
        assert caught.value.kept == "Nothing was started."
    fleet.start_daemon()  # the store is free, and so is the port
    assert fleet.status() is not None
