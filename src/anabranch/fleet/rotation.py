"""Rotation: the federation key names the key that follows it.

Members pin the federation key at enrolment. When it shall be replaced, because it is old, because
the people who hold it change, or because somebody suspects it, it signs a statement that names its
successor. The successor signs the statement too: nobody can be named against their will. The
statements travel with the roster, oldest first, so that a member which was away for several of
them can follow the chain from the key that it pinned to the one that signs today.

A statement proves that the holder of the old key wanted the change. It is no remedy for an old key
that somebody else holds: that one can name a successor of its own, and whoever has not yet heard of
the true one cannot tell them apart. Then every member has to enrol again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pydantic import Field

from anabranch.canonical import Document, canonical_bytes
from anabranch.errors import AnabranchError
from anabranch.fleet.identity import PUBLIC_KEY, SIGNATURE, Identity, fingerprint, verify
from anabranch.values import Value

__all__ = ["MOST_ROTATIONS", "Rotation", "SignedRotation", "follow", "sign_rotation"]

MOST_ROTATIONS: Final = 64
"""Statements that travel with a roster; a fleet that needs more enrols its members again."""

_CONTEXT: Final = "rotation"


class Rotation(Value):
    """One federation key retires, another takes its place."""

    fleet: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    """Name of the fleet."""
    retired: str = Field(pattern=PUBLIC_KEY)
    """Public key that signs no further roster."""
    successor: str = Field(pattern=PUBLIC_KEY)
    """Public key that signs from now on."""
    reason: str = Field(default="", max_length=500)
    """Why; members read it."""

    def document(self) -> Document:
        """What both keys sign."""
        document: Document = self.model_dump(mode="json")
        return document


class SignedRotation(Value):
    """A rotation and the signatures of both keys."""

    rotation: Rotation
    by_retired: str = Field(pattern=SIGNATURE)
    """Over the canonical JSON of ``rotation``, context ``rotation``, by the retired key."""
    by_successor: str = Field(pattern=SIGNATURE)
    """The same by its successor."""

    def holds(self, fleet: str) -> bool:
        """Whether both keys signed it, for this fleet."""
        message = canonical_bytes(self.rotation.document())
        signed = (
            (self.rotation.retired, self.by_retired),
            (self.rotation.successor, self.by_successor),
        )
        return self.rotation.fleet == fleet and all(
            verify(bytes.fromhex(key), _CONTEXT, message, bytes.fromhex(signature))
            for key, signature in signed
        )


def sign_rotation(
    fleet: str, retired: Identity, successor: Identity, reason: str = ""
) -> SignedRotation:
    """The statement that ``successor`` takes the place of ``retired``.

    Raises:
        AnabranchError: AB-735 they are one key.
    """
    if retired.public_key == successor.public_key:
        raise AnabranchError(
            "AB-735",
            f"the federation key {retired.fingerprint} cannot follow itself.",
            fix="make a new key with `anabranch roster key` and give that one.",
        )
    rotation = Rotation(
        fleet=fleet,
        retired=retired.public_key.hex(),
        successor=successor.public_key.hex(),
        reason=reason,
    )
    message = canonical_bytes(rotation.document())
    return SignedRotation(
        rotation=rotation,
        by_retired=retired.sign(_CONTEXT, message).hex(),
        by_successor=successor.sign(_CONTEXT, message).hex(),
    )


def follow(pinned: str, rotations: Iterable[SignedRotation], fleet: str) -> str:
    """Fingerprint of the key that counts today for somebody who pinned ``pinned``.

    Statements about other keys are passed over; one that does not hold ends the chain, so that
    what lies behind it counts for nobody.

    Args:
        pinned: fingerprint of the federation key that is trusted.
        rotations: oldest first.
        fleet: name of the fleet that they must speak of.
    """
    for signed in rotations:
        if fingerprint(bytes.fromhex(signed.rotation.retired)) != pinned:
            continue
        if not signed.holds(fleet):
            break
        pinned = fingerprint(bytes.fromhex(signed.rotation.successor))
    return pinned
