"""Who vouches for a new key: a federation, a device's maker, or nobody but the coordinator.

Secure aggregation and the count behind a privacy claim rest on the members being real. Among
institutions the federation key vouches for them. For devices a platform can: it signs a statement
about the device and the key that was made on it. Anabranch speaks to no platform by itself; a
deployment plugs an `Attestation` in.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from anabranch.errors import AnabranchError
from anabranch.fleet.enrolment import Application

__all__ = ["Attestation", "ServerTrust", "require_attested", "server_trust"]


class Attestation(Protocol):
    """Judges what a device says of itself."""

    def vouches(self, application: Application, statement: bytes) -> bool:
        """Whether the statement is of a real device, fresh, and about the application's key.

        Args:
            application: name, key and proofs; its ``claim()`` is what a platform should sign.
            statement: opaque bytes of the platform, as the device sent them.
        """
        ...


class ServerTrust(StrEnum):
    """What members must believe of the coordinator, as reports say it."""

    HONEST_BUT_CURIOUS = "honest-but-curious server: it could invent clients"
    FEDERATED = "members are vouched for by a federation key that the coordinator does not hold"
    ATTESTED = "members are devices that their platform vouches for"


def server_trust(*, federation_apart: bool, attestation: Attestation | None) -> ServerTrust:
    """What the trust line of a deployed run may say of its members.

    Args:
        federation_apart: the federation key lies where the coordinator cannot reach it.
        attestation: what judges new devices.

    >>> server_trust(federation_apart=False, attestation=None).value
    'honest-but-curious server: it could invent clients'
    """
    if federation_apart:
        return ServerTrust.FEDERATED
    return ServerTrust.ATTESTED if attestation is not None else ServerTrust.HONEST_BUT_CURIOUS


def require_attested(attestation: Attestation, application: Application, statement: bytes) -> None:
    """Refuse a device that nobody vouches for.

    Raises:
        AnabranchError: AB-733.
    """
    if not attestation.vouches(application, statement):
        raise AnabranchError(
            "AB-733",
            "the device's statement about itself does not vouch for its key.",
            fix="use the app as its store delivers it, on a device that the platform supports.",
            kept="Nobody was enrolled.",
        )
