"""The roster: the signed list of who may take part.

A roster is versioned and each version names the digest of the one before it, so that a member can
notice when it is shown an older list or a second history. It is signed by the *federation key*,
which the coordinator need not hold: among institutions it stays offline with the people who decide
on membership, and its fingerprint is pinned at enrolment (`rotation` tells how it is replaced).
Whoever holds a roster can check every member's key without trusting the coordinator; secure
aggregation rests on that.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, ValidationError, model_validator

from anabranch.canonical import Document, canonical_bytes, digest_of
from anabranch.disk import explained, write_durably
from anabranch.errors import AnabranchError
from anabranch.fleet.identity import PUBLIC_KEY, SIGNATURE, Identity, fingerprint, verify
from anabranch.fleet.rotation import MOST_ROTATIONS, SignedRotation, follow
from anabranch.values import Value

__all__ = [
    "ROSTER_FILE",
    "MemberName",
    "Role",
    "Roster",
    "RosterEntry",
    "SignedRoster",
    "Status",
    "check_successor",
    "read_draft",
    "read_roster",
    "sign_roster",
    "write_roster",
]

ROSTER_FILE: Final = "roster.json"
_CONTEXT: Final = "roster"
_NONE_BEFORE: Final = "0" * 64

MemberName = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f/\\]+$")]
"""A member's name: text of one line that is no path."""


class Role(StrEnum):
    """What a member may do."""

    CLIENT = "client"  # is given tasks on its data
    EDGE = "edge"  # stands between clients and the coordinator
    AUDITOR = "auditor"  # may read records and receipts, is given no tasks
    CANARY = "canary"  # an auditor's client, openly so: it counts as corrupt in secure sums


class Status(StrEnum):
    """Whether a member's key counts."""

    ACTIVE = "active"
    REVOKED = "revoked"


class RosterEntry(Value):
    """One key of one member."""

    name: MemberName
    """Of the member; at most one of its keys is active."""
    key: str = Field(pattern=PUBLIC_KEY)
    """Ed25519 public key, hexadecimal."""
    roles: tuple[Role, ...] = (Role.CLIENT,)
    """What it may do."""
    status: Status = Status.ACTIVE
    """Whether the key counts."""
    since: int = Field(default=1, ge=1, lt=2**53)
    """The roster version that first listed the key."""
    reason: str = Field(default="", max_length=500)
    """Why it was revoked."""

    @property
    def public_key(self) -> bytes:
        """32 bytes."""
        return bytes.fromhex(self.key)

    @property
    def fingerprint(self) -> str:
        """Of the key, for people."""
        return fingerprint(self.public_key)

    @property
    def active(self) -> bool:
        """Whether the key counts."""
        return self.status is Status.ACTIVE


class Roster(Value):
    """One version of the list, ordered by name.

    >>> first = Roster(fleet="hospitals").added("va", "11" * 32)
    >>> first.version, first.revoked("va", "left").version
    (1, 2)
    """

    fleet: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    """Name of the fleet."""
    version: int = Field(default=0, ge=0, lt=2**53)
    """Grows by one with every change; 0 is the empty list that nobody signs."""
    previous: str = Field(default=_NONE_BEFORE, pattern=r"^[0-9a-f]{64}$")
    """Digest of the version before; zeros for the first."""
    entries: tuple[RosterEntry, ...] = ()
    """Every key that was ever listed; revoked ones stay."""

    @model_validator(mode="after")
    def _no_doubles(self) -> Roster:
        keys = [entry.key for entry in self.entries]
        names = [entry.name for entry in self.entries if entry.active]
        if len(set(keys)) < len(keys):
            raise ValueError("a key is listed twice")
        if len(set(names)) < len(names):
            raise ValueError("a name has two active keys")
        return self

    def document(self) -> Document:
        """What is signed and hashed."""
        document: Document = self.model_dump(mode="json")
        return document

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, hexadecimal."""
        return digest_of(self.document())

    def active(self) -> Iterator[RosterEntry]:
        """The entries whose keys count, by name."""
        return (entry for entry in self.entries if entry.active)

    def of_name(self, name: str) -> RosterEntry | None:
        """The active entry of a member."""
        return next((entry for entry in self.active() if entry.name == name), None)

    def of_key(self, key: str) -> RosterEntry | None:
        """The entry of a key, active or revoked."""
        return next((entry for entry in self.entries if entry.key == key), None)

    def added(self, name: str, key: str, roles: tuple[Role, ...] = (Role.CLIENT,)) -> Roster:
        """The next version with one more member.

        Raises:
            AnabranchError: AB-736 the name has an active key, or the key is listed already.
        """
        if self.of_name(name) is not None or self.of_key(key) is not None:
            what = f"{name!r} has an active key" if self.of_name(name) else "the key is listed"
            raise AnabranchError(
                "AB-736",
                f"the roster of {self.fleet!r} cannot add {name!r}: {what} already.",
                fix="revoke the old key first; a revoked key never comes back, so make a new one.",
            )
        version = max(self.version, 0) + 1
        new = RosterEntry(name=name, key=key, roles=roles, since=version)
        return self._next((*self.entries, new))

    def revoked(self, name: str, reason: str = "") -> Roster:
        """The next version in which the member's key no longer counts.

        Raises:
            AnabranchError: AB-737 no active member has this name.
        """
        gone = self.of_name(name)
        if gone is None:
            raise AnabranchError(
                "AB-737",
                f"the roster of {self.fleet!r} has no active member {name!r}.",
                fix="list the members with `anabranch roster list`.",
            )
        ended = gone.replace(status=Status.REVOKED, reason=reason)
        return self._next(tuple(ended if entry is gone else entry for entry in self.entries))

    def _next(self, entries: tuple[RosterEntry, ...]) -> Roster:
        ordered = tuple(sorted(entries, key=lambda entry: (entry.name, entry.since)))
        before = self.digest if self.version else _NONE_BEFORE
        # Entries were checked one by one; thousands of them are not checked again for each change.
        changes = {"version": self.version + 1, "previous": before, "entries": ordered}
        return self.model_copy(update=changes)


class SignedRoster(Value):
    """A roster and the federation's signature over it."""

    roster: Roster
    federation: str = Field(pattern=PUBLIC_KEY)
    """Public key of the federation."""
    signature: str = Field(pattern=SIGNATURE)
    """Over the canonical JSON of ``roster``, context ``roster``."""
    rotations: tuple[SignedRotation, ...] = Field(default=(), max_length=MOST_ROTATIONS)
    """How the fleet came to this federation key, oldest first."""

    @property
    def signer(self) -> str:
        """Fingerprint of the key that signed."""
        return fingerprint(bytes.fromhex(self.federation))

    def verified(self, pinned: str) -> Roster:
        """The roster, after checking that the pinned federation key signed it, or the one that
        it named as its successor.

        Args:
            pinned: fingerprint of the federation key.

        Raises:
            AnabranchError: AB-735 another key, also one that has retired, or a signature that does
                not fit.
        """
        key = bytes.fromhex(self.federation)
        wanted = follow(pinned, self.rotations, self.roster.fleet)
        if self.signer != wanted:
            heir = "" if wanted == pinned else f", which {pinned} named as its successor"
            raise _unsigned(f"it is signed by {self.signer} and not by {wanted}{heir}")
        message = canonical_bytes(self.roster.document())
        if not verify(key, _CONTEXT, message, bytes.fromhex(self.signature)):
            raise _unsigned("its signature does not fit its content")
        return self.roster


