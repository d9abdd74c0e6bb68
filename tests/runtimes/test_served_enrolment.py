"""Enrolling over a real connection: wrong, late and second-hand tokens, and who must wait."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from anabranch.client.home import ClientHome
from anabranch.client.vault import PassphraseKey
from anabranch.errors import AnabranchError
from anabranch.fleet.enrolment import make_token, parse_token, token_text
from anabranch.fleet.folder import FleetFolder
from anabranch.fleet.identity import Identity
from anabranch.fleet.pki import issue, make_authority
from anabranch.fleet.roster import sign_roster
from anabranch.runtimes.http import JoinOptions, Route, Tls
from anabranch.runtimes.http.client import member
from anabranch.runtimes.http.client.member import attend, enrol
from anabranch.runtimes.http.client.places import MemberPlaces
from anabranch.runtimes.http.server.fleet_server import FleetServer
from anabranch.runtimes.http.versions import AMENDMENTS, FIRST, Span

OPTIONS = JoinOptions(wait=0.1, timeout=5.0, patience=5.0)
ENDED = replace(OPTIONS, running=lambda: False)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    make_authority(folder, "trial", 30)
    issue(folder, folder, ["127.0.0.1"], 30)
    return folder


class Site:
    """A fleet with its server, and one client's machine."""

    def __init__(self, folder: Path, tls: Path, federation: str = "") -> None:
        self.fleet = FleetFolder.create(folder / "fleet", "x", federation=federation)
        self.server = FleetServer(
            members=self.fleet, tls=Tls(tls / "server.crt", tls / "server.key")
        )
        self.home = ClientHome(folder / "home", PassphraseKey(b"secret"))
        self.route = Route(ca=tls / "ca.crt", environment=False)

    def token(self, seconds: int = 600, name: str = "va") -> str:
        key = self.fleet.coordinator().fingerprint
        made = make_token(self.server.url, key, name=name)
        return self.fleet.enrolments().invite(made, seconds)

    def enrol(self, token: str) -> bool:
        return enrol(token, self.home, "va", OPTIONS, self.route)[1]

    def attend(self) -> int:
        places = MemberPlaces(self.home.pins.name, None, self.home.path / "runs", self.home)
        return attend("", places, ENDED, self.route)

    def close(self) -> None:
        self.server.close()
        self.home.close()


@pytest.fixture
def site(tmp_path: Path, certificates: Path) -> Iterator[Site]:
    made = Site(tmp_path, certificates)
    yield made
    made.close()


def test_a_token_enrols_and_the_roster_is_learnt(site: Site) -> None:
    assert site.enrol(site.token())
    assert site.attend() == 0
    roster = site.home.roster
    assert roster is not None
    assert [entry.name for entry in roster.active()] == ["va"]
    assert site.home.pins.federation == site.fleet.settings.federation


def test_tokens_that_do_not_count_enrol_nobody(site: Site) -> None:
    late = site.token(seconds=1)
    stranger = token_text(make_token(site.server.url, site.fleet.coordinator().fingerprint))
    time.sleep(1.1)
    for token, why in ((late, "expired"), (stranger, "not known"), (late[:-5], "")):
        with pytest.raises(AnabranchError, match=rf"AB-73[23].*{why}"):
            site.enrol(token)
    assert not site.home.enrolled
    assert site.fleet.membership().roster.version == 0


def test_a_used_token_is_no_use_to_another(site: Site, tmp_path: Path) -> None:
    token = site.token()
    site.enrol(token)
    assert site.enrol(token)  # the same client, whose answer was lost
    with (
        ClientHome(tmp_path / "thief", PassphraseKey(b"x")) as thief,
        pytest.raises(AnabranchError, match=r"AB-733.*used before"),
    ):
        enrol(token, thief, "va", OPTIONS, site.route)
    assert len(site.fleet.membership().roster.entries) == 1


def test_another_server_than_the_tokens_is_not_told_anything(site: Site) -> None:
    token = token_text(make_token(site.server.url, Identity.generate().fingerprint))
    with pytest.raises(AnabranchError, match="AB-734"):
        site.enrol(token)
    assert not site.home.enrolled


def test_who_is_not_signed_yet_waits_and_who_is_revoked_is_out(
    tmp_path: Path, certificates: Path
) -> None:
    federation = Identity.generate()
    site = Site(tmp_path, certificates, federation.fingerprint)
    try:
        assert not site.enrol(site.token())
        with pytest.raises(AnabranchError, match=r"AB-73[57]|AB-756"):
            site.attend()
        roster, _ = site.fleet.draft()
        site.fleet.publish_signed(sign_roster(roster, federation))
        assert site.attend() == 0
        site.fleet.publish(site.fleet.membership().roster.revoked("va", "lost"), federation)
        with pytest.raises(AnabranchError, match=r"AB-738.*lost"):
            site.attend()
    finally:
        site.close()


def test_a_new_client_waits_until_a_roster_lists_it(
    tmp_path: Path, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(member, "_AGAIN", 0.1)
    federation = Identity.generate()
    site = Site(tmp_path, certificates, federation.fingerprint)
    asked: list[int] = []

    def running() -> bool:
        asked.append(len(asked))
        if len(asked) == 3:  # it was refused before
            site.fleet.publish_signed(sign_roster(site.fleet.draft()[0], federation))
        return site.home.roster is None

    try:
        assert not site.enrol(site.token())
        places = MemberPlaces("va", None, site.home.path / "runs", site.home)
        assert attend("", places, replace(OPTIONS, running=running), site.route) == 0
        assert site.home.roster is not None
        assert len(asked) >= 3
    finally:
        site.close()


def test_members_follow_the_federation_key_while_the_server_runs(site: Site) -> None:
    """A client that pinned the old key, and an invitation that was given out before."""
    assert site.enrol(site.token())
    assert site.attend() == 0
    pinned, old = site.home.pins.federation, site.fleet.federation()
    late = site.fleet.invite(site.fleet.coordinator().fingerprint, 600, name="hu")
    site.fleet.rotate(site.fleet.key_file.following(), old, "five years old")
    site.fleet.key_file.retire(replaced=True)
    assert site.attend() == 0
    assert site.home.pins.federation == site.fleet.settings.federation != pinned
    assert site.home.pins.retired == (pinned,)
    with ClientHome(site.home.path.parent / "late", PassphraseKey(b"secret")) as home:
        token = parse_token(late)
        token = token.replace(url=site.server.url)
        assert token.federation == pinned
        assert enrol(token_text(token), home, "", OPTIONS, site.route)[1]  # by the new key, at once
        attend("", MemberPlaces("hu", None, home.path / "runs", home), ENDED, site.route)
        assert home.pins.federation == site.fleet.settings.federation
    roster = site.fleet.membership().roster
    assert [entry.name for entry in roster.active()] == ["hu", "va"]


def test_a_client_of_an_older_version_is_not_told_of_rotations(site: Site) -> None:
    """It could not read them, and does not believe the new key: it has to enrol again."""
    assert site.enrol(site.token())
    assert site.attend() == 0
    site.fleet.rotate(site.fleet.key_file.following(), site.fleet.federation())
    older = replace(ENDED, speaks=Span(FIRST, AMENDMENTS))
    places = MemberPlaces("va", None, site.home.path / "runs", site.home)
    with pytest.raises(AnabranchError, match="AB-735"):
        attend("", places, older, site.route)
