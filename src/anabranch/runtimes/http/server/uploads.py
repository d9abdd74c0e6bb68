"""Large answers on their way to the disk: in parts, checked, resumable, never whole in memory.

The name of an upload derives from task, client and checksum, so beginning it again finds what is
there. A part is appended where the upload ends; when its connection breaks, the bytes that came
stay, and the client goes on behind them. The SHA-256 is computed while bytes arrive and compared at
the end: an upload that does not have it is dropped whole.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from anabranch.disk import Faults, explained, make_directory, no_faults, sync_directory
from anabranch.errors import AnabranchError
from anabranch.runtimes.http.limits import HttpLimits

__all__ = ["Upload", "Uploads", "wrong_checksum"]

_SYNC_EVERY: Final = 32 << 20
_BLOCK: Final = 1 << 20


@dataclass
class Upload:
    """One upload in progress.

    Attributes:
        id: its name.
        task: what it answers.
        client: whose it is.
        digest: the SHA-256 that the client states.
        length: bytes that will come.
        offset: bytes that are there.
    """

    id: str
    task: str
    client: str
    digest: str
    length: int
    path: Path
    offset: int = 0
    touched: float = 0.0
    _hash: hashlib._Hash = field(default_factory=hashlib.sha256)
    _writer: int = 0

    @property
    def whole(self) -> bool:
        """Whether every byte is there."""
        return self.offset == self.length


class Uploads:
    """The uploads in progress of all clients; used by the server's event loop alone.

    Args:
        directory: for unfinished files; made when absent.
        limits: bounds.
        clock: monotonic seconds.
        faults: told about every step that touches the disk (tests).

    Raises:
        AnabranchError: AB-6xx from the disk.
    """

    def __init__(
        self,
        directory: Path,
        limits: HttpLimits,
        clock: Callable[[], float] = time.monotonic,
        faults: Faults = no_faults,
    ) -> None:
        self._directory, self._limits, self._clock = Path(directory), limits, clock
        self._faults = faults
        self._open: dict[str, Upload] = {}
        with explained(self._directory, "opening the uploads"):
            make_directory(self._directory, "upload", faults)

    def begin(self, task: str, client: str, digest: str, length: int) -> Upload:
        """The upload of these bytes: a new one, or what is there of an earlier attempt.

        A client has a few unfinished uploads at most: the one that it left longest ago goes.

        Raises:
            AnabranchError: AB-6xx from the disk.
        """
        text = f"{task}\0{client}\0{digest}\0{length}".encode()
        name = hashlib.sha256(text).hexdigest()[:32]
        upload = self._open.get(name)
        if upload is None:
            self._collect()
            self._make_room(client)
            upload = Upload(name, task, client, digest, length, self._directory / name)
            with explained(upload.path, "opening an upload"):
                _resume(upload)
            self._open[name] = upload
        upload.touched = self._clock()
        return upload

    def find(self, name: str, client: str) -> Upload:
        """An upload that was begun since the server started.

        Raises:
            AnabranchError: AB-752 there is none of this client.
        """
        upload = self._open.get(name)
        if upload is None or upload.client != client:
            raise AnabranchError(
                "AB-752",
                "the coordinator knows no such upload.",
                fix="begin the upload again: what arrived before is found and need not be sent.",
            )
        return upload

    async def append(self, upload: Upload, offset: int, body: AsyncIterator[bytes]) -> None:
        """Write a part at ``offset``; bytes that are there already are skipped.

        A newer part of the same upload ends an older one, whose connection is then gone anyhow.

        Raises:
            AnabranchError: AB-754 the part does not begin where the upload ends, AB-715 it is
                longer than announced, AB-6xx the disk.
        """
        if offset > upload.offset:
            raise _gap(upload.offset)
        upload._writer += 1
        turn, skip, unsynced = upload._writer, upload.offset - offset, 0
        with explained(upload.path, "writing an upload"):
            descriptor = os.open(upload.path, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                async for piece in body:
                    view = memoryview(piece)[min(skip, len(piece)) :]
                    skip -= len(piece) - len(view)
                    if upload._writer != turn:
                        raise _gap(upload.offset)
                    self._write(upload, descriptor, view)
                    unsynced += len(view)
                    if unsynced >= _SYNC_EVERY:  # so that the last sync finds little to do
                        unsynced = 0
                        await asyncio.to_thread(os.fdatasync, descriptor)
            finally:
                os.close(descriptor)

    def _write(self, upload: Upload, descriptor: int, view: memoryview) -> None:
        if upload.offset + len(view) > upload.length:
            raise AnabranchError(
                "AB-715",
                f"the upload is longer than the {upload.length} bytes that were announced.",
                fix="begin a new upload with the right length.",
                kept="The bytes beyond the announced length were dropped.",
            )
        self._faults.reach("upload.write.before")
        while len(view):  # what a full disk did not take is neither counted nor hashed
            written = os.pwrite(descriptor, view, upload.offset)
            upload._hash.update(view[:written])
            upload.offset += written
            view = view[written:]
        upload.touched = self._clock()
        self._faults.reach("upload.write.after")

    async def finish(self, upload: Upload, folder: Path) -> str:
        """Check and sync a whole upload and move it to ``folder``; returns its file name.

        Raises:
            AnabranchError: AB-714 it does not have the stated checksum and was dropped; AB-6xx.
        """
        if upload._hash.hexdigest() != upload.digest:
            self.drop(upload)
            raise wrong_checksum()
        with explained(upload.path, "syncing an upload"):
            await asyncio.to_thread(_settle, upload.path, folder / upload.id, self._faults)
        self._open.pop(upload.id, None)
        return upload.id

    def drop(self, upload: Upload) -> None:
        """Forget an upload and its bytes."""
        upload._writer += 1
        self._open.pop(upload.id, None)
        upload.path.unlink(missing_ok=True)

    def end(self, task: str, client: str) -> None:
        """The task has an answer: other uploads for it are not needed."""
        for upload in [u for u in self._open.values() if (u.task, u.client) == (task, client)]:
            self.drop(upload)

    def _make_room(self, client: str) -> None:
        own = sorted(
            (upload for upload in self._open.values() if upload.client == client),
            key=lambda upload: upload.touched,
        )
        for upload in own[: max(0, len(own) - self._limits.uploads + 1)]:
            self.drop(upload)

    def _collect(self) -> None:
        """Drop what nobody has gone on with for a long time, also of earlier processes."""
        oldest = self._clock() - self._limits.upload_seconds
        for upload in [u for u in self._open.values() if u.touched < oldest]:
            self.drop(upload)
        if not self._open:
            before = time.time() - self._limits.upload_seconds
            for path in self._directory.iterdir():
                if path.stat().st_mtime < before:
                    path.unlink(missing_ok=True)


def _resume(upload: Upload) -> None:
    """Take over what an earlier process received."""
    if not upload.path.exists():
        return
    if upload.path.stat().st_size > upload.length:
        upload.path.unlink()
        return
    with upload.path.open("rb") as file:
        while block := file.read(_BLOCK):
            upload._hash.update(block)
            upload.offset += len(block)


def _settle(path: Path, final: Path, faults: Faults) -> None:
    faults.reach("upload.sync.before")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    faults.reach("upload.sync.after")
    faults.reach("upload.rename.before")
    os.replace(path, final)
    faults.reach("upload.rename.after")
    sync_directory(final.parent, "upload", faults)


def wrong_checksum() -> AnabranchError:
    """AB-714: what came is not what was meant."""
    return AnabranchError(
        "AB-714",
        "the upload has no checksum or not the one that it states.",
        fix="send the header Content-Digest with the SHA-256, and send it again.",
    )


def _gap(offset: int) -> AnabranchError:
    return AnabranchError(
        "AB-754",
        f"the upload goes on at byte {offset}, and this part does not begin there.",
        fix="ask where the upload stands (HEAD), and go on from there.",
        kept="The bytes before are kept.",
    )
