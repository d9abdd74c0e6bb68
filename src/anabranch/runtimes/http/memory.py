"""What a networked client keeps between rounds: two files, two phases."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from safetensors.numpy import load, save

from anabranch.client.task import Fate
from anabranch.disk import (
    Faults,
    explained,
    make_directory,
    no_faults,
    sync_directory,
    write_durably,
)
from anabranch.errors import AnabranchError
from anabranch.updates.sections import Vector

__all__ = ["ClientMemory"]

_COMMITTED: Final = "committed.safetensors"
_PENDING: Final = re.compile(r"pending-([0-9a-f]{32})\.safetensors")
_NAME: Final = "memory"
_OPEN: Final = 4
"""Tasks of one run whose fate may be open at a time."""


class Sealer(Protocol):
    """Encrypts what lies on the disk (`anabranch.client.vault.Vault`)."""

    def seal(self, purpose: str, content: bytes) -> bytes: ...

    def open(self, purpose: str, sealed: bytes, where: Path) -> bytes: ...


class ClientMemory:
    """``committed`` is what merged rounds left; ``pending-<task>`` what an open task would leave.

    A pending memory is on the disk before the update is sent, and becomes committed by one rename
    when the coordinator tells that the update was merged: a kill at any instant leaves one of the
    two states. Hearing a fate twice changes nothing.

    Args:
        directory: made when absent; it belongs to one client of one run.
        length: float32 values that the program keeps; 0 when it keeps nothing.
        sealer: encrypts the files; None writes them as they are.
        faults: told about every step that touches the disk (tests).

    Raises:
        AnabranchError: AB-6xx from the disk.
    """

    def __init__(
        self,
        directory: Path,
        length: int,
        sealer: Sealer | None = None,
        faults: Faults = no_faults,
    ) -> None:
        self.directory, self.length = Path(directory), length
        self._sealer, self._faults = sealer, faults
        if length:
            with explained(self.directory, "opening the client's memory"):
                make_directory(self.directory, "memory", faults)

    def read(self) -> Vector | None:
        """The committed memory, shape (length,); None before the first merged round.

        Raises:
            AnabranchError: AB-721 the file is damaged or of another program.
        """
        path = self.directory / _COMMITTED
        if not self.length or not path.exists():
            return None
        with explained(path, "reading the client's memory"):
            content = path.read_bytes()
        if self._sealer is not None:
            content = self._sealer.open(self._purpose, content, path)
        try:
            vector = load(content)[_NAME]
        except Exception as error:  # the container library has no public base class
            raise self._unfit(path) from error
        if vector.shape != (self.length,) or vector.dtype != np.float32:
            raise self._unfit(path)
        return vector

    def pending(self) -> str | None:
        """The task whose fate is not known; the newest one where there are several."""
        found = self.unresolved()
        return found[-1] if found else None

    def unresolved(self) -> list[str]:
        """Every task whose fate is not known, the oldest first."""
        files = self._pending_files()
        return sorted(files, key=lambda task: files[task].stat().st_mtime_ns)

    def write_pending(self, task: str, vector: Vector) -> None:
        """What the client keeps if ``task`` is merged; only a few older ones are kept beside it."""
        path = self.directory / f"pending-{task}.safetensors"
        content = save({_NAME: np.ascontiguousarray(vector)})
        if self._sealer is not None:
            content = self._sealer.seal(self._purpose, content)
        with explained(path, "writing the client's memory"):
            write_durably(path, content, "memory", self._faults)
            for old in self.unresolved()[:-_OPEN]:
                self._pending_files()[old].unlink()

    def hear(self, task: str, fate: Fate) -> None:
        """A fate that counts promotes the pending memory of ``task``, any other drops it.

        Memories of tasks that were begun before it go with it: they start from an older state.
        """
        path = self._pending_files().get(task)
        if path is None:
            return
        with explained(path, "settling the client's memory"):
            self._faults.reach("memory.settle.before")
            if fate.counts:
                begun = self.unresolved()
                older = [self._pending_files()[t] for t in begun[: begun.index(task)]]
                os.replace(path, self.directory / _COMMITTED)
                for old in older:
                    old.unlink()
            else:
                path.unlink()
            self._faults.reach("memory.settle.after")
            sync_directory(self.directory, "memory", self._faults)

    @property
    def _purpose(self) -> str:
        """Pending and committed share it: a rename promotes."""
        return f"memory of {self.directory.name}"

    def _pending_files(self) -> dict[str, Path]:
        if not self.length:
            return {}
        found = ((_PENDING.fullmatch(path.name), path) for path in self.directory.iterdir())
        return {match[1]: path for match, path in found if match}

    def _unfit(self, path: Path) -> AnabranchError:
        return AnabranchError(
            "AB-721",
            f"{path} is not a memory of {self.length} values of this client's program.",
            fix="give the directory that belongs to this client and run, or an empty one.",
            kept="The file is as it was.",
        )
