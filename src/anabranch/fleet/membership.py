"""Who may take part right now: the signed roster, less whom the coordinator itself suspended.

Both are small files that are read again as soon as they change, so a revocation works with the next
request of the client, whoever wrote it. Suspending needs no federation key: a coordinator can
always do less than the roster allows, never more.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic import Field, ValidationError

from anabranch.disk import explained, write_durably
from anabranch.errors import AnabranchError
from anabranch.fleet.identity import fingerprint
from anabranch.fleet.roster import (
    ROSTER_FILE,
    Role,
    Roster,
    RosterEntry,
    check_successor,
    read_roster,
)
from anabranch.values import Value

__all__ = ["SUSPENDED_FILE", "Membership"]

SUSPENDED_FILE: Final = "suspended.json"

_Stamp = tuple[int, int, int] | None


class _Suspended(Value):
    keys: dict[str, str] = Field(default_factory=dict)
    """Reason by public key."""


class Membership:
    """The members of one fleet, as of now.

    Args:
        directory: holds ``roster.json`` and ``suspended.json``.
        fleet: name of the fleet.
        federation: pinned fingerprint of the federation key; once a roster of its successor was
            read, that one is pinned.
    """

    def __init__(self, directory: Path, fleet: str, federation: str) -> None:
        self._directory, self._federation = Path(directory), federation
        self._roster = Roster(fleet=fleet)
        self._by_key: Mapping[str, RosterEntry] = {}
        self._suspended: Mapping[str, str] = {}
        self._seen: dict[str, _Stamp] = {}

    @property
    def roster(self) -> Roster:
        """The roster in force; version 0 while nobody has signed one.

        Raises:
            AnabranchError: AB-735 or AB-736, what lies there does not count.
        """
        stamp = self._stamp(ROSTER_FILE)  # before reading: what is written meanwhile is read again
        if stamp != self._seen.get(ROSTER_FILE):
            signed = read_roster(self._directory / ROSTER_FILE)
            shown = signed.verified(self._federation)
            check_successor(self._roster if self._roster.version else None, shown)
            self._federation = signed.signer
            self._roster = shown
            self._by_key = {entry.key: entry for entry in shown.entries}
            self._seen[ROSTER_FILE] = stamp
        return self._roster

    @property
    def suspended(self) -> Mapping[str, str]:
        """Reason by public key of whom the coordinator itself keeps out."""
        stamp = self._stamp(SUSPENDED_FILE)
        if stamp != self._seen.get(SUSPENDED_FILE):
            self._suspended = self._read_suspended()
            self._seen[SUSPENDED_FILE] = stamp
        return self._suspended

    def member(self, key: str, role: Role = Role.CLIENT) -> RosterEntry:
        """The active entry of a public key (hexadecimal).

        Raises:
            AnabranchError: AB-737 the key is not listed, or not in this role; AB-738 it was revoked
                or suspended; AB-735 and AB-736 from the roster.
        """
        roster = self.roster
        entry = self._by_key.get(key)
        if entry is None or (entry.active and role not in entry.roles):
            raise _no_member(key, roster, entry)
        if not entry.active:
            raise _revoked(entry, "was revoked", entry.reason)
        if key in self.suspended:
            raise _revoked(entry, "is suspended", self.suspended[key])
        return entry

    def suspend(self, key: str, reason: str) -> None:
        """Keep a key out from now on; durable before this returns.

        Raises:
            AnabranchError: AB-6xx from the disk.
        """
        self._write({**self._read_suspended(), key: reason})

    def resume(self, key: str) -> None:
        """End a suspension; what the roster says counts again."""
        kept = {held: why for held, why in self._read_suspended().items() if held != key}
        self._write(kept)

    def _read_suspended(self) -> dict[str, str]:
        path = self._directory / SUSPENDED_FILE
        try:
            return _Suspended.model_validate_json(path.read_bytes()).keys
        except FileNotFoundError:
            return {}
        except (OSError, ValidationError) as error:
            raise AnabranchError(
                "AB-735",
                f"{path}, the list of suspended keys, cannot be read.",
                fix="restore it, or delete it and suspend again whom the fleet must keep out.",
                kept="Nobody is let in until then.",
            ) from error

    def _write(self, keys: dict[str, str]) -> None:
        path = self._directory / SUSPENDED_FILE
        with explained(path, "suspending a member"):
            write_durably(path, _Suspended(keys=keys).model_dump_json().encode(), "suspended")

    def _stamp(self, name: str) -> _Stamp:
        try:
            found = os.stat(self._directory / name)
        except FileNotFoundError:
            return None
        return (found.st_mtime_ns, found.st_size, found.st_ino)


def _no_member(key: str, roster: Roster, entry: RosterEntry | None) -> AnabranchError:
    what = "is not in the roster" if entry is None else f"({entry.name!r}) has another role"
    return AnabranchError(
        "AB-737",
        f"the key {fingerprint(bytes.fromhex(key))} {what} (version {roster.version} of "
        f"{roster.fleet!r}).",
        fix="a new member waits until the roster that lists it is signed; ask the operator.",
        kept="Nothing was given out.",
    )


def _revoked(entry: RosterEntry, how: str, reason: str) -> AnabranchError:
    why = f": {reason}" if reason else ""
    return AnabranchError(
        "AB-738",
        f"the key of {entry.name!r} {how}{why}.",
        fix="stop this client and ask the operator; a revoked key never counts again, so enrol "
        "with a new one.",
        kept="Nothing was given out.",
    )
