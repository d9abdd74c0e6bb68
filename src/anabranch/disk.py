"""Durable files: write, sync, rename, sync the directory; each step can be made to fail in a test.

A file written by `write_durably` is either absent or whole, after a kill and after a power cut: its
bytes reach the disk under a temporary name before the name that readers look for exists.

Every step announces itself to a `Faults` value. The default does nothing; tests hand in one that
kills the process or raises ENOSPC exactly there (`anabranch.testing.faults`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

from anabranch.errors import AnabranchError

__all__ = [
    "INTACT",
    "TEMPORARY",
    "Faults",
    "disk_problem",
    "explained",
    "full_disk",
    "file_points",
    "in_place_points",
    "make_directory",
    "no_faults",
    "sync_directory",
    "write_durably",
    "write_in_place",
]

TEMPORARY: Final = ".tmp-"
"""Prefix of files that a crash may leave behind and that are always safe to delete."""

INTACT: Final = "The last committed round is intact."
"""What became of the work done so far, whenever the disk fails."""

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_DENIED: Final = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR}
)


class Faults(Protocol):
    """Told about every step that touches the disk, just before and just after it."""

    def reach(self, point: str) -> None:
        """Return to go on; raise or never return to simulate a fault at ``point``."""


class _NoFaults:
    __slots__ = ()

    def reach(self, point: str) -> None:
        return


no_faults: Final[Faults] = _NoFaults()
"""Production: nothing is injected."""


def file_points(what: str) -> tuple[str, ...]:
    """The points that `make_directory` and `write_durably` reach for files called ``what``.

    >>> file_points("blob")[2]
    'blob.write.before'
    """
    steps = ("mkdir", "write", "sync", "rename", "directory")
    around = [f"{what}.{step}.{when}" for step in steps for when in ("before", "after")]
    return (*around[:3], f"{what}.write.half", *around[3:])


def in_place_points(what: str) -> tuple[str, ...]:
    """The points of a file called ``what`` that is written in place and synced."""
    write = [f"{what}.write.{when}" for when in ("before", "half", "after")]
    return (
        *write,
        *(f"{what}.{s}.{w}" for s in ("sync", "directory") for w in ("before", "after")),
    )


def write_durably(
    path: Path, data: bytes, what: str, faults: Faults = no_faults, *, mode: int = 0o666
) -> None:
    """Make ``path`` hold ``data``, atomically and durably.

    Args:
        path: the final name; its directory must exist.
        data: the whole content.
        what: prefix of the fault points (see `file_points`).
        faults: told about every step.
        mode: permissions of the file, before the umask; 0o600 for secrets.

    Raises:
        OSError: from the operating system; the temporary file is removed, ``path`` is untouched.
    """
    temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(6)}")
    try:
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)
        try:
            write_in_place(descriptor, data, 0, what, faults)
            faults.reach(f"{what}.sync.before")
            os.fsync(descriptor)
            faults.reach(f"{what}.sync.after")
        finally:
            os.close(descriptor)
        faults.reach(f"{what}.rename.before")
        os.replace(temporary, path)
        faults.reach(f"{what}.rename.after")
    except OSError:
        with contextlib.suppress(OSError):  # the first error is the one worth telling
            temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent, what, faults)


def write_in_place(
    descriptor: int,
    data: bytes | memoryview,
    offset: int,
    what: str,
    faults: Faults = no_faults,
) -> None:
    """Write ``data`` at ``offset``; under test, in two halves with a fault point between them."""
    view = memoryview(data).cast("B")
    faults.reach(f"{what}.write.before")
    if faults is not no_faults:
        half = len(view) // 2
        _write_all(descriptor, view[:half], offset)
        faults.reach(f"{what}.write.half")
        view, offset = view[half:], offset + half
    _write_all(descriptor, view, offset)
    faults.reach(f"{what}.write.after")


def _write_all(descriptor: int, view: memoryview, offset: int) -> None:
    while len(view):
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def make_directory(path: Path, what: str, faults: Faults = no_faults) -> None:
    """Create ``path`` and its parents so that their entries survive a power cut."""
    if path.is_dir():
        return
    make_directory(path.parent, what, faults)
    faults.reach(f"{what}.mkdir.before")
    path.mkdir(exist_ok=True)
    _sync_entries(path.parent)
    faults.reach(f"{what}.mkdir.after")


def sync_directory(path: Path, what: str, faults: Faults = no_faults) -> None:
    """Make the names in ``path`` durable."""
    faults.reach(f"{what}.directory.before")
    _sync_entries(path)
    faults.reach(f"{what}.directory.after")


def _sync_entries(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def disk_problem(error: OSError, path: Path, doing: str) -> AnabranchError:
    """What the operating system said, in words that lead on: AB-602, AB-603 or AB-613."""
    if error.errno in _FULL:
        return full_disk(path, doing)
    if error.errno in _DENIED:
        return AnabranchError(
            "AB-603",
            f"{doing} is not allowed: {path} cannot be written ({error.strerror}).",
            fix="give the user write permission, or choose another folder for the store.",
            kept=INTACT,
        )
    return AnabranchError(
        "AB-613",
        f"{doing} failed: the disk reported an error at {path} ({error.strerror or error}).",
        fix="check the disk and its cable or mount, then resume the run.",
        kept=INTACT,
    )


def full_disk(path: Path, doing: str) -> AnabranchError:
    """AB-602: no space (or quota) is left where ``path`` lives."""
    return AnabranchError(
        "AB-602",
        f"{doing} failed: no space is left on the disk of {path}.",
        fix="free some space on that disk, then resume the run.",
        kept=INTACT,
    )


@contextlib.contextmanager
def explained(path: Path, doing: str) -> Iterator[None]:
    """Turn an `OSError` inside the block into an `AnabranchError` (see `disk_problem`)."""
    try:
        yield
    except OSError as error:
        raise disk_problem(error, path, doing) from error
