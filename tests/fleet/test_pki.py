"""The trial authority in real TLS handshakes; what is wrong with a certificate is said in words."""

from __future__ import annotations

import os
import socket
import ssl
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from anabranch.errors import AnabranchError
from anabranch.fleet.pki import (
    certificate_problem,
    check_server_files,
    issue,
    make_authority,
)

HOSTS = ("localhost", "127.0.0.1")


def made(folder: Path, *, days: int = 30, now: datetime | None = None) -> Path:
    make_authority(folder, "trial", 365, now=now)
    issue(folder, folder, HOSTS, days, now=now)
    return folder


def handshake(server: Path, ca: Path, host: str) -> BaseException | None:
    """One TLS connection over a socket pair; what the client's side raised."""
    ours, theirs = socket.socketpair()
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(server / "server.crt", server / "server.key")

    def serve() -> None:
        try:
            with theirs, serving.wrap_socket(theirs, server_side=True) as line:
                line.recv(1)
        except (ssl.SSLError, OSError):
            return  # the client turned away

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        context = ssl.create_default_context(cafile=ca / "ca.crt")
        with ours, context.wrap_socket(ours, server_hostname=host) as line:
            line.send(b"x")
        return None
    except ssl.SSLError as error:
        return error
    finally:
        thread.join()


@pytest.mark.parametrize("host", HOSTS)
def test_a_client_with_the_ca_trusts_the_server(tmp_path: Path, host: str) -> None:
    folder = made(tmp_path)
    assert handshake(folder, folder, host) is None
    check_server_files(folder / "server.crt", folder / "server.key", HOSTS)


def test_keys_are_for_their_owner_alone(tmp_path: Path) -> None:
    folder = made(tmp_path)
    for name in ("ca.key", "server.key"):
        assert stat.S_IMODE(os.stat(folder / name).st_mode) == 0o600


@pytest.mark.parametrize(
    ("case", "code", "words"),
    [
        ("other authority", "AB-740", "not trusted"),
        ("other host", "AB-740", "another name"),
        ("expired", "AB-741", "has expired; the clock"),
        ("not yet", "AB-741", "does not count yet; the clock"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, case: str, code: str, words: str) -> None:
    shift = {"expired": -200, "not yet": 200}.get(case, 0)
    now = datetime.now(UTC) + timedelta(days=shift)
    folder = tmp_path / "server"
    make_authority(folder, "trial", 900, now=datetime.now(UTC) - timedelta(days=300))
    issue(folder, folder, HOSTS, 30, now=now)
    ca = made(tmp_path / "other") if case == "other authority" else folder
    host = "elsewhere.example" if case == "other host" else "localhost"
    error = handshake(folder, ca, host)
    assert error is not None
    wrapped = RuntimeError("connection failed")
    wrapped.__cause__ = error
    problem = certificate_problem(wrapped, host)
    assert problem is not None
    assert problem.code == code
    assert words in problem.message


def test_other_troubles_are_not_blamed_on_the_certificate() -> None:
    assert certificate_problem(ConnectionRefusedError(), "localhost") is None


def test_the_server_looks_at_its_own_files(tmp_path: Path) -> None:
    folder, other = made(tmp_path / "a"), made(tmp_path / "b")
    key, certificate = folder / "server.key", folder / "server.crt"
    with pytest.raises(AnabranchError, match=r"AB-740.*not the key"):
        check_server_files(certificate, other / "server.key")
    with pytest.raises(AnabranchError, match=r"AB-740.*not a certificate"):
        check_server_files(key, certificate)
    with pytest.raises(AnabranchError, match=r"AB-740.*absent"):
        check_server_files(folder / "absent.crt", key)
    with pytest.raises(AnabranchError, match=r"AB-740.*not for 10\.0\.0\.1"):
        check_server_files(certificate, key, ["localhost", "10.0.0.1"])
    with pytest.raises(AnabranchError, match=r"AB-741.*counts from"):
        check_server_files(certificate, key, now=datetime.now(UTC) + timedelta(days=31))


def test_keys_in_use_are_not_replaced(tmp_path: Path) -> None:
    folder = made(tmp_path)
    before = (folder / "ca.key").read_bytes()
    with pytest.raises(AnabranchError, match="AB-730"):
        make_authority(folder, "trial", 365)
    with pytest.raises(AnabranchError, match="AB-730"):
        issue(folder, folder, HOSTS, 30)
    assert (folder / "ca.key").read_bytes() == before
    with pytest.raises(AnabranchError, match="AB-730"):
        issue(tmp_path / "absent", tmp_path / "new", HOSTS, 30)
