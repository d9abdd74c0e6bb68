"""The folder of a fleet at its coordinator: the keys, the roster, the tokens, the address.

::

    FLEET/
      fleet.json        name, address, fingerprint of the federation key
      coordinator.key   signs tasks, fates and receipts
      federation.key    only where the coordinator signs its own roster (a trial)
      roster.json       signed
      suspended.json    keys that the coordinator keeps out on its own
      enrolments/       tokens, open and redeemed
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from pydantic import Field, ValidationError

from anabranch.disk import explained, write_durably
from anabranch.errors import AnabranchError
from anabranch.fleet.attestation import (
    Attestation,
    ServerTrust,
    require_attested,
    server_trust,
)
from anabranch.fleet.enrolment import Application, Candidate, Enrolments, make_token
from anabranch.fleet.identity import Identity
from anabranch.fleet.membership import Membership
from anabranch.fleet.roster import (
    ROSTER_FILE,
    Role,
    Roster,
    SignedRoster,
    check_successor,
    sign_roster,
    write_roster,
)
from anabranch.values import Value

__all__ = ["FleetFolder", "FleetSettings"]

_SETTINGS: Final = "fleet.json"
_COORDINATOR: Final = "coordinator.key"
_FEDERATION: Final = "federation.key"
_ENROLMENTS: Final = "enrolments"


class FleetSettings(Value):
    """What ``fleet.json`` says."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    url: str = Field(default="", max_length=2000)
    """Where clients find the coordinator; tokens carry it."""
    federation: str = Field(pattern=r"^[0-9a-f]{4}(-[0-9a-f]{4}){7}$")
    """Fingerprint of the key that signs rosters."""


