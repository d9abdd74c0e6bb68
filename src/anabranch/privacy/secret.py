"""The secret of a run: 32 random bytes in its folder, kept over a crash, erased at the end.

Whatever protects privacy derives from it: coins behind an amplification claim, noise of simulated
clients. The plan's seed is public and never used for that (decision 006).
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from anabranch.errors import AnabranchError
from anabranch.privacy.noise.stream import KEY_BYTES, SecretStream, derived_key

__all__ = ["RunSecret"]


@dataclass(frozen=True)
class RunSecret:
    """The key of a run, and where it is kept.

    Attributes:
        path: the file, readable by its owner alone.
    """

    path: Path
    key: bytes = field(repr=False)

    @staticmethod
    def open(path: Path) -> RunSecret:
        """The run's secret, made when there is none yet.

        The file is complete and on disk before its name exists, so that a crash leaves either no
        secret or a whole one.

        Raises:
            AnabranchError: AB-943 when the file is not 32 bytes, or others may read it.
        """
        if not path.exists():
            _create(path)
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            raise _unusable(path, f"others may read it (mode {mode:04o})")
        key = path.read_bytes()
        if len(key) != KEY_BYTES:
            raise _unusable(path, f"it has {len(key)} bytes, wanted {KEY_BYTES}")
        return RunSecret(path, key)

    def derived(self, *label: str) -> bytes:
        """A key of 32 bytes for one purpose."""
        return derived_key(self.key, *label)

    def stream(self, *label: str) -> SecretStream:
        """The secret stream of one purpose."""
        return SecretStream.keyed(self.key, *label)

    def erase(self) -> None:
        """Overwrite and remove the file. A disk may still hold older copies of its blocks."""
        if not self.path.exists():
            return
        with self.path.open("r+b") as file:
            file.write(bytes(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        self.path.unlink()


def _create(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}.new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(os.urandom(KEY_BYTES))
        file.flush()
        os.fsync(file.fileno())
    with suppress(FileExistsError):  # another process was first; its secret counts
        os.link(draft, path)
    draft.unlink()
    _sync(path.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unusable(path: Path, why: str) -> AnabranchError:
    return AnabranchError(
        "AB-943",
        f"the run's secret {path.name!r} cannot be used: {why}.",
        fix="restore the file with mode 0600. Without it the run cannot be resumed: coins and "
        "noise would be drawn anew; start another run, which the ledger counts as one more.",
        kept="Nothing was released.",
    )
