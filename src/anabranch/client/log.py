"""The client's own log: what was asked, by whom, what was decided, what left. Hash-chained.

One line of canonical JSON for each entry; each names the digest of the line before it, so that no
line can be changed, dropped or moved without all later ones changing too. It is plain text: who
runs the site reads it without this program. It holds names, counts, sizes and digests, never a
value of the data. Keep a head (`anabranch verify` prints it) elsewhere to notice a log that was
rewritten as a whole.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, TypeAlias

from pydantic import Field, ValidationError

from anabranch.canonical import Document, canonical_bytes
from anabranch.disk import Faults, explained, make_directory, no_faults
from anabranch.errors import AnabranchError
from anabranch.values import Value

__all__ = ["ClientLog", "Detail", "Entry", "read_log"]

Detail: TypeAlias = bool | int | str | list[str] | None
"""One fact of an entry."""

FIRST: Final = "0" * 64
"""What the first entry names as the one before."""


class Entry(Value):
    """One thing that happened."""

    number: int = Field(ge=0, lt=2**53)
    """Counted from 0."""
    previous: str = Field(pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of the line before."""
    at: int = Field(ge=0, lt=2**53)
    """Seconds since 1970 by the client's clock; for people, nothing relies on it."""
    what: str = Field(min_length=1, max_length=64)
    """Kind of entry: ``asked``, ``sent``, ``declined`` …"""
    who: str = Field(default="", max_length=200)
    """Whose doing it was: a fingerprint or a name."""
    details: dict[str, Detail] = Field(default_factory=dict)
    """Facts by name."""

    def line(self) -> bytes:
        """The line of the log, with its end."""
        document: Document = self.model_dump(mode="json")
        return canonical_bytes(document) + b"\n"


class ClientLog:
    """The log, open for writing.

    A line that a crash left unfinished is cut off when the log is opened again: it was never
    reported as written.

    Args:
        path: the file; made when absent.
        clock: seconds since 1970.
        faults: told about every step that touches the disk (tests).

    Raises:
        AnabranchError: AB-749 the chain is broken, AB-6xx from the disk.

    Attributes:
        path: the file.
        head: SHA-256 of the last line.
        count: entries.
    """

    def __init__(
        self,
        path: Path,
        clock: Callable[[], float] = time.time,
        faults: Faults = no_faults,
    ) -> None:
        self.path, self._clock, self._faults = Path(path), clock, faults
        with explained(self.path, "opening the client's log"):
            make_directory(self.path.parent, "log")
            _drop_unfinished(self.path)
        self.head, self.count = FIRST, 0
        for entry in read_log(self.path):
            self.head, self.count = _digest(entry.line()), entry.number + 1
        with explained(self.path, "opening the client's log"):
            flags = os.O_CREAT | os.O_APPEND | os.O_WRONLY
            self._descriptor = os.open(self.path, flags, 0o600)

    def add(
        self,
        what: str,
        who: str = "",
        details: Mapping[str, Detail] | None = None,
        *,
        durable: bool = False,
    ) -> Entry:
        """Append an entry.

        Args:
            what: kind.
            who: whose doing.
            details: facts; never a value of the data.
            durable: on the disk before this returns, with everything before it: so it must be for
                what is about to leave. Other entries reach the disk with the next durable one.

        Raises:
            AnabranchError: AB-602, AB-603 or AB-613; nothing may then leave.
        """
        entry = Entry(
            number=self.count,
            previous=self.head,
            at=max(int(self._clock()), 0),
            what=what,
            who=who,
            details=dict(details or {}),
        )
        line = entry.line()
        with explained(self.path, "writing the client's log"):
            _write_whole(self._descriptor, line, self._faults)
            if durable:
                self._faults.reach("log.sync.before")
                os.fsync(self._descriptor)
                self._faults.reach("log.sync.after")
        self.head, self.count = _digest(line), entry.number + 1
        return entry

    def close(self) -> None:
        """Make everything durable and close the file."""
        with explained(self.path, "closing the client's log"):
            os.fsync(self._descriptor)
            os.close(self._descriptor)

    def __enter__(self) -> ClientLog:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def read_log(path: Path) -> Iterator[Entry]:
    """The entries of a log in order, each checked against the one before.

    Raises:
        AnabranchError: AB-749 at the first line that is damaged or does not follow.
    """
    head, number = FIRST, 0
    try:
        with path.open("rb") as file:
            for line in file:
                entry = _entry(path, number, line)
                if entry.previous != head or entry.number != number or entry.line() != line:
                    raise _broken(path, number)
                yield entry
                head, number = _digest(line), number + 1
    except FileNotFoundError:
        return


def _entry(path: Path, number: int, line: bytes) -> Entry:
    try:
        return Entry.model_validate_json(line)
    except ValidationError as error:
        raise _broken(path, number) from error


def _digest(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


def _drop_unfinished(path: Path) -> None:
    if not path.exists():
        return
    with path.open("r+b") as file:
        size = end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - 4096)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                end = start + found + 1
                break
            end = start
        if end < size:
            file.truncate(end)
            os.fsync(file.fileno())


def _write_whole(descriptor: int, line: bytes, faults: Faults) -> None:
    size = os.fstat(descriptor).st_size
    try:
        faults.reach("log.write.before")
        rest = memoryview(line)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        faults.reach("log.write.after")
    except OSError:
        os.ftruncate(descriptor, size)  # half a line would break the chain for the next one
        raise


def _broken(path: Path, number: int) -> AnabranchError:
    return AnabranchError(
        "AB-749",
        f"the client's log {path} is broken at entry {number}: it was damaged or changed.",
        fix="keep the file as evidence; move it away to begin a new log, or restore it from a "
        "backup.",
        kept="Nothing was sent.",
    )
