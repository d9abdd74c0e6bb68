"""Members: revocation and suspension work with the next question; nobody else is let in."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from anabranch.errors import AnabranchError
from anabranch.fleet.enrolment import apply, parse_token
from anabranch.fleet.folder import FleetFolder
from anabranch.fleet.identity import Identity
from anabranch.fleet.roster import ROSTER_FILE, Role, sign_roster, write_roster


def enrolled(fleet: FleetFolder, name: str) -> Identity:
    client = Identity.generate()
    token = parse_token(fleet.invite(fleet.coordinator().fingerprint, 3600))
    fleet.enrolments().redeem(apply(token, client, name))
    return client


def test_from_a_token_to_a_member(tmp_path: Path) -> None:
    fleet = FleetFolder.create(tmp_path / "f", "hospitals", "https://c.example")
    va, hu = enrolled(fleet, "va"), enrolled(fleet, "hu")
    members = fleet.membership()
    with pytest.raises(AnabranchError, match="AB-737"):
        members.member(va.public_key.hex())
    admitted = fleet.admit(fleet.federation())
    assert {candidate.name for candidate in admitted} == {"va", "hu"}
    assert members.member(va.public_key.hex()).name == "va"  # the same object, without a restart
    assert members.member(hu.public_key.hex()).name == "hu"
    assert members.roster.version == 1
    assert fleet.admit(fleet.federation()) == ()
    assert fleet.waiting() == ()


def test_revocation_works_at_once_and_for_good(tmp_path: Path) -> None:
    fleet = FleetFolder.create(tmp_path, "hospitals")
    va = enrolled(fleet, "va")
    fleet.admit(fleet.federation())
    members = fleet.membership()
    assert members.member(va.public_key.hex()).active
    fleet.publish(fleet.membership().roster.revoked("va", "lost"), fleet.federation())
    with pytest.raises(AnabranchError, match=r"AB-738.*lost"):
        members.member(va.public_key.hex())


def test_a_coordinator_suspends_without_the_federation(tmp_path: Path) -> None:
    federation = Identity.generate()
    fleet = FleetFolder.create(tmp_path, "hospitals", federation=federation.fingerprint)
    va = enrolled(fleet, "va")
    fleet.admit(federation)
    members, operator = fleet.membership(), fleet.membership()
    key = va.public_key.hex()
    assert members.member(key).name == "va"
    operator.suspend(key, "strange updates")
    with pytest.raises(AnabranchError, match=r"AB-738.*suspended: strange"):
        members.member(key)
    operator.resume(key)
    assert members.member(key).name == "va"


def test_a_roster_of_another_signer_lets_nobody_in(tmp_path: Path) -> None:
    fleet = FleetFolder.create(tmp_path, "hospitals")
    va = enrolled(fleet, "va")
    fleet.admit(fleet.federation())
    members = fleet.membership()
    roster = members.roster
    write_roster(tmp_path / ROSTER_FILE, sign_roster(roster, Identity.generate()))
    with pytest.raises(AnabranchError, match="AB-735"):
        members.member(va.public_key.hex())
    (tmp_path / ROSTER_FILE).unlink()
    with pytest.raises(AnabranchError, match="AB-735"):
        members.member(va.public_key.hex())


def test_an_older_roster_is_not_taken(tmp_path: Path) -> None:
    fleet = FleetFolder.create(tmp_path, "hospitals")
    va = enrolled(fleet, "va")
    fleet.admit(fleet.federation())
    members = fleet.membership()
    old = (tmp_path / ROSTER_FILE).read_bytes()
    fleet.publish(members.roster.revoked("va"), fleet.federation())
    assert members.roster.version == 2
    (tmp_path / ROSTER_FILE).write_bytes(old)
    with pytest.raises(AnabranchError, match="AB-736"):
        members.member(va.public_key.hex())


def test_roles_are_kept_apart(tmp_path: Path) -> None:
    fleet = FleetFolder.create(tmp_path, "hospitals")
    auditor = Identity.generate().public_key.hex()
    fleet.publish(
        fleet.membership().roster.added("board", auditor, (Role.AUDITOR,)), fleet.federation()
    )
    assert fleet.membership().member(auditor, Role.AUDITOR).name == "board"
    with pytest.raises(AnabranchError, match=r"AB-737.*another role"):
        fleet.membership().member(auditor)


def test_an_unreadable_list_of_suspensions_lets_nobody_in(tmp_path: Path) -> None:
    fleet = FleetFolder.create(tmp_path, "hospitals")
    va = enrolled(fleet, "va")
    fleet.admit(fleet.federation())
    (tmp_path / "suspended.json").write_text("{")
    with pytest.raises(AnabranchError, match="AB-735"):
        fleet.membership().member(va.public_key.hex())


def test_the_federation_key_must_be_the_fleets(tmp_path: Path) -> None:
    kept = tmp_path / "safe" / "federation.key"
    Identity.generate().save(kept)
    fleet = FleetFolder.create(tmp_path / "f", "x", federation=Identity.load(kept).fingerprint)
    assert not fleet.signs_its_roster
    assert fleet.federation(kept).fingerprint == fleet.settings.federation
    other = tmp_path / "other.key"
    Identity.generate().save(other)
    with pytest.raises(AnabranchError, match="AB-735"):
        fleet.federation(other)
    with pytest.raises(AnabranchError, match="AB-730"):
        fleet.federation()


def test_two_candidates_of_one_name_are_not_both_admitted(tmp_path: Path) -> None:
    fleet = FleetFolder.create(tmp_path, "x")
    enrolled(fleet, "va")
    enrolled(fleet, "va")
    assert len(fleet.admit(fleet.federation())) == 1
    assert len(fleet.waiting()) == 1


def test_one_candidate_is_admitted_alone(tmp_path: Path) -> None:
    fleet = FleetFolder.create(tmp_path, "x")
    va, other = enrolled(fleet, "va"), enrolled(fleet, "va")
    by_key = {candidate.key: candidate for candidate in fleet.waiting()}
    assert fleet.admit_one(by_key[va.public_key.hex()], fleet.federation())
    assert fleet.admit_one(by_key[va.public_key.hex()], fleet.federation())  # again: no change
    assert not fleet.admit_one(by_key[other.public_key.hex()], fleet.federation())
    assert fleet.membership().roster.version == 1
    assert [entry.name for entry in fleet.membership().roster.active()] == ["va"]
    fleet.publish(fleet.membership().roster.revoked("va"), fleet.federation())
    assert not fleet.admit_one(by_key[va.public_key.hex()], fleet.federation())


def test_a_fleet_is_made_once(tmp_path: Path) -> None:
    FleetFolder.create(tmp_path, "x")
    with pytest.raises(AnabranchError, match="AB-730"):
        FleetFolder.create(tmp_path, "x")
    with pytest.raises(AnabranchError, match="AB-730"):
        FleetFolder(tmp_path / "absent")
    with pytest.raises(ValidationError):
        FleetFolder.create(tmp_path / "y", "Not A Name")
