"""Rosters: signed, versioned, never rolled back, forked or rewritten unnoticed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from anabranch.errors import AnabranchError
from anabranch.fleet.identity import Identity
from anabranch.fleet.roster import (
    Role,
    Roster,
    RosterEntry,
    SignedRoster,
    Status,
    check_successor,
    read_roster,
    sign_roster,
    write_roster,
)

FEDERATION = Identity.from_secret(bytes(31) + b"\x01")
A, B, C = ("aa" * 32, "bb" * 32, "cc" * 32)


def roster() -> Roster:
    return Roster(fleet="hospitals").added("va", A).added("hu", B, (Role.CLIENT, Role.AUDITOR))


def test_versions_are_a_chain() -> None:
    first = Roster(fleet="hospitals").added("va", A)
    second = first.added("hu", B)
    assert (first.version, first.previous) == (1, "0" * 64)
    assert (second.version, second.previous) == (2, first.digest)
    assert [entry.name for entry in second.entries] == ["hu", "va"]
    assert second.of_name("hu") == RosterEntry(name="hu", key=B, since=2)


def test_a_revoked_key_stays_and_its_name_may_get_another() -> None:
    replaced = roster().revoked("va", "stolen").added("va", C)
    old, new = replaced.of_key(A), replaced.of_name("va")
    assert old is not None
    assert (old.status, old.reason) == (Status.REVOKED, "stolen")
    assert new is not None
    assert new.key == C
    assert [entry.name for entry in replaced.active()] == ["hu", "va"]


@pytest.mark.parametrize(("name", "key"), [("va", C), ("new", A)])
def test_names_and_keys_are_not_listed_twice(name: str, key: str) -> None:
    with pytest.raises(AnabranchError, match="AB-736"):
        roster().added(name, key)


def test_a_revoked_key_cannot_come_back() -> None:
    with pytest.raises(AnabranchError, match="AB-736"):
        roster().revoked("va").added("va", A)


def test_nobody_can_be_revoked_who_is_not_there() -> None:
    with pytest.raises(AnabranchError, match="AB-737"):
        roster().revoked("nobody")


@pytest.mark.parametrize("name", ["", "a/b", "a\nb", "..\\x", "x" * 129])
def test_names_are_one_line_and_no_path(name: str) -> None:
    with pytest.raises(ValidationError):
        roster().added(name, C)


def test_the_federation_signs_and_everybody_can_check(tmp_path: Path) -> None:
    path = tmp_path / "fleet" / "roster.json"
    write_roster(path, sign_roster(roster(), FEDERATION))
    assert read_roster(path).verified(FEDERATION.fingerprint) == roster()


def test_another_signer_does_not_count() -> None:
    signed = sign_roster(roster(), Identity.generate())
    with pytest.raises(AnabranchError, match="AB-735"):
        signed.verified(FEDERATION.fingerprint)


@given(st.data())
def test_any_change_breaks_the_signature(data: st.DataObject) -> None:
    signed = sign_roster(roster(), FEDERATION)
    text = bytearray(signed.model_dump_json().encode())
    place = data.draw(st.integers(0, len(text) - 1))
    text[place] ^= 1 << data.draw(st.integers(0, 6))
    try:
        changed = SignedRoster.model_validate_json(bytes(text))
    except ValueError:
        return  # no roster at all
    try:
        assert changed.verified(FEDERATION.fingerprint) == roster()
    except AnabranchError as error:
        if error.code != "AB-735":
            raise


@pytest.mark.parametrize("content", [b"", b"[]", b'{"roster": {}}'])
def test_what_is_no_roster_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "roster.json"
    path.write_bytes(content)
    with pytest.raises(AnabranchError, match="AB-735"):
        read_roster(path)
    with pytest.raises(AnabranchError, match="AB-735"):
        read_roster(tmp_path / "absent.json")


def test_only_what_follows_may_replace_a_roster() -> None:
    first = Roster(fleet="hospitals").added("va", A)
    second, fork = first.added("hu", B), first.added("hu", C)
    check_successor(None, first)
    check_successor(first, first)
    check_successor(first, second)
    check_successor(first, second.revoked("va").added("va", C))  # versions may be missed
    third = second.revoked("va")
    rewritten = third.replace(entries=second.entries, version=4, previous=third.digest)
    forgotten = third.replace(entries=third.entries[:1], version=9)
    bad = [
        (second, first),
        (second, fork),
        (fork, second.revoked("va")),
        (third, rewritten),
        (third, forgotten),
        (first, second.replace(fleet="other")),
    ]
    for known, shown in bad:
        with pytest.raises(AnabranchError, match="AB-736"):
            check_successor(known, shown)
