"""The secret of a private run: 32 bytes of the operating system, kept across a crash, then erased.

Everything that protects privacy at the coordinator derives from it: the noise key of a release, the
coins behind a sampling claim. So a replayed release has the same noise, whatever crashed between.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from pathlib import Path
from typing import Final

from anabranch.disk import (
    Faults,
    explained,
    file_points,
    make_directory,
    no_faults,
    sync_directory,
    write_durably,
    write_in_place,
)
from anabranch.errors import AnabranchError

__all__ = ["SECRET_POINTS", "RunSecret"]

_BYTES: Final = 32
_WHAT: Final = "secret"

SECRET_POINTS: Final = (*file_points(_WHAT), "secret.unlink.before", "secret.unlink.after")
"""Where a kill is tested."""


class RunSecret:
    """The file that holds one run's secret, readable by its owner only.

    Raises:
        AnabranchError: AB-602, AB-603, AB-613 from the disk; AB-925 the file is not a secret.
    """

    def __init__(self, path: Path, faults: Faults = no_faults) -> None:
        self._path = path
        self._faults = faults
        self._bytes = b""

    def obtain(self) -> RunSecret:
        """Read the secret, or make one durably when there is none."""
        with explained(self._path, "keeping the secret of the run"):
            if not self._path.exists():
                make_directory(self._path.parent, _WHAT, self._faults)
                write_durably(self._path, os.urandom(_BYTES), _WHAT, self._faults, mode=0o600)
            self._bytes = self._path.read_bytes()
        if len(self._bytes) != _BYTES:
            raise AnabranchError(
                "AB-925",
                f"{self._path} does not hold the secret of a run.",
                fix="start a new run; the releases that this one reserved count as spent.",
                kept="Nothing was started.",
            )
        return self

    @property
    def fingerprint(self) -> str:
        """Which secret it is; it tells nothing about its bytes."""
        return hashlib.sha256(b"anabranch run secret 1" + self._held()).hexdigest()

    def derive(self, purpose: str, label: str) -> bytes:
        """32 bytes for one purpose and label (HMAC-SHA256); equal arguments, equal bytes.

        Args:
            purpose: ``noise``, ``coins``.
            label: a release id, a round.
        """
        words = f"anabranch {purpose} 1\x1f{label}".encode()
        return hmac.new(self._held(), words, hashlib.sha256).digest()

    def erase(self) -> None:
        """Overwrite and delete the file; may be called twice.

        Storage that writes elsewhere on every change (flash, copy-on-write, backups) may keep the
        old bytes: the guide says what to do there.
        """
        self._bytes = b""
        doomed = self._path.with_suffix(".erased")
        with explained(self._path, "erasing the secret of the run"):
            if self._path.exists():
                # Under another name first: nobody can ever obtain a half-erased secret.
                os.replace(self._path, doomed)
                sync_directory(self._path.parent, _WHAT, self._faults)
            if doomed.exists():
                self._overwrite(doomed)
                doomed.unlink(missing_ok=True)
                sync_directory(self._path.parent, _WHAT, self._faults)
                self._faults.reach("secret.unlink.after")

    def _overwrite(self, path: Path) -> None:
        descriptor = os.open(path, os.O_WRONLY)
        try:
            write_in_place(descriptor, bytes(_BYTES), 0, _WHAT, self._faults)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._faults.reach("secret.unlink.before")

    def _held(self) -> bytes:
        if not self._bytes:
            raise ValueError("the secret was erased, or never obtained")
        return self._bytes
