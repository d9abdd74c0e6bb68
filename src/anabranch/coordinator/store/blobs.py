"""Arrays on disk: content-addressed safetensors files ``blobs/<aa>/<sha256>.safetensors``."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import numpy as np
from safetensors.numpy import load, save

from anabranch.coordinator.store.locks import FileLock
from anabranch.coordinator.store.records import Arrays
from anabranch.disk import (
    TEMPORARY,
    Faults,
    explained,
    make_directory,
    sync_directory,
    write_durably,
)
from anabranch.errors import AnabranchError

__all__ = ["Blobs"]

_SUFFIX = ".safetensors"


class Blobs:
    """The blob folder of a store.

    Whoever writes holds the folder's lock *shared* from the first write until the rows that name
    the blobs are committed; whoever deletes holds it *exclusively* and asks the rows first. So a
    blob that is about to be named is never deleted, even when another run has the same content.
    """

    def __init__(self, root: Path, lock: FileLock, faults: Faults) -> None:
        self._root = root
        self._lock = lock
        self._faults = faults

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Surrounds `put` and the commit that names what was put."""
        with self._lock.shared():
            yield

    def put(self, arrays: Arrays) -> str:
        """Write ``arrays`` durably; returns the SHA-256 of the file.

        Raises:
            AnabranchError: AB-602 disk full, AB-603 not writable, AB-613 other disk errors.
        """
        # safetensors reads raw memory: arrays must be contiguous (and keep shape ()).
        data = save({name: np.asarray(array, order="C") for name, array in arrays.items()})
        digest = hashlib.sha256(data).hexdigest()
        path = self.path(digest)
        with explained(path, "writing the state of a round"):
            make_directory(path.parent, "blob", self._faults)
            if path.exists():
                # Written whole before it got this name; the name itself may not be durable yet.
                sync_directory(path.parent, "blob", self._faults)
            else:
                write_durably(path, data, "blob", self._faults)
        return digest

    def get(self, digest: str) -> Arrays:
        """Read and check a blob.

        Raises:
            AnabranchError: AB-604 the content is not what was written, AB-605 the file is missing.
        """
        path = self.path(digest)
        try:
            data = path.read_bytes()
        except FileNotFoundError as error:
            raise AnabranchError(
                "AB-605",
                f"the state file {path} is missing.",
                fix="restore the file from a backup of the store, or start the run again.",
            ) from error
        if hashlib.sha256(data).hexdigest() != digest:
            raise AnabranchError(
                "AB-604",
                f"the state file {path} is corrupted: its SHA-256 is not its name.",
                fix="restore the file from a backup of the store, or start the run again.",
            )
        return load(data)

    def close(self) -> None:
        """Let go of the folder."""
        self._lock.close()

    def path(self, digest: str) -> Path:
        """Where the blob with this digest lives."""
        return self._root / digest[:2] / f"{digest}{_SUFFIX}"

    def delete(
        self, digests: Collection[str], named: Callable[[Collection[str]], set[str]]
    ) -> set[str]:
        """Delete those of ``digests`` that no row names; returns those left for later.

        Nothing is deleted while another session is between writing and committing.
        """
        if not digests:
            return set()
        with self._lock.exclusive_or_not() as alone:
            if not alone:
                return set(digests)
            unnamed = set(digests) - named(digests)
            return {digest for digest in sorted(unnamed) if not self._remove(self.path(digest))}

    def collect(self, named: Callable[[Collection[str]], set[str]]) -> int:
        """Delete temporary files and blobs that no row names; returns how many.

        Leftovers of a crash are harmless, so while another session writes this does nothing.
        """
        with self._lock.exclusive_or_not() as alone:
            if not alone:
                return 0
            paths = [path for path in self._root.glob("*/*") if path.is_file()]
            blobs = {path.stem: path for path in paths if path.suffix == _SUFFIX}
            known = named(list(blobs))
            orphans = [path for digest, path in sorted(blobs.items()) if digest not in known]
            orphans += [path for path in paths if path.name.startswith(TEMPORARY)]
            return sum(self._remove(path) for path in orphans)

    def _remove(self, path: Path) -> bool:
        self._faults.reach("collect.delete.before")
        try:
            os.unlink(path)
        except FileNotFoundError:
            return True
        except OSError:
            return False  # harmless where it is; the next collection tries again
        self._faults.reach("collect.delete.after")
        return True
