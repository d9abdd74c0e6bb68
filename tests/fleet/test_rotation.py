"""Rotation: who trusts a federation key trusts the key that it named, and nobody else's word."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.errors import AnabranchError
from anabranch.fleet import folder as fleet_folder
from anabranch.fleet.folder import FleetFolder
from anabranch.fleet.identity import Identity
from anabranch.fleet.roster import Roster, SignedRoster, read_roster, sign_roster
from anabranch.fleet.rotation import SignedRotation, follow, sign_rotation

KEYS = tuple(Identity.from_secret(bytes(31) + bytes([number])) for number in range(1, 7))
OLD, NEW, NEWER, OTHER = KEYS[:4]
ROSTER = Roster(fleet="f").added("va", "aa" * 32)
VECTOR = json.loads((Path(__file__).parents[1] / "vectors" / "membership.json").read_text("utf-8"))


def step(one: Identity, next_one: Identity) -> SignedRotation:
    return sign_rotation("f", one, next_one)


def test_the_successor_signs_for_those_who_pinned_the_old_key_or_the_new_one() -> None:
    signed = sign_roster(ROSTER, NEW, (step(OLD, NEW),))
    assert signed.verified(OLD.fingerprint) == ROSTER
    assert signed.verified(NEW.fingerprint) == ROSTER
    with pytest.raises(AnabranchError, match="AB-735"):
        signed.verified(OTHER.fingerprint)


def test_a_member_that_was_away_follows_several_steps() -> None:
    signed = sign_roster(ROSTER, NEWER, (step(OLD, NEW), step(NEW, NEWER)))
    for pinned in (OLD, NEW, NEWER):
        assert signed.verified(pinned.fingerprint) == ROSTER


def test_a_retired_key_signs_no_more() -> None:
    """Neither for who has followed, nor for who is shown the statement."""
    with pytest.raises(AnabranchError, match="AB-735"):
        sign_roster(ROSTER, OLD).verified(NEW.fingerprint)
    with pytest.raises(AnabranchError, match=r"AB-735.*named as its successor"):
        sign_roster(ROSTER, OLD, (step(OLD, NEW),)).verified(OLD.fingerprint)


def test_the_old_key_cannot_bring_back_who_has_followed() -> None:
    """Whoever stole the old key names a key of theirs; the new key's people do not listen."""
    stolen = sign_roster(ROSTER, OTHER, (step(OLD, OTHER),))
    with pytest.raises(AnabranchError, match="AB-735"):
        stolen.verified(NEW.fingerprint)
    both = sign_roster(ROSTER, OTHER, (step(OLD, NEW), step(OLD, OTHER)))
    with pytest.raises(AnabranchError, match="AB-735"):
        both.verified(OLD.fingerprint)


@pytest.mark.parametrize("field", ["by_retired", "by_successor"])
def test_both_keys_have_to_sign(field: str) -> None:
    true = step(OLD, NEW)
    forged = true.replace(**{field: getattr(step(OTHER, NEWER), field)})
    with pytest.raises(AnabranchError, match="AB-735"):
        sign_roster(ROSTER, NEW, (forged,)).verified(OLD.fingerprint)


def test_a_statement_of_another_fleet_does_not_count() -> None:
    elsewhere = sign_rotation("g", OLD, NEW)
    with pytest.raises(AnabranchError, match="AB-735"):
        sign_roster(ROSTER, NEW, (elsewhere,)).verified(OLD.fingerprint)


def test_what_lies_behind_a_broken_statement_counts_for_nobody() -> None:
    broken = step(OLD, NEW).replace(by_retired="00" * 64)
    assert follow(OLD.fingerprint, (broken, step(OLD, OTHER)), "f") == OLD.fingerprint


def test_a_key_cannot_follow_itself() -> None:
    with pytest.raises(AnabranchError, match="AB-735"):
        step(OLD, OLD)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=5), st.integers(0, 5))
def test_following_is_a_walk_over_what_was_signed(steps: list[tuple[int, int]], start: int) -> None:
    steps = [(one, other) for one, other in steps if one != other]
    place = start
    for one, other in steps:
        place = other if one == place else place
    chain = [step(KEYS[one], KEYS[other]) for one, other in steps]
    assert follow(KEYS[start].fingerprint, chain, "f") == KEYS[place].fingerprint


def test_the_vector_for_other_languages() -> None:
    signed = SignedRoster.model_validate(VECTOR["rotation"]["signed"])
    assert signed.rotations == (sign_rotation("hospitals", OLD, NEW, "five years old"),)
    assert signed.verified(VECTOR["rotation"]["pinned"]).fleet == "hospitals"
    assert signed.signer != VECTOR["rotation"]["pinned"]


