"""A client's memory of secure sums: small files, encrypted where there is a vault."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from anabranch.disk import explained, make_directory, write_durably
from anabranch.privacy.secure_aggregation.held import Held, held_bytes, read_held
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
    """Keeps what a client remembers in ``secure-sums`` of a folder, and the update that it holds.

    It is on the disk before the answer that belongs to it leaves, so that a client that is killed
    and comes back goes on where it was, and repeats nothing.

    Args:
        directory: of the run at the client; made when absent.
        identity: the client's 32 secret bytes of Ed25519; they are not in the file.
        sealer: encrypts the file; None writes it as it is, for its owner alone.

    Raises:
        AnabranchError: AB-969 when the file can not be read, AB-6xx from the disk.
    """

    def __init__(self, directory: Path, identity: bytes, sealer: Sealer | None = None) -> None:
        self.path = Path(directory) / "secure-sums"
        self._identity, self._sealer = identity, sealer
        self._remembered: Remembered | None = None

    def load(self) -> Remembered:
        if self._remembered is None:
            self._remembered = self._read()
        return self._remembered

    def save(self, remembered: Remembered) -> None:
        self._write(self.path, remembered_bytes(remembered))
        self._remembered = remembered

    def held(self) -> Held | None:
        content = self._content(self.path.with_name("held-update"))
        return None if content is None else read_held(content)

    def hold(self, held: Held) -> None:
        self._write(self.path.with_name("held-update"), held_bytes(held))

    def _read(self) -> Remembered:
        content = self._content(self.path)
        return Remembered() if content is None else read_remembered(content, self._identity)

    def _content(self, path: Path) -> bytes | None:
        if not path.exists():
            return None
        with explained(path, "reading the memory of secure sums"):
            content = path.read_bytes()
        return content if self._sealer is None else self._sealer.open(_PURPOSE, content, path)

    def _write(self, path: Path, content: bytes) -> None:
        if self._sealer is not None:
            content = self._sealer.seal(_PURPOSE, content)
        make_directory(path.parent, "secure")
        with explained(path, "writing the memory of secure sums"):
            write_durably(path, content, "secure", mode=0o600)
