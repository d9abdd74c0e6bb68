"""What a coordinator must know of secure sums after a restart: attempts, and a sum half opened."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from anabranch.disk import explained, make_directory, write_durably
from anabranch.errors import AnabranchError
from anabranch.privacy.secure_aggregation.stored import unreadable
from anabranch.privacy.secure_aggregation.wire import Reader, Writer

__all__ = ["FileSumJournal", "MemorySumJournal", "SumJournal", "SumRecord"]

_MAGIC = b"anabranch-secagg-journal/1"


@dataclass(frozen=True)
class SumRecord:
    """The newest sum of one purpose.

    Attributes:
        round: it belongs to.
        attempt: the newest that clients may have heard of.
        reveals: the coordinator's state once clients may have been asked to reveal; else empty.
    """

    round: int
    attempt: int
    reveals: bytes = field(default=b"", repr=False)


class SumJournal(Protocol):
    """Keeps the newest record of each purpose."""

    def load(self, purpose: str, round_: int) -> SumRecord | None:
        """The record of this round, if there is one."""
        ...

    def newest(self, purpose: str) -> int:
        """The round of the newest record; -1 before the first."""
        ...

    def save(self, purpose: str, record: SumRecord) -> None:
        """Durable when this returns; takes the place of what was there."""
        ...


class MemorySumJournal:
    """For simulated clients: they end with the coordinator, and begin anew with it."""

    def __init__(self) -> None:
        self._records: dict[str, SumRecord] = {}

    def load(self, purpose: str, round_: int) -> SumRecord | None:
        found = self._records.get(purpose)
        return found if found is not None and found.round == round_ else None

    def newest(self, purpose: str) -> int:
        found = self._records.get(purpose)
        return -1 if found is None else found.round

    def save(self, purpose: str, record: SumRecord) -> None:
        self._records[purpose] = record


class FileSumJournal:
    """One small file for each purpose.

    Args:
        directory: of the run; made when absent.

    Raises:
        AnabranchError: AB-6xx from the disk; AB-969 for a file that can not be read.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = Path(directory)

    def load(self, purpose: str, round_: int) -> SumRecord | None:
        record = self._read(purpose)
        return record if record is not None and record.round == round_ else None

    def newest(self, purpose: str) -> int:
        record = self._read(purpose)
        return -1 if record is None else record.round

    def _read(self, purpose: str) -> SumRecord | None:
        path = self._path(purpose)
        with explained(path, "reading a secure sum"):
            if not path.exists():
                return None
            content = path.read_bytes()
        try:
            reader = Reader(content)
            if reader.raw(len(_MAGIC)) != _MAGIC:
                raise unreadable("it is of another version")
            record = SumRecord(reader.number(), reader.number(1), reader.blob())
            reader.finish()
        except AnabranchError as error:
            raise unreadable(error.message) from error
        return record

    def save(self, purpose: str, record: SumRecord) -> None:
        writer = Writer().raw(_MAGIC).number(record.round).number(record.attempt, 1)
        content = writer.blob(record.reveals).finish()
        path = self._path(purpose)
        make_directory(self._directory, "secure")
        with explained(path, "writing a secure sum"):
            write_durably(path, content, "secure", mode=0o600)

    def _path(self, purpose: str) -> Path:
        return self._directory / f"{purpose}.sum"
