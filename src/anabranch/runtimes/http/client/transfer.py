"""Moving large byte strings: downloads that go on where they broke off, uploads alike.

A download is checked against its name, an upload against its receipt. A model lies in the client's
memory once: a download fills one buffer, and an upload sends views of the arrays.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import httpx

from anabranch.errors import AnabranchError
from anabranch.runtimes.http.client.line import (
    PASSING,
    Line,
    Waiting,
    checked,
    parsed,
    trouble_of,
)
from anabranch.runtimes.http.client.options import not_the_protocol
from anabranch.runtimes.http.messages import OpenUpload, Receipt, UploadState, digest_header
from anabranch.updates.container import Buffer, joined, size_of

__all__ = ["Traffic", "download", "upload"]

_WHOLE: Final = 1 << 20
_PIECE: Final = 1 << 18
_FIRST_PART, _SMALLEST_PART, _LARGEST_PART = 8 << 20, 1 << 18, 256 << 20
_QUICK, _SLOW = 2.0, 30.0


@dataclass
class Traffic:
    """Bytes of bodies that were moved, repeated ones included.

    Attributes:
        down: received.
        up: sent.
    """

    down: int = 0
    up: int = 0


def download(line: Line, digest: str, size: int, traffic: Traffic | None = None) -> bytearray:
    """The bytes of a name.

    Args:
        line: to the coordinator.
        digest: their SHA-256, hexadecimal.
        size: how many; more are not taken.
        traffic: is added to.

    Raises:
        AnabranchError: AB-713 the task that refers to them was closed, AB-714 the bytes are not
            those of the name, AB-718 the coordinator is out of reach.
    """
    buffer, have, hasher = bytearray(size), 0, hashlib.sha256()
    view, waiting, renewed = memoryview(buffer), Waiting.of(line.options), False
    moved = traffic or Traffic()
    while True:
        headers = {"Range": f"bytes={have}-", "If-Range": f'"{digest}"'} if have else {}
        trouble = "the answer was too short"
        try:
            request = line.request("GET", f"/blobs/{digest}", headers=headers)
            with line.stream(request) as response:
                if line.renews(response, first=not renewed):
                    renewed = True
                    continue
                if response.status_code in PASSING:
                    trouble = f"status {response.status_code}"
                else:
                    checked(response)
                    if have and response.status_code != 206:
                        have, hasher = 0, hashlib.sha256()
                    for piece in response.iter_raw():
                        end = have + len(piece)
                        if end > size:
                            raise _damaged()
                        view[have:end] = piece
                        hasher.update(piece)
                        have, moved.down = end, moved.down + len(piece)
                        waiting.progress()
        except httpx.TransportError as error:
            trouble = trouble_of(error)
        if have == size:
            if hasher.hexdigest() != digest:
                raise _damaged()
            return buffer
        waiting.again(trouble)


def upload(
    line: Line, task: str, parts: Sequence[Buffer], traffic: Traffic | None = None
) -> Receipt:
    """Send an answer; the receipt says that it is durable.

    Raises:
        AnabranchError: AB-713 the task was closed, AB-716 another answer was taken, AB-718 the
            coordinator is out of reach, AB-757 the receipt is not signed.
    """
    hasher = hashlib.sha256()
    for part in parts:
        hasher.update(part)
    digest, size, moved = hasher.hexdigest(), size_of(parts), traffic or Traffic()
    if size <= _WHOLE:
        headers = {"Content-Digest": digest_header(digest)}
        content = joined(parts)
        moved.up += size
        answer = line.send("PUT", f"/tasks/{task}/update", content=content, headers=headers)
    else:
        answer = _Sending(line, task, parts, digest, size, moved).send()
    receipt = parsed(Receipt, answer)
    line.checker.require(receipt, receipt.signature, task)
    if receipt.sha256 not in ("", digest):
        raise not_the_protocol("its receipt is for other bytes")
    return receipt


@dataclass
class _Sending:
    line: Line
    task: str
    parts: Sequence[Buffer]
    digest: str
    size: int
    traffic: Traffic
    part: int = _FIRST_PART

    def send(self) -> httpx.Response:
        """Parts until the coordinator has them all; the last answer is the receipt."""
        waiting = Waiting.of(self.line.options)
        answer = self._begin()
        while True:
            state = _state(answer)
            if state is None:
                return answer
            before, trouble = state.offset, "the upload makes no progress"
            try:
                answer = self._send_part(state)
            except httpx.TransportError as error:
                trouble = trouble_of(error)
                self.part = max(_SMALLEST_PART, self.part // 4)
                waiting.again(trouble)
                answer = self._begin()
            except AnabranchError as error:
                if error.code not in ("AB-752", "AB-754", "AB-714", "AB-755"):
                    raise
                waiting.again(error.code)
                answer = self._begin()
            after = _state(answer)
            if after is None or after.offset > before:
                waiting.progress()

    def _begin(self) -> httpx.Response:
        asked = OpenUpload(sha256=self.digest, length=self.size)
        content = asked.model_dump_json().encode()
        return self.line.send("POST", f"/tasks/{self.task}/uploads", content=content)

    def _send_part(self, state: UploadState) -> httpx.Response:
        end = min(self.size, state.offset + self.part)
        headers = {
            "Upload-Offset": str(state.offset),
            "Content-Length": str(end - state.offset),
            "Content-Type": "application/offset+octet-stream",
        }
        path = f"/uploads/{state.upload}"
        body = self._pieces(state.offset, end)
        started = time.monotonic()
        request = self.line.request("PATCH", path, content=body, headers=headers)
        response = self.line.http.send(request)
        seconds = time.monotonic() - started
        if seconds < _QUICK:
            self.part = min(_LARGEST_PART, 4 * self.part)
        elif seconds > _SLOW:
            self.part = max(_SMALLEST_PART, self.part // 2)
        if self.line.renews(response, first=True):
            raise AnabranchError("AB-755", "the session is over.", fix="nothing: it is renewed.")
        if response.status_code in PASSING:
            raise httpx.ReadError(f"status {response.status_code}")
        return checked(response)

    def _pieces(self, start: int, end: int) -> Iterator[bytes]:
        """The bytes from ``start`` to ``end`` of all parts, in pieces of a bounded size."""
        position = 0
        for part in self.parts:
            view = memoryview(part)
            first, last = max(start - position, 0), min(end - position, len(view))
            for place in range(first, last, _PIECE):
                piece = bytes(view[place : min(last, place + _PIECE)])
                self.traffic.up += len(piece)
                yield piece
            position += len(view)


def _state(answer: httpx.Response) -> UploadState | None:
    """Where the upload stands; None when the answer is the receipt."""
    return parsed(UploadState, answer) if "upload-offset" in answer.headers else None


def _damaged() -> AnabranchError:
    return AnabranchError(
        "AB-714",
        "the download is not the bytes that its name promises.",
        fix="look at what stands between client and coordinator (a proxy that changes content?).",
        kept="Nothing was sent.",
    )