# The folder of a fleet ------------------------------------------------------------------------


def apart(path: Path) -> FleetFolder:
    """A fleet whose key lies elsewhere, with one member."""
    made = FleetFolder.create(path, "f", federation=OLD.fingerprint)
    made.publish(made.membership().roster.added("va", "aa" * 32), OLD)
    return made


def test_a_fleet_follows_its_key_and_a_running_membership_too(tmp_path: Path) -> None:
    fleet = apart(tmp_path / "f")
    members = fleet.membership()
    assert members.roster == ROSTER
    assert fleet.rotate(NEW, OLD, "old") == ROSTER
    assert fleet.settings.federation == NEW.fingerprint
    fleet.publish(members.roster.added("hu", "bb" * 32), NEW)
    fleet.rotate(NEWER, NEW)
    assert members.roster.version == 2  # made before any rotation
    assert len(read_roster(tmp_path / "f" / "roster.json").rotations) == 2
    with pytest.raises(AnabranchError, match="AB-735"):
        fleet.publish_signed(sign_roster(members.roster.added("x", "cc" * 32), OLD))


def test_a_roster_signed_elsewhere_by_a_successor(tmp_path: Path) -> None:
    """Who signs elsewhere does not know the earlier statements; the fleet keeps them."""
    fleet = apart(tmp_path / "f")
    fleet.publish_signed(sign_roster(fleet.draft()[0], NEW, (step(OLD, NEW),)))
    fleet.publish_signed(sign_roster(fleet.draft()[0], NEWER, (step(NEW, NEWER),)))
    later = fleet.membership().roster.added("hu", "bb" * 32)
    fleet.publish_signed(sign_roster(later, NEWER))
    assert read_roster(tmp_path / "f" / "roster.json").verified(OLD.fingerprint) == later


def test_only_the_key_of_the_fleet_can_name_another(tmp_path: Path) -> None:
    fleet = apart(tmp_path / "f")
    with pytest.raises(AnabranchError, match="AB-735"):
        fleet.rotate(NEW, OTHER)
    with pytest.raises(AnabranchError, match="AB-735"):
        fleet.publish_signed(sign_roster(ROSTER, NEW, (step(OTHER, NEW),)))
    fleet.rotate(NEW, OLD)
    with pytest.raises(AnabranchError, match="AB-735"):
        fleet.rotate(OTHER, OLD)
    assert fleet.settings.federation == NEW.fingerprint


def test_a_rotation_that_was_broken_off_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed when the roster is out and the pin is not: members can follow already."""
    fleet = apart(tmp_path / "f")

    def killed(path: Path, settings: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fleet_folder, "_write_settings", killed)
        with pytest.raises(KeyboardInterrupt):
            fleet.rotate(NEW, OLD)
    assert fleet.settings.federation == OLD.fingerprint
    assert fleet.membership().roster == ROSTER
    with pytest.raises(AnabranchError, match="AB-735"):
        fleet.rotate(OTHER, OLD)  # the old key has named another one, and members may know
    for _ in range(2):
        fleet.rotate(NEW, OLD)
    assert fleet.settings.federation == NEW.fingerprint
    assert len(read_roster(tmp_path / "f" / "roster.json").rotations) == 1


def test_after_a_loss_nobody_can_follow(tmp_path: Path) -> None:
    fleet = apart(tmp_path / "f")
    fleet.rotate(NEW, OLD)
    fleet.rotate(NEWER)
    signed = read_roster(tmp_path / "f" / "roster.json")
    assert signed.rotations == ()
    assert signed.verified(NEWER.fingerprint) == ROSTER
    for pinned in (OLD, NEW):
        with pytest.raises(AnabranchError, match="AB-735"):
            signed.verified(pinned.fingerprint)


def test_a_key_in_the_folder_is_put_aside(tmp_path: Path) -> None:
    fleet = FleetFolder.create(tmp_path / "f", "f")
    old = fleet.federation()
    following = fleet.key_file.following()
    assert fleet.key_file.following() == following
    fleet.rotate(following, old)
    aside = fleet.key_file.retire(replaced=True)
    assert aside is not None
    assert Identity.load(aside) == old
    assert fleet.federation() == following
    assert fleet.signs_its_roster
    fleet.rotate(NEW, following)
    assert fleet.key_file.retire(replaced=False) is not None
    assert not fleet.signs_its_roster
    assert fleet.key_file.retire(replaced=False) is None
