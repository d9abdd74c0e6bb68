"""Who vouches for members, and what a report may then say."""

from __future__ import annotations

from pathlib import Path

import pytest

from anabranch.errors import AnabranchError
from anabranch.fleet.attestation import ServerTrust, require_attested, server_trust
from anabranch.fleet.enrolment import Application, apply, make_token, parse_token
from anabranch.fleet.folder import FleetFolder
from anabranch.fleet.identity import Identity, verify

PLATFORM = Identity.generate()


class SignedByPlatform:
    """A platform that signs the claims of its devices."""

    def vouches(self, application: Application, statement: bytes) -> bool:
        return verify(PLATFORM.public_key, "device", application.claim(), statement)


def test_a_device_is_vouched_for_with_its_own_key() -> None:
    token = make_token("u", PLATFORM.fingerprint)
    one, other = (apply(token, Identity.generate(), "phone") for _ in range(2))
    statement = PLATFORM.sign("device", one.claim())
    require_attested(SignedByPlatform(), one, statement)
    for application, shown in ((other, statement), (one, b"")):
        with pytest.raises(AnabranchError, match="AB-733"):
            require_attested(SignedByPlatform(), application, shown)


def test_a_fleet_of_devices_admits_attested_ones_only(tmp_path: Path) -> None:
    FleetFolder.create(tmp_path, "phones")
    fleet = FleetFolder(tmp_path, SignedByPlatform())
    token = parse_token(fleet.invite(fleet.coordinator().fingerprint, 60))
    application = apply(token, Identity.generate(), "phone")
    with pytest.raises(AnabranchError, match=r"AB-733.*vouch"):
        fleet.redeem(application)
    statement = PLATFORM.sign("device", application.claim())
    fleet.redeem(application.replace(statement=statement.hex()))
    assert [one.name for one in fleet.admit(fleet.federation())] == ["phone"]
    assert fleet.trust is ServerTrust.ATTESTED
    assert FleetFolder(tmp_path).trust is ServerTrust.HONEST_BUT_CURIOUS


def test_what_reports_say() -> None:
    nobody = server_trust(federation_apart=False, attestation=None)
    assert nobody is ServerTrust.HONEST_BUT_CURIOUS
    assert "honest-but-curious" in nobody.value
    assert server_trust(federation_apart=True, attestation=None) is ServerTrust.FEDERATED
    attested = server_trust(federation_apart=False, attestation=SignedByPlatform())
    assert attested is ServerTrust.ATTESTED