class FleetFolder:
    """A fleet as the coordinator keeps it.

    Args:
        path: a folder that `create` made.

    Raises:
        AnabranchError: AB-730 there is no fleet.

    Attributes:
        path: the folder.
        settings: name, address and pinned federation key.
        attestation: judges devices before their keys become candidates; None where nobody does.
    """

    def __init__(self, path: Path, attestation: Attestation | None = None) -> None:
        self.path, self.attestation = Path(path), attestation
        try:
            content = (self.path / _SETTINGS).read_bytes()
            self.settings = FleetSettings.model_validate_json(content)
        except (OSError, ValidationError) as error:
            raise AnabranchError(
                "AB-730",
                f"{self.path} is no fleet: its {_SETTINGS} cannot be read.",
                fix="give the folder that `anabranch roster init` made.",
            ) from error

    @staticmethod
    def create(
        path: Path,
        name: str,
        url: str = "",
        *,
        federation: str = "",
        passphrase: bytes | None = None,
    ) -> FleetFolder:
        """Make a fleet with fresh keys.

        Args:
            path: the folder, made when absent.
            name: of the fleet: small letters, digits, dots and dashes.
            url: where clients will find the coordinator.
            federation: fingerprint of a federation key that is kept elsewhere. Left out, one is
                made inside the folder, and the coordinator admits whoever redeems a token.
            passphrase: protects the keys made here.

        Raises:
            AnabranchError: AB-730 there is a fleet or a key already, AB-6xx from the disk.
            ValidationError: the name or the fingerprint has the wrong form.
        """
        path = Path(path)
        own = None if federation else Identity.generate()
        pinned = federation or (own.fingerprint if own else "")
        settings = FleetSettings(name=name, url=url, federation=pinned)
        with explained(path, "making a fleet"):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        Identity.generate().save(path / _COORDINATOR, passphrase)
        if own is not None:
            own.save(path / _FEDERATION, passphrase)
        with explained(path, "making a fleet"):
            content = settings.model_dump_json(indent=1).encode() + b"\n"
            write_durably(path / _SETTINGS, content, "fleet")
        return FleetFolder(path)

    @property
    def signs_its_roster(self) -> bool:
        """Whether the federation key lies here too, so that members must trust the coordinator."""
        return (self.path / _FEDERATION).exists()

    def coordinator(self, passphrase: bytes | None = None) -> Identity:
        """The coordinator's identity."""
        return Identity.load(self.path / _COORDINATOR, passphrase)

    def federation(self, path: Path | None = None, passphrase: bytes | None = None) -> Identity:
        """The federation key: from ``path``, or from this folder.

        Raises:
            AnabranchError: AB-730 no key there, AB-735 it is not the fleet's key.
        """
        identity = Identity.load(path or self.path / _FEDERATION, passphrase)
        if identity.fingerprint != self.settings.federation:
            raise AnabranchError(
                "AB-735",
                f"{path} is the key {identity.fingerprint}, but the fleet {self.settings.name!r} "
                f"pins {self.settings.federation}.",
                fix="give the federation key of this fleet.",
            )
        return identity

    def membership(self) -> Membership:
        """Who may take part."""
        return Membership(self.path, self.settings.name, self.settings.federation)

    def enrolments(self) -> Enrolments:
        """The tokens."""
        return Enrolments(self.path / _ENROLMENTS)

    @property
    def trust(self) -> ServerTrust:
        """What reports say of the members, and of the coordinator that shows them."""
        return server_trust(
            federation_apart=not self.signs_its_roster, attestation=self.attestation
        )

    def redeem(self, application: Application) -> Candidate:
        """Take an application; a device must be vouched for where the fleet asks for that.

        Raises:
            AnabranchError: AB-733 the token does not count, or nobody vouches for the device;
                AB-6xx from the disk.
        """
        if self.attestation is not None:
            statement = bytes.fromhex(application.statement)
            require_attested(self.attestation, application, statement)
        return self.enrolments().redeem(application)

    def invite(
        self,
        coordinator: str,
        seconds: int,
        *,
        name: str = "",
        roles: tuple[Role, ...] = (Role.CLIENT,),
    ) -> str:
        """A one-time token for one client, as text.

        Args:
            coordinator: fingerprint of the coordinator's key.
            seconds: how long it may be redeemed.
            name: the name that the client must take; empty when it may choose.
            roles: what the member may do.
        """
        federation = self.settings.federation
        token = make_token(self.settings.url, coordinator, name=name, federation=federation)
        return self.enrolments().invite(token, seconds, roles)

    def waiting(self) -> tuple[Candidate, ...]:
        """Candidates whose keys no roster lists yet."""
        listed = {entry.key for entry in self.membership().roster.entries}
        return tuple(c for c in self.enrolments().candidates() if c.key not in listed)

    def publish(self, roster: Roster, federation: Identity) -> None:
        """Sign a roster and put it in force; it must follow the present one.

        Raises:
            AnabranchError: AB-736 it does not, AB-6xx from the disk.
        """
        present = self.membership().roster
        check_successor(present if present.version else None, roster)
        write_roster(self.path / ROSTER_FILE, sign_roster(roster, federation))

    def admit(self, federation: Identity) -> tuple[Candidate, ...]:
        """Sign a roster that lists every waiting candidate whose name is free; who was admitted."""
        with self.changing():
            draft, admitted = self.draft()
            if admitted:
                self.publish(draft, federation)
        return admitted

    def admit_one(self, candidate: Candidate, federation: Identity) -> bool:
        """Sign a roster that lists this candidate too, unless its name is taken; whether it is in.

        It looks at no other candidate, so that many clients may enrol one after another.
        """
        with self.changing():
            roster = self.membership().roster
            entry = roster.of_key(candidate.key)
            if entry is not None:
                return entry.active
            if roster.of_name(candidate.name) is not None:
                return False
            next_one = roster.added(candidate.name, candidate.key, candidate.roles)
            write_roster(self.path / ROSTER_FILE, sign_roster(next_one, federation))
        return True

    def draft(
        self, revoke: Sequence[str] = (), reason: str = ""
    ) -> tuple[Roster, tuple[Candidate, ...]]:
        """The next roster, unsigned, and the candidates that it lists.

        It is what is carried to where the federation key lies (`publish_signed` takes it back).

        Args:
            revoke: members whose keys end with it.
            reason: why.

        Raises:
            AnabranchError: AB-737 no active member has such a name.
        """
        present = self.membership().roster
        roster, admitted = present, []
        for name in revoke:
            roster = roster.revoked(name, reason)
        for candidate in self.waiting():
            if roster.of_name(candidate.name) is None:
                roster = roster.added(candidate.name, candidate.key, candidate.roles)
                admitted.append(candidate)
        return (_one_step(present, roster) if roster != present else present), tuple(admitted)

    def publish_signed(self, signed: SignedRoster) -> Roster:
        """Put a roster in force that was signed elsewhere.

        Raises:
            AnabranchError: AB-735 not by the fleet's federation key, AB-736 it does not follow the
                present one, AB-6xx from the disk.
        """
        with self.changing():
            roster = signed.verified(self.settings.federation)
            present = self.membership().roster
            check_successor(present if present.version else None, roster)
            write_roster(self.path / ROSTER_FILE, signed)
        return roster

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Only one process changes the roster at a time; waits for the other."""
        with explained(self.path, "locking the roster"):
            descriptor = os.open(self.path / "roster.lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            with contextlib.suppress(ImportError):  # elsewhere the last writer wins
                import fcntl

                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _one_step(before: Roster, after: Roster) -> Roster:
    """Several changes as one version."""
    version = before.version + 1
    entries = tuple(
        entry if before.of_key(entry.key) else entry.replace(since=version)
        for entry in after.entries
    )
    previous = before.digest if before.version else before.previous
    changes = {"version": version, "previous": previous, "entries": entries}
    return after.model_copy(update=changes)
