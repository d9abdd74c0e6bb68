"""Certificates in front of a real server: each end is told what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from anabranch.errors import AnabranchError
from anabranch.fleet.folder import FleetFolder
from anabranch.fleet.pki import issue, make_authority
from anabranch.runtimes.http import JoinOptions, Route, Tls
from anabranch.runtimes.http.client.line import Line
from anabranch.runtimes.http.server.fleet_server import FleetServer

OPTIONS = JoinOptions(wait=0.1, timeout=5.0, patience=5.0)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FleetServer]:
    make_authority(tmp_path / "tls", "trial", 30)
    issue(tmp_path / "tls", tmp_path / "tls", ["127.0.0.1"], 30)
    tls = Tls(tmp_path / "tls" / "server.crt", tmp_path / "tls" / "server.key")
    made = FleetServer(members=FleetFolder.create(tmp_path / "fleet", "x"), tls=tls)
    yield made
    made.close()


def said_hello(url: str, ca: Path) -> str:
    line = Line(url, "va", OPTIONS, None, Route(ca=ca, environment=False))
    try:
        return str(line.send("GET", "/hello", based=False).status_code)
    finally:
        line.close()


def test_the_right_authority_is_trusted(server: FleetServer, tmp_path: Path) -> None:
    assert said_hello(server.url, tmp_path / "tls" / "ca.crt") == "200"


def test_another_authority_and_another_name_are_not(server: FleetServer, tmp_path: Path) -> None:
    make_authority(tmp_path / "other", "other", 30)
    with pytest.raises(AnabranchError, match=r"AB-740.*not trusted"):
        said_hello(server.url, tmp_path / "other" / "ca.crt")
    elsewhere = server.url.replace("127.0.0.1", "localhost")
    with pytest.raises(AnabranchError, match=r"AB-740.*localhost is for another name"):
        said_hello(elsewhere, tmp_path / "tls" / "ca.crt")


def test_a_server_does_not_start_with_an_expired_certificate(tmp_path: Path) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=40)
    make_authority(tmp_path / "tls", "trial", 365, now=long_ago)
    issue(tmp_path / "tls", tmp_path / "tls", ["127.0.0.1"], 30, now=long_ago)
    tls = Tls(tmp_path / "tls" / "server.crt", tmp_path / "tls" / "server.key")
    with pytest.raises(AnabranchError, match=r"AB-741.*clock of this machine"):
        FleetServer(members=FleetFolder.create(tmp_path / "fleet", "x"), tls=tls)
