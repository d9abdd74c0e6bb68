"""What a client keeps to prove what was done with its updates: heads and receipts.

They are signed by the coordinator and hold no secret, so they lie in plain files: one line of JSON
each, appended. A line that a crash left unfinished is cut off; it is asked for again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Final, TypeVar

from pydantic import ValidationError

from anabranch.client.log import ClientLog, Detail, read_log
from anabranch.client.proof import Contribution, Proof, contributions, prove
from anabranch.client.task import Fate
from anabranch.disk import Faults, explained, make_directory, no_faults
from anabranch.errors import AnabranchError
from anabranch.fleet.identity import fingerprint
from anabranch.fleet.receipts import Head, Receipt, SignedHead, check_heads, counted
from anabranch.values import Value

__all__ = ["EVIDENCE", "Evidence", "receipted"]

Item = TypeVar("Item", bound=Value)

EVIDENCE: Final = "evidence"
"""Where heads and receipts lie in a client's home."""

_RECEIPTS: Final = "receipts.jsonl"


class Evidence:
    """Heads and receipts of one coordinator.

    Args:
        folder: where the files lie; made when absent.
        log: is told what was shown.
        name: of the client.
        coordinator: the pinned public key.
        faults: told about every step that touches the disk (tests).

    Raises:
        AnabranchError: AB-748 a kept line is damaged, AB-6xx from the disk.
    """

    def __init__(
        self,
        folder: Path,
        log: ClientLog,
        name: str,
        coordinator: bytes,
        faults: Faults = no_faults,
    ) -> None:
        self._folder, self._log, self._name, self._key = Path(folder), log, name, coordinator
        self._faults = faults
        with explained(self._folder, "opening the receipts"):
            make_directory(self._folder, "evidence", faults)
        self._latest: dict[str, Head | None] = {}

    def latest(self, run: str) -> Head | None:
        """The latest head of a run that was shown; None before the first."""
        if run not in self._latest:
            heads = self.heads(run)
            self._latest[run] = heads[-1].head if heads else None
        return self._latest[run]

    def heads(self, run: str) -> tuple[SignedHead, ...]:
        """Every head of a run that was shown, in order."""
        return tuple(_read(self._file(run), SignedHead))

    def every_head(self) -> tuple[SignedHead, ...]:
        """The heads of all runs."""
        files = sorted(self._folder.glob("heads-*.jsonl"))
        return tuple(signed for file in files for signed in _read(file, SignedHead))

    def exported(self) -> str:
        """Every head, to be compared at another client (`foreign`)."""
        return "".join(signed.model_dump_json() + "\n" for signed in self.every_head())

    def foreign(self, path: Path) -> tuple[SignedHead, ...]:
        """The heads that another client exported; only those that our coordinator signed count.

        Raises:
            AnabranchError: AB-748 a line is damaged or not signed by our coordinator.
        """
        found = tuple(_read(path, SignedHead))
        for signed in found:
            signed.verified(self._key)
        return found

    def shown(self, run: str, heads: Sequence[SignedHead]) -> Head | None:
        """Check that rounds go on from those shown before, and keep them; the latest.

        Raises:
            AnabranchError: AB-748 unsigned, rolled back, forked, or of another run; the log says so
                durably.
        """
        known = self.latest(run)
        try:
            latest = check_heads(known, heads, self._key)
            if any(signed.head.run != run for signed in heads):
                raise _mixed(run)
        except AnabranchError as error:
            details = {"run": run, "why": error.message}
            self._log.add("distrust", fingerprint(self._key), details, durable=True)
            raise
        new = [signed for signed in heads if known is None or signed.head.round > known.round]
        if new and latest is not None:
            _append(self._file(run), new, self._faults)
            self._latest[run] = latest
            details = {"run": run, "head": latest.digest}
            self._log.add("head", fingerprint(self._key), {**details, "round": latest.round})
        return latest

    def unproved(self) -> tuple[Contribution, ...]:
        """Updates that were told to be merged and have no receipt yet."""
        sent = contributions(read_log(self._log.path))
        merged = (Fate.MERGED.value, Fate.MERGED_LATE.value)
        return tuple(p for p in sent if p.fate in merged and p.task not in self._receipts)

    def keep(self, receipt: Receipt, hashes: Sequence[str] = ()) -> None:
        """Keep a receipt; `verify` finds out whether it holds. The same one is kept once.

        Args:
            receipt: of one of this client's updates.
            hashes: every leaf of its round's tree, if they were sent along.

        Raises:
            AnabranchError: AB-748 the tree is another one, or counts the update more than once.
        """
        if hashes and (times := counted(hashes, receipt)) != 1:
            raise _mixed(receipt.head.head.run, f"an update stands {times} times in a round")
        held = self._receipts.setdefault(receipt.leaf.task, [])
        if receipt not in held:
            _append(self._folder / _RECEIPTS, [receipt], self._faults)
            held.append(receipt)

    @cached_property
    def _receipts(self) -> dict[str, list[Receipt]]:
        """By task; more than one only where the coordinator counted a task twice."""
        found: dict[str, list[Receipt]] = {}
        for receipt in _read(self._folder / _RECEIPTS, Receipt):
            found.setdefault(receipt.leaf.task, []).append(receipt)
        return found

    def verify(self) -> tuple[Proof, ...]:
        """A verdict on every update that left.

        Raises:
            AnabranchError: AB-748 a run's kept heads are no chain, or others than the log says;
                AB-749 the log is broken.
        """
        sent = contributions(read_log(self._log.path))
        heads: dict[tuple[str, int], Head] = {}
        for run in {part.run for part in sent}:
            held = self.heads(run)
            check_heads(None, held, self._key)
            heads |= {(run, signed.head.round): signed.head for signed in held}
        for entry in read_log(self._log.path):
            place = _place(entry.details)
            told = heads.get(place) if entry.what == "head" else None
            if told is not None and told.digest != entry.details.get("head"):
                raise _mixed(place[0])
        return prove(sent, self._receipts, self._name, self._key, heads)

    def _file(self, run: str) -> Path:
        # The id of a run is the coordinator's word: it never becomes part of a path.
        return self._folder / f"heads-{hashlib.sha256(run.encode()).hexdigest()[:32]}.jsonl"


