"""Accepted updates kept for auditors: one file each, named by its SHA-256."""

from __future__ import annotations

import hashlib
from pathlib import Path

from anabranch.disk import explained, make_directory, write_durably
from anabranch.errors import AnabranchError
from anabranch.updates.container import Buffer

__all__ = ["UpdateArchive"]


class UpdateArchive:
    """A folder of updates; equal updates are one file.

    Args:
        folder: made when the first update is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = Path(folder)

    def keep(self, content: Buffer) -> None:
        """Keep an update durably; one that is there already is left as it is.

        Raises:
            AnabranchError: AB-6xx from the disk.
        """
        path = self._folder / hashlib.sha256(content).hexdigest()
        if path.exists():
            return
        with explained(path, "keeping an update"):
            make_directory(self._folder, "archive")
            write_durably(path, bytes(content), "archive", mode=0o600)

    def read(self, digest: str) -> bytes:
        """The update of this digest.

        Raises:
            AnabranchError: AB-745 it is not there, or another one lies under its name.
        """
        path = self._folder / digest
        try:
            content = path.read_bytes()
        except OSError as error:
            raise _missing(f"the update {digest[:16]} is not in {self._folder}") from error
        if hashlib.sha256(content).hexdigest() != digest:
            raise _missing(f"{path} holds another update than its name says")
        return content


def _missing(why: str) -> AnabranchError:
    return AnabranchError(
        "AB-745",
        f"the run cannot be recomputed: {why}.",
        fix="give the folder that the plan's runtime.keep_updates named while the run was served.",
        kept="Nothing was changed.",
    )
