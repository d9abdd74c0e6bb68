"""A client's home: one folder with its identity, its pins, its log and its evidence.

One process at a time uses a home. The loop of a client asks it before it does anything, and tells
it whatever it did::

    HOME/
      lock
      withdrawn      there only after `anabranch withdraw`
      log.jsonl      what was asked, decided and sent; plain text
      spending.sqlite  what private runs were allotted, in which rounds this client took part
      evidence/      heads and receipts, signed by the coordinator; plain text
      vault/         identity, pins, contracts, cached models, two-phase memory; encrypted
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Final

from pydantic import Field

from anabranch.client.contracts import ContractBook
from anabranch.client.evidence import EVIDENCE, Evidence
from anabranch.client.gate import Gate
from anabranch.client.log import ClientLog
from anabranch.client.policy import ClientPolicy
from anabranch.client.spending import ClientSpending
from anabranch.client.vault import VaultKey, open_vault
from anabranch.disk import Faults, explained, make_directory, no_faults
from anabranch.errors import AnabranchError
from anabranch.fleet.enrolment import Token, check_pin
from anabranch.fleet.identity import PUBLIC_KEY, Identity, fingerprint
from anabranch.fleet.roster import Roster, SignedRoster, check_successor
from anabranch.values import Value

__all__ = ["LOG_FILE", "WITHDRAWN_FILE", "ClientHome", "Pins"]

LOG_FILE: Final = "log.jsonl"
SPENDING_FILE: Final = "spending.sqlite"

WITHDRAWN_FILE: Final = "withdrawn"
"""A file that ends all work of the client with its next task, whoever puts it there."""

_IDENTITY: Final = "identity"
_PINS: Final = "pins"
_ROSTER: Final = "roster"


class Pins(Value):
    """What a client holds fast once it is enrolled."""

    url: str
    """Address of the coordinator."""
    name: str
    """Name of this client."""
    coordinator: str = Field(pattern=PUBLIC_KEY)
    """The coordinator's public key."""
    federation: str = ""
    """Fingerprint of the federation key; empty until a roster was seen, if no token told it."""
    retired: tuple[str, ...] = ()
    """Fingerprints of federation keys that were pinned before, oldest first."""

    def trusting(self, federation: str) -> Pins:
        """With this federation key from now on."""
        if federation == self.federation:
            return self
        before = (self.federation,) if self.federation else ()
        return self.replace(federation=federation, retired=(*self.retired, *before))

    @property
    def coordinator_key(self) -> bytes:
        """32 bytes."""
        return bytes.fromhex(self.coordinator)


