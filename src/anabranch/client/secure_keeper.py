"""A client's memory of secure sums: one small file, encrypted where there is a vault."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from anabranch.disk import explained, make_directory, write_durably
from anabranch.privacy.secure_aggregation.remembered import (
    Remembered,
    read_remembered,
    remembered_bytes,
)

__all__ = ["FileKeeper", "Sealer"]

_PURPOSE = "secure sums"


class Sealer(Protocol):
    """Encrypts what lies on the disk (`anabranch.client.vault.Vault`)."""

    def seal(self, purpose: str, content: bytes) -> bytes: ...

    def open(self, purpose: str, sealed: bytes, where: Path) -> bytes: ...


class FileKeeper:
    """Keeps what a client remembers in ``secure-sums`` of a folder.

    It is on the disk before the answer that belongs to it leaves, so that a client that is killed
    and comes back goes on where it was, and repeats nothing.

    Args:
        directory: of the client; made when absent.
        identity: the client's 32 secret bytes of Ed25519; they are not in the file.
        sealer: encrypts the file; None writes it as it is, for its owner alone.

    Raises:
        AnabranchError: AB-969 when the file can not be read, AB-6xx from the disk.
    """

    def __init__(self, directory: Path, identity: bytes, sealer: Sealer | None = None) -> None:
        self.path = Path(directory) / "secure-sums"
        self._identity, self._sealer = identity, sealer
        self._held: Remembered | None = None

    def load(self) -> Remembered:
        if self._held is None:
            self._held = self._read()
        return self._held

    def save(self, remembered: Remembered) -> None:
        content = remembered_bytes(remembered)
        if self._sealer is not None:
            content = self._sealer.seal(_PURPOSE, content)
        make_directory(self.path.parent, "secure")
        with explained(self.path, "writing the memory of secure sums"):
            write_durably(self.path, content, "secure", mode=0o600)
        self._held = remembered

    def _read(self) -> Remembered:
        if not self.path.exists():
            return Remembered()
        with explained(self.path, "reading the memory of secure sums"):
            content = self.path.read_bytes()
        if self._sealer is not None:
            content = self._sealer.open(_PURPOSE, content, self.path)
        return read_remembered(content, self._identity)