def receipted(home: Path) -> frozenset[str]:
    """Tasks of a client that have receipts, also while its process runs; nothing is checked."""
    path = home / EVIDENCE / _RECEIPTS
    lines = path.read_bytes().splitlines() if path.exists() else []
    found = set()
    for line in lines:
        with suppress(ValidationError):  # the line that is just being written
            found.add(Receipt.model_validate_json(line).leaf.task)
    return frozenset(found)


def _place(details: dict[str, Detail]) -> tuple[str, int]:
    run, number = details.get("run"), details.get("round")
    return str(run), number if isinstance(number, int) else -1


def _append(path: Path, items: Sequence[Value], faults: Faults) -> None:
    """All of them or, when the disk fails, nothing: half a line would damage the next one."""
    lines = b"".join(item.model_dump_json().encode() + b"\n" for item in items)
    with explained(path, "writing the receipts"), path.open("ab", buffering=0) as file:
        size = file.tell()
        try:
            faults.reach("evidence.write.before")
            rest = memoryview(lines)
            while rest:
                rest = rest[file.write(rest) :]
            faults.reach("evidence.write.after")
        except OSError:
            file.truncate(size)
            raise


def _read(path: Path, kind: type[Item]) -> Iterator[Item]:
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return
    for number, line in enumerate(lines):
        try:
            yield kind.model_validate_json(line)
        except ValidationError as error:
            if number == len(lines) - 1 and not line.endswith(b"\n"):
                with path.open("r+b") as file:  # a crash came in between: it is shown again
                    file.truncate(sum(map(len, lines[:-1])))
                return
            raise AnabranchError(
                "AB-748",
                f"{path} is damaged at line {number + 1}.",
                fix="restore the client's folder from a backup.",
                kept="Nothing was sent.",
            ) from error


def _mixed(run: str, why: str = "its heads are not those that were shown before") -> AnabranchError:
    return AnabranchError(
        "AB-748",
        f"what the coordinator says of run {run!r} does not hold: {why}.",
        fix="keep the client's folder and ask the operator for the round's record.",
        kept="The client's own log is unchanged.",
    )
