"""Answers that must not be made twice: kept, sealed, before the first byte of them leaves.

What a client adds to an answer to protect its data (noise, secret coins, masks) is fresh randomness
of its operating system. Were the same task answered twice, after a crash or a broken line, two
answers with different noise would have left, and both ends would have counted one. So the bytes
themselves are on the disk before they leave, and whoever asks again gets the same bytes:

- killed before they are kept: nothing left, and the task is done anew;
- killed afterwards: the same bytes are sent, and cost nothing;
- the same task with another question: refused;
- the fate of the task is known: the bytes go, and a mark stays, so that it is never answered anew.
  The same happens to all but the newest few: a client does one task after the other, and of an
  evaluation nobody ever tells a fate.

A key from which the noise could be drawn again would not do: with other data, another version of a
library or another processor the same noise would cover another value, and the difference of the two
answers would have no noise at all.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final, Protocol

from anabranch.disk import TEMPORARY, Faults, explained, make_directory, no_faults, write_durably
from anabranch.errors import AnabranchError

__all__ = ["ANSWERS", "Answers"]

ANSWERS: Final = "answers"
"""The folder's name beside a run's memory."""

_MAGIC: Final = b"anabranch-answer/1"
_DIGEST: Final = 32
_WHOLE: Final = 16
"""Answers of which the bytes are kept while no fate is known."""
_SMALL: Final = 256
"""A file of so many bytes is a mark, or not worth one."""


class Sealer(Protocol):
    """Encrypts what lies on the disk (`anabranch.client.vault.Vault`)."""

    def seal(self, purpose: str, content: bytes) -> bytes: ...

    def open(self, purpose: str, sealed: bytes, where: Path) -> bytes: ...


class Answers:
    """The answers of one client in one run.

    Args:
        directory: of the run at this client; a folder is made in it when something is kept.
        sealer: encrypts the files; None writes them as they are, for their owner alone.
        faults: told about every step that touches the disk (tests).
    """

    def __init__(
        self, directory: Path, sealer: Sealer | None = None, faults: Faults = no_faults
    ) -> None:
        self._folder = Path(directory) / ANSWERS
        self._sealer, self._faults = sealer, faults

    def recall(self, task: str, question: bytes, letter: bytes = b"") -> bytes | None:
        """The bytes that were kept for this task; None when it was never answered.

        Args:
            task: 32 hexadecimal digits.
            question: everything that was asked, but the letter.
            letter: of a secure sum: every attempt has one, and an answer of its own.

        Raises:
            AnabranchError: AB-979 it was answered to another question, or its fate is known
                already; AB-747 the file was damaged; AB-6xx from the disk.
        """
        path = self._file(task, letter)
        if not path.exists():
            return None
        with explained(path, "reading an answer that was kept"):
            content = path.read_bytes()
        if self._sealer is not None:
            content = self._sealer.open(_purpose(task), content, path)
        head = len(_MAGIC) + _DIGEST
        if content[: len(_MAGIC)] != _MAGIC or len(content) < head:
            raise _refused(task, f"what was kept of it in {path} cannot be read")
        if len(content) == head:
            raise _refused(task, "what became of it was told")
        if content[len(_MAGIC) : head] != _digest(question, letter):
            raise _refused(task, "another question was asked")
        return content[head:]

    def keep(self, task: str, question: bytes, content: bytes, letter: bytes = b"") -> None:
        """Keep an answer, durably, before any of it leaves.

        Raises:
            AnabranchError: AB-6xx from the disk: nothing may leave.
        """
        with explained(self._folder, "making a folder for answers"):
            make_directory(self._folder, "answers", self._faults)
        self._prune()
        self._write(self._file(task, letter), task, _digest(question, letter) + content)

    def settled(self, task: str) -> None:
        """Its fate is known: only the mark stays that it was answered. May be repeated."""
        for path in self._folder.glob(f"{task}*") if self._folder.is_dir() else ():
            self._write(path, task, bytes(_DIGEST))

    def _prune(self) -> None:
        """Leave only marks of all but the newest answers, so that the folder does not grow."""
        kept = [p for p in self._folder.iterdir() if not p.name.startswith(TEMPORARY)]
        found = [(path.stat(), path) for path in kept]
        whole = sorted((s.st_mtime_ns, path) for s, path in found if s.st_size > _SMALL)
        for _, path in whole[: max(0, len(whole) - _WHOLE + 1)]:
            self._write(path, path.name.partition("-")[0], bytes(_DIGEST))

    def _write(self, path: Path, task: str, content: bytes) -> None:
        content = _MAGIC + content
        if self._sealer is not None:
            content = self._sealer.seal(_purpose(task), content)
        with explained(path, "keeping an answer"):
            write_durably(path, content, "answers", self._faults, mode=0o600)

    def _file(self, task: str, letter: bytes) -> Path:
        attempt = f"-{hashlib.sha256(letter).hexdigest()[:16]}" if letter else ""
        return self._folder / f"{task}{attempt}"


def _digest(question: bytes, letter: bytes) -> bytes:
    digest = hashlib.sha256(len(question).to_bytes(8, "big") + question)
    digest.update(letter)
    return digest.digest()


def _purpose(task: str) -> str:
    return f"answer of {task}"


def _refused(task: str, why: str) -> AnabranchError:
    return AnabranchError(
        "AB-979",
        f"task {task[:16]} was answered before, and {why}: another answer would be one more "
        "release, which nobody counts.",
        fix="nothing at this site. Who runs the coordinator should see why it asks again: a store "
        "from an old copy, or a second coordinator of the same run.",
        kept="Nothing was computed and nothing was sent.",
    )
