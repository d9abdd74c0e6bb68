"""Enrolment: a token enrols one client, once, in time, under its name."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.errors import AnabranchError
from anabranch.fleet.enrolment import (
    Application,
    Candidate,
    Enrolments,
    Token,
    apply,
    check_pin,
    make_token,
    parse_token,
    token_text,
)
from anabranch.fleet.identity import Identity
from anabranch.fleet.roster import Role

COORDINATOR = Identity.from_secret(bytes(31) + b"\x02")


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def token(name: str = "") -> Token:
    return make_token("https://c.example:8443", COORDINATOR.fingerprint, name=name)


def test_a_token_survives_being_copied() -> None:
    made = token("va")
    text = token_text(made)
    broken = "\n".join(text[start : start + 30] for start in range(0, len(text), 30))
    assert parse_token(f"  {broken}\n") == made
    assert made.secret not in text
    assert made.secret not in repr(made)


@given(st.data())
def test_a_damaged_token_is_noticed(data: st.DataObject) -> None:
    text = token_text(Token(url="u", coordinator=COORDINATOR.fingerprint, secret="0" * 32))
    place = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.sampled_from("abcXYZ019-_.="))
    changed = text[:place] + letter + text[place + 1 :]
    if parse_or_none(changed) is not None:  # the last letter has unused bits
        assert parse_token(changed) == parse_token(text)
    assert parse_or_none(text[:place]) is None


def parse_or_none(text: str) -> Token | None:
    try:
        return parse_token(text)
    except AnabranchError as error:
        if error.code != "AB-732":
            raise
        return None


def test_a_token_enrols_once_and_the_same_client_may_ask_again(tmp_path: Path) -> None:
    desk, made, client = Enrolments(tmp_path / "e"), token(), Identity.generate()
    desk.invite(made, 3600, (Role.CLIENT, Role.AUDITOR))
    first = desk.redeem(apply(made, client, "va"))
    assert first == Candidate(
        name="va", key=client.public_key.hex(), roles=(Role.CLIENT, Role.AUDITOR)
    )
    again = Enrolments(tmp_path / "e")  # the coordinator restarted
    assert again.redeem(apply(made, client, "va")) == first
    assert list(again.candidates()) == [first]
    for other in (apply(made, Identity.generate(), "va"), apply(made, client, "hu")):
        with pytest.raises(AnabranchError, match="used before"):
            again.redeem(other)


def test_the_coordinators_clock_alone_decides(tmp_path: Path) -> None:
    clock, made = Clock(), token()
    desk = Enrolments(tmp_path, clock)
    desk.invite(made, 60)
    clock.now += 61
    with pytest.raises(AnabranchError, match=r"AB-733.*expired"):
        desk.redeem(apply(made, Identity.generate(), "va"))
    desk.collect()
    with pytest.raises(AnabranchError, match=r"AB-733.*not known"):
        desk.redeem(apply(made, Identity.generate(), "va"))


def test_who_was_enrolled_in_time_stays_enrolled(tmp_path: Path) -> None:
    clock, made, client = Clock(), token(), Identity.generate()
    desk = Enrolments(tmp_path, clock)
    desk.invite(made, 60)
    first = desk.redeem(apply(made, client, "va"))
    clock.now += 1000
    desk.collect()
    assert desk.redeem(apply(made, client, "va")) == first


def test_a_token_for_a_name_enrols_nobody_else(tmp_path: Path) -> None:
    desk, made = Enrolments(tmp_path), token("va")
    desk.invite(made, 60)
    client = Identity.generate()
    forged = apply(made.model_copy(update={"name": ""}), client, "hu")
    with pytest.raises(AnabranchError, match="another name"):
        desk.redeem(forged)
    assert desk.redeem(apply(made, client, "ignored")).name == "va"


def test_an_application_without_proof_is_refused(tmp_path: Path) -> None:
    desk, made, client = Enrolments(tmp_path), token(), Identity.generate()
    desk.invite(made, 60)
    good = apply(made, client, "va")
    stranger = Identity.generate()
    bad: list[Application] = [
        good.replace(proof="0" * 64),
        good.replace(signature="0" * 128),
        good.replace(name="hu"),
        good.replace(key=stranger.public_key.hex()),
        good.replace(token="0" * 16),
        apply(token(), client, "va"),
    ]
    for application in bad:
        with pytest.raises(AnabranchError, match=r"AB-733.*not known here, or"):
            desk.redeem(application)
    assert list(desk.candidates()) == []


def test_the_secret_is_not_kept_at_the_coordinator(tmp_path: Path) -> None:
    desk, made = Enrolments(tmp_path), token()
    desk.invite(made, 60)
    assert all(made.secret.encode() not in path.read_bytes() for path in tmp_path.iterdir())


def test_of_many_at_once_one_wins(tmp_path: Path) -> None:
    desk, made = Enrolments(tmp_path), token()
    desk.invite(made, 60)
    results: list[str] = []

    def redeem() -> None:
        try:
            results.append(desk.redeem(apply(made, Identity.generate(), "va")).key)
        except AnabranchError as error:
            results.append(error.code)

    threads = [threading.Thread(target=redeem) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results.count("AB-733") == 7
    assert [c.key for c in desk.candidates()] == [key for key in results if key != "AB-733"]


def test_a_withdrawn_token_is_unknown(tmp_path: Path) -> None:
    desk, made = Enrolments(tmp_path), token()
    desk.invite(made, 60)
    assert desk.withdraw(made.id)
    assert not desk.withdraw(made.id)
    with pytest.raises(AnabranchError, match="AB-733"):
        desk.redeem(apply(made, Identity.generate(), "va"))


def test_the_pinned_coordinator_and_no_other() -> None:
    check_pin(COORDINATOR.public_key, token().coordinator)
    with pytest.raises(AnabranchError, match="AB-734"):
        check_pin(Identity.generate().public_key, token().coordinator)
