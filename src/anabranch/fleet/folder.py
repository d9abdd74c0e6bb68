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
from anabranch.fleet.key_files import FederationKeyFile
from anabranch.fleet.membership import Membership
from anabranch.fleet.roster import (
    ROSTER_FILE,
    Role,
    Roster,
    SignedRoster,
    check_successor,
    read_roster,
    sign_roster,
    write_roster,
)
from anabranch.fleet.rotation import SignedRotation, follow, sign_rotation
from anabranch.values import Value

__all__ = ["FleetFolder", "FleetSettings"]

_SETTINGS: Final = "fleet.json"
_COORDINATOR: Final = "coordinator.key"
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
        attestation: judges devices before their keys become candidates; None where nobody does.
    """

    def __init__(self, path: Path, attestation: Attestation | None = None) -> None:
        self.path, self.attestation = Path(path), attestation
        self.settings  # noqa: B018  # says at once when there is no fleet

    @property
    def settings(self) -> FleetSettings:
        """Name, address and pinned federation key, as they are now.

        Raises:
            AnabranchError: AB-730 they cannot be read.
        """
        try:
            content = (self.path / _SETTINGS).read_bytes()
            return FleetSettings.model_validate_json(content)
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
            own.save(FederationKeyFile(path).path, passphrase)
        _write_settings(path, settings)
        return FleetFolder(path)

    @property
    def signs_its_roster(self) -> bool:
        """Whether the federation key lies here too, so that members must trust the coordinator."""
        return self.key_file.here

    @property
    def key_file(self) -> FederationKeyFile:
        """The federation key that lies here, if it does."""
        return FederationKeyFile(self.path)

    def coordinator(self, passphrase: bytes | None = None) -> Identity:
        """The coordinator's identity."""
        return Identity.load(self.path / _COORDINATOR, passphrase)

    def federation(self, path: Path | None = None, passphrase: bytes | None = None) -> Identity:
        """The federation key: from ``path``, or from this folder.

        Raises:
            AnabranchError: AB-730 no key there, AB-735 it is not the fleet's key.
        """
        identity = Identity.load(path or self.key_file.path, passphrase)
        if identity.fingerprint != self.settings.federation:
            raise self._another_key(identity.fingerprint)
        return identity

    def _another_key(self, given: str) -> AnabranchError:
        settings = self.settings
        return AnabranchError(
            "AB-735",
            f"the key given is {given}, but the fleet {settings.name!r} pins "
            f"{settings.federation}.",
            fix="give the federation key of this fleet.",
        )

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
        self._sign(roster, federation)

    def rotate(
        self, successor: Identity, retiring: Identity | None = None, reason: str = ""
    ) -> Roster:
        """Let another federation key sign from now on; the roster itself stays as it is.

        May be repeated when it was broken off.

        Args:
            successor: the new key.
            retiring: the present key, which names it. Without it members cannot follow: everybody
                has to enrol again with a token made afterwards.
            reason: why; members read it.

        Raises:
            AnabranchError: AB-735 ``retiring`` is not the fleet's key, is the new one, or has
                named another one before; AB-6xx from the disk.
        """
        with self.changing():
            fleet, pinned = self.settings.name, self.settings.federation
            signed = self._signed()
            if retiring is not None and retiring.fingerprint != pinned:
                led = follow(retiring.fingerprint, signed.rotations if signed else (), fleet)
                if (pinned, led) != (successor.fingerprint, successor.fingerprint):
                    raise self._another_key(retiring.fingerprint)
            rotations: tuple[SignedRotation, ...] = ()
            if retiring is not None:
                named = sign_rotation(fleet, retiring, successor, reason)
                rotations = _joined(signed.rotations if signed else (), (named,))
            roster = Roster(fleet=fleet)
            if signed is not None:
                again = signed.signer == successor.fingerprint
                roster = signed.verified(signed.signer if again else pinned)
            made = sign_roster(roster, successor, rotations)
            if retiring is not None:
                made.verified(retiring.fingerprint)  # it may have named another key before
            self._put(made)
        return roster

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
            self._sign(next_one, federation)
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
        """Put a roster in force that was signed elsewhere, also by a successor of the fleet's key.

        Raises:
            AnabranchError: AB-735 not by the fleet's federation key, AB-736 it does not follow the
                present one, AB-6xx from the disk.
        """
        with self.changing():
            roster = signed.verified(self.settings.federation)
            present = self.membership().roster
            check_successor(present if present.version else None, roster)
            present_one = self._signed()
            if present_one is not None:  # whoever signed elsewhere need not know earlier rotations
                rotations = _joined(present_one.rotations, signed.rotations)
                signed = signed.replace(rotations=rotations)
            self._put(signed)
        return roster

    def _signed(self) -> SignedRoster | None:
        """What is published; None before the first signature."""
        path = self.path / ROSTER_FILE
        return read_roster(path) if path.exists() else None

    def _sign(self, roster: Roster, federation: Identity) -> None:
        signed = self._signed()
        self._put(sign_roster(roster, federation, signed.rotations if signed else ()))

    def _put(self, signed: SignedRoster) -> None:
        """First what leads to a new key, then the pin: killed in between, the old pin still leads
        to it."""
        write_roster(self.path / ROSTER_FILE, signed)
        settings = self.settings
        if settings.federation != signed.signer:
            _write_settings(self.path, settings.replace(federation=signed.signer))

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


def _write_settings(path: Path, settings: FleetSettings) -> None:
    with explained(path, "writing what the fleet pins"):
        content = settings.model_dump_json(indent=1).encode() + b"\n"
        write_durably(path / _SETTINGS, content, "fleet")


def _joined(
    known: tuple[SignedRotation, ...], more: tuple[SignedRotation, ...]
) -> tuple[SignedRotation, ...]:
    """Oldest first; of a key that retired twice the first statement counts."""
    retired = {signed.rotation.retired for signed in known}
    return (*known, *(signed for signed in more if signed.rotation.retired not in retired))


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