def sign_roster(
    roster: Roster, federation: Identity, rotations: tuple[SignedRotation, ...] = ()
) -> SignedRoster:
    """The roster, signed with the federation key; ``rotations`` tell how that key came about."""
    signature = federation.sign(_CONTEXT, canonical_bytes(roster.document()))
    return SignedRoster(
        roster=roster,
        federation=federation.public_key.hex(),
        signature=signature.hex(),
        rotations=rotations,
    )


def check_successor(known: Roster | None, shown: Roster) -> None:
    """Whether ``shown`` may replace the roster that was seen last.

    The same version must be the same roster, the next one must name it as its predecessor; later
    ones cannot be followed back and are trusted to the signature. Keys once listed stay listed, and
    revoked ones stay revoked.

    Raises:
        AnabranchError: AB-736 an older version, a fork, another fleet, or a revoked key that counts
            again.
    """
    if known is None:
        return
    if shown.fleet != known.fleet:
        raise _not_after(f"it is of fleet {shown.fleet!r}, not {known.fleet!r}")
    if shown.version < known.version:
        raise _not_after(f"version {shown.version} is older than {known.version}, seen before")
    if shown.version == known.version and shown != known:
        raise _not_after(f"there are two rosters of version {shown.version}")
    if shown.version == known.version + 1 and shown.previous != known.digest:
        raise _not_after(f"version {shown.version} does not follow from version {known.version}")
    now = {entry.key: entry for entry in shown.entries}
    for entry in known.entries:
        later = now.get(entry.key)
        if later is None or (later.active and not entry.active):
            raise _not_after(f"the key of {entry.name!r} was dropped or counts again")


def read_roster(path: Path) -> SignedRoster:
    """Read a signed roster; the signature is not checked here (`SignedRoster.verified`).

    Raises:
        AnabranchError: AB-735 it cannot be read or is not a roster.
    """
    try:
        return SignedRoster.model_validate_json(path.read_bytes())
    except OSError as error:
        raise _unsigned(f"{path} cannot be read ({error.strerror or error})") from error
    except ValidationError as error:
        raise _unsigned(f"{path} is not a signed roster") from error


def read_draft(path: Path) -> Roster:
    """Read an unsigned roster that was carried to the federation key.

    Raises:
        AnabranchError: AB-735 it cannot be read or is not a roster.
    """
    try:
        return Roster.model_validate_json(path.read_bytes())
    except OSError as error:
        raise _unsigned(f"{path} cannot be read ({error.strerror or error})") from error
    except ValidationError as error:
        raise _unsigned(f"{path} is not the draft of a roster") from error


def write_roster(path: Path, signed: SignedRoster) -> None:
    """Write a signed roster; readers see the old or the new one, never half of it.

    Raises:
        AnabranchError: AB-6xx from the disk.
    """
    with explained(path, "writing the roster"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, signed.model_dump_json(indent=1).encode() + b"\n", "roster")


def _unsigned(why: str) -> AnabranchError:
    return AnabranchError(
        "AB-735",
        f"the roster does not count: {why}.",
        fix="ask the people who hold the federation key for the signed roster and its fingerprint; "
        "compare the fingerprint over another channel.",
        kept="Nothing was sent.",
    )


def _not_after(why: str) -> AnabranchError:
    return AnabranchError(
        "AB-736",
        f"the roster cannot replace the one seen before: {why}.",
        fix="ask the people who hold the federation key which roster is theirs; do not take part "
        "until that is clear.",
        kept="The roster seen before is kept.",
    )
