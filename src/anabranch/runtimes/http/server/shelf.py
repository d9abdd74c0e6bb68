"""What clients download: byte strings named by their SHA-256, as files while a task refers to them.

A file is mapped when it is served, so a model costs the coordinator's own memory nothing, however
many clients read it. Files are not synced: after a crash the same bytes are written again.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import secrets
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from anabranch.disk import TEMPORARY, explained, make_directory
from anabranch.updates.container import Buffer

__all__ = ["Item", "Shelf"]

_SMALL: Final = 1 << 18


@dataclass(frozen=True, slots=True)
class Item:
    """Something to download.

    Attributes:
        digest: its SHA-256, hexadecimal.
        size: bytes.
    """

    digest: str
    size: int


class Shelf:
    """Downloads by digest; each is there as long as somebody holds it.

    Args:
        directory: made when absent; what a crash left there is deleted.

    Raises:
        AnabranchError: AB-6xx from the disk.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = Path(directory)
        self._lock = threading.Lock()
        self._holds: dict[str, int] = {}
        self._contents: dict[str, Buffer] = {}
        with explained(self._directory, "opening the downloads"):
            make_directory(self._directory, "download")
            for path in self._directory.iterdir():
                path.unlink(missing_ok=True)

    def put(self, parts: Iterable[Buffer]) -> Item:
        """Keep a byte string; every `put` needs its own `drop`.

        Raises:
            AnabranchError: AB-602 the disk is full, other AB-6xx.
        """
        parts = tuple(parts)
        digest, size = hashlib.sha256(), 0
        for part in parts:
            digest.update(part)
            size += len(part)
        item = Item(digest.hexdigest(), size)
        with self._lock:
            self._holds[item.digest] = self._holds.get(item.digest, 0) + 1
            if item.digest not in self._contents:
                self._contents[item.digest] = self._written(item, parts)
        return item

    def get(self, digest: str) -> Buffer | None:
        """The bytes; None when nobody holds them."""
        with self._lock:
            return self._contents.get(digest)

    def drop(self, digest: str) -> None:
        """One holder less; readers that have the bytes keep them."""
        with self._lock:
            left = self._holds.get(digest, 0) - 1
            if left > 0:
                self._holds[digest] = left
                return
            self._holds.pop(digest, None)
            self._contents.pop(digest, None)
            with suppress(OSError):  # deleted at the next start
                self._path(digest).unlink(missing_ok=True)

    def _written(self, item: Item, parts: tuple[Buffer, ...]) -> Buffer:
        if item.size <= _SMALL:
            return b"".join(parts)
        path = self._path(item.digest)
        temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(6)}")
        with explained(path, "writing a download"):
            with temporary.open("wb") as file:
                file.writelines(parts)
            os.replace(temporary, path)
            with path.open("rb") as file:
                return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    def _path(self, digest: str) -> Path:
        return self._directory / digest