class ClientHome:
    """One client at its own machine.

    Args:
        path: the folder, made when absent.
        key: opens the vault.
        policy: the site's rules.
        data: where the site's data lie; a key file must not lie beside them.
        clock: seconds since 1970 by the site's clock.
        faults: told about every step that touches the disk (tests).

    Raises:
        AnabranchError: AB-731 the key, AB-739 another process uses the home, AB-747 the vault,
            AB-749 the log, AB-6xx the disk.

    Attributes:
        path: the folder.
        policy: the site's rules.
        clock: the site's.
        faults: what was handed in.
        vault: what is kept encrypted.
        log: what happened.
        identity: the client's key; made with the home.
        contracts: what may be run here.
        gate: what may be done now, and what may leave.
    """

    def __init__(
        self,
        path: Path,
        key: VaultKey,
        policy: ClientPolicy | None = None,
        *,
        data: Sequence[Path] = (),
        clock: Callable[[], float] = time.time,
        faults: Faults = no_faults,
    ) -> None:
        self.path, self.policy = Path(path), policy or ClientPolicy()
        self.clock, self.faults = clock, faults
        with explained(self.path, "opening the client's folder"):
            make_directory(self.path, "home")
        self._lock = _lock(self.path / "lock")
        try:
            self.vault = open_vault(self.path / "vault", key, apart_from=data)
            self.vault.faults = faults
            self._pins = self._read_pins()
            self.identity = self._identity()
            self.log = ClientLog(self.path / LOG_FILE, clock, faults)
        except BaseException:
            os.close(self._lock)
            raise
        self.contracts = ContractBook(self.vault, self.log, self.policy, self._who, clock)
        self.gate = Gate(self.log, self.policy, self._who, clock, self._withdrawn)

    def __enter__(self) -> ClientHome:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Make the log durable and let others use the home."""
        self.log.close()
        os.close(self._lock)

    @property
    def pins(self) -> Pins:
        """What was pinned at enrolment.

        Raises:
            AnabranchError: AB-737 the client is not enrolled.
        """
        if self._pins is None:
            raise AnabranchError(
                "AB-737",
                f"the client in {self.path} is not enrolled.",
                fix="ask the coordinator's operator for a token and enrol with it.",
            )
        return self._pins

    @property
    def enrolled(self) -> bool:
        """Whether a coordinator is pinned."""
        return self._pins is not None

    @cached_property
    def evidence(self) -> Evidence:
        """Heads and receipts; only an enrolled client has some."""
        pins = self.pins
        folder, key = self.path / EVIDENCE, pins.coordinator_key
        return Evidence(folder, self.log, pins.name, key, self.faults)

    @cached_property
    def spending(self) -> ClientSpending:
        """The site's own count of its privacy."""
        named = self.policy.privacy.count
        return ClientSpending(Path(named) if named else self.path / SPENDING_FILE)

    def pin(self, token: Token, name: str, coordinator: bytes, url: str = "") -> Pins:
        """Hold fast to the coordinator that a token speaks of; for good.

        A token that was made before the federation key was replaced does not bring the old key
        back; one with a key that was never pinned here does pin it, as the site's people wish.

        Args:
            token: from the operator.
            name: of this client; the token's own name goes first.
            coordinator: the public key that the server proved.
            url: where it was reached, if the token does not say.

        Raises:
            AnabranchError: AB-734 the server proved another key than the token's, or another
                coordinator is pinned already.
        """
        check_pin(coordinator, token.coordinator)
        if self._pins is not None and self._pins.coordinator_key != coordinator:
            check_pin(coordinator, fingerprint(self._pins.coordinator_key))
        pins = Pins(url=token.url or url, name=token.name or name, coordinator=coordinator.hex())
        before = self._pins or pins
        pins = pins.replace(federation=before.federation, retired=before.retired)
        if token.federation and token.federation not in before.retired:
            pins = pins.trusting(token.federation)
        if pins != self._pins:
            self.vault.put(_PINS, pins.model_dump_json().encode())
            details = {"url": pins.url, "name": pins.name, "key": self.identity.fingerprint}
            self.log.add("enrolled", token.coordinator, details, durable=True)
            self._pins = pins
        return pins

    @property
    def roster(self) -> Roster | None:
        """The latest roster that was accepted."""
        held = self.vault.get(_ROSTER)
        return SignedRoster.model_validate_json(held).roster if held is not None else None

    def accept_roster(self, signed: SignedRoster) -> Roster:
        """Check a roster against the pinned federation key and the roster seen before; keep it.

        Where no federation key came with the token, the first key that signs a roster is pinned. A
        successor that the pinned key has named is pinned in its place; the old key counts no more.

        Raises:
            AnabranchError: AB-735, AB-736: the roster seen before is kept; AB-737 not enrolled.
        """
        pins, shown_by = self.pins, signed.signer
        roster = signed.verified(pins.federation or shown_by)
        known = self.roster
        check_successor(known, roster)
        if pins.federation != shown_by:
            if pins.federation:
                details = {"retired": pins.federation, "successor": shown_by}
                self.log.add("rotation", pins.federation, details, durable=True)
            self._pins = pins.trusting(shown_by)
            self.vault.put(_PINS, self._pins.model_dump_json().encode())
        if roster != known:
            self.vault.put(_ROSTER, signed.model_dump_json().encode())
            self.log.add("roster", shown_by, {"version": roster.version, "digest": roster.digest})
        return roster

    def _read_pins(self) -> Pins | None:
        held = self.vault.get(_PINS)
        return Pins.model_validate_json(held) if held is not None else None

    def _identity(self) -> Identity:
        held = self.vault.get(_IDENTITY)
        if held is not None:
            return Identity.from_secret(held)
        made = Identity.generate()
        self.vault.put(_IDENTITY, made.secret)
        return made

    def _withdrawn(self) -> bool:
        return (self.path / WITHDRAWN_FILE).exists()

    def _who(self) -> str:
        return fingerprint(self._pins.coordinator_key) if self._pins is not None else ""


def _lock(path: Path) -> int:
    with explained(path, "locking the client's folder"):
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    with contextlib.suppress(ImportError):  # where there is no flock, nobody is turned away
        import fcntl

        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise AnabranchError(
                "AB-739",
                f"another process works with the client in {path.parent}.",
                fix="end it first, or give this client a home of its own (`--home`).",
            ) from error
    return descriptor
