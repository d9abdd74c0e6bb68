"""Moving large byte strings: downloads that go on where they broke off, uploads alike.

A download is checked against its name, an upload against its receipt. A model lies in the client's
memory once: a download fills one buffer, and an upload sends views of the arrays.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import httpx

from anabranch.errors import AnabranchError
from anabranch.runtimes.http.client.line import (
    Line,
    Waiting,
    checked,
    parsed,
    passing,
    trouble_of,
)
from anabranch.runtimes.http.client.options import not_the_protocol
from anabranch.runtimes.http.messages import (
    OpenUpload,
    Receipt,
    TaskOffer,
    UploadState,
    digest_header,
)
from anabranch.updates.container import Buffer, joined, size_of

__all__ = ["Traffic", "download", "letter", "upload"]

_TINY: Final = 1 << 12  # less than a session costs
_WHOLE: Final = 1 << 20
_PIECE, _SMALL_PIECE = 1 << 18, 1 << 11
_FIRST_PART, _SMALLEST_PART, _LARGEST_PART = 8 << 20, 1 << 13, 256 << 20
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
    fetching = _Fetching(line, f"/blobs/{digest}", traffic or Traffic(), digest, size)
    return fetching.all()


def letter(line: Line, offer: TaskOffer, traffic: Traffic | None = None) -> bytes:
    """The bytes that come with a task of an interactive stage; none when it has no letter.

    Raises:
        AnabranchError: as `download`.
    """
    if not offer.letter:
        return b""
    path = f"/tasks/{offer.task}/letter"
    return bytes(_Fetching(line, path, traffic or Traffic(), offer.letter).all())


@dataclass
class _Fetching:
    """Bytes that are on their way down.

    Attributes:
        line: to the coordinator.
        path: of what is fetched.
        traffic: is added to.
        digest: SHA-256 of all bytes.
        size: number of bytes; when negative the first answer tells.
        have: bytes that arrived.
        most: the largest ``have`` so far: a server that knows no ranges begins anew each time, and
            only what goes beyond that is progress.
        span: bytes that are asked for at once; on a line that breaks only a few.
    """

    line: Line
    path: str
    traffic: Traffic
    digest: str
    size: int = -1
    have: int = 0
    most: int = 0
    span: int = 0
    _buffer: bytearray = field(init=False)

    def __post_init__(self) -> None:
        self._hasher = hashlib.sha256()
        self._buffer = bytearray(max(0, self.size))

    def all(self) -> bytearray:
        """Ask until everything is there."""
        waiting, renewed = Waiting.of(self.line.options), False
        while True:
            before, trouble = self.most, "the answer was too short"
            try:
                request = self.line.request("GET", self.path, headers=self._range())
                with self.line.stream(request) as response:
                    if self.line.renews(response, first=not renewed):
                        renewed = True
                        continue
                    if passing(response):
                        trouble = f"status {response.status_code}"
                    else:
                        self._take(checked(response), waiting)
            except httpx.TransportError as error:
                trouble = trouble_of(error)
                self.span = _SMALLEST_PART
            else:
                self.span *= 4
            if self.have == self.size:
                if self._hasher.hexdigest() != self.digest:
                    raise _damaged()
                return self._buffer
            if self.most == before or not self.span:
                waiting.again(trouble)

    def _range(self) -> dict[str, str]:
        if not (self.have or self.span):
            return {}
        end = str(self.have + self.span - 1) if self.span else ""
        return {"Range": f"bytes={self.have}-{end}", "If-Range": f'"{self.digest}"'}

    def _take(self, response: httpx.Response, waiting: Waiting) -> None:
        """Put what comes where it belongs; an answer from the start begins anew."""
        self._learn(response)
        if response.status_code != 206:
            self.have, self._hasher = 0, hashlib.sha256()
        view = memoryview(self._buffer)
        for piece in response.iter_raw():
            end = self.have + len(piece)
            if end > self.size:
                raise _damaged()
            view[self.have : end] = piece
            self._hasher.update(piece)
            self.have, self.traffic.down = end, self.traffic.down + len(piece)
            if self.have > self.most:
                self.most = self.have
                waiting.progress()

    def _learn(self, response: httpx.Response) -> None:
        """What is to come, where only the coordinator knows."""
        if self.size >= 0:
            return
        length = response.headers.get("content-length", "")
        if response.status_code == 206:
            length = response.headers.get("content-range", "").rpartition("/")[2]
        if not (length.isdecimal() and int(length) <= _LARGEST_PART):
            raise not_the_protocol("its letter does not say how long it is")
        self.size, self._buffer = int(length), bytearray(int(length))


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
    sending = _Sending(line, task, parts, digest, size, moved)
    answer = sending.send_whole() if size <= _WHOLE else sending.send()
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

    def send_whole(self) -> httpx.Response:
        """Everything in one request.

        A line that breaks in the middle of it may break there every time: then the answer is sent
        in parts, of which what has arrived counts. A tiny one is sent again: parts cost more.
        """
        headers = {"Content-Digest": digest_header(self.digest)}
        path, tiny = f"/tasks/{self.task}/update", self.size <= _TINY
        patience = None if tiny else 0.0
        self.traffic.up += self.size
        try:
            return self.line.send(
                "PUT", path, content=joined(self.parts), headers=headers, patience=patience
            )
        except AnabranchError as error:
            if tiny or error.code != "AB-718":
                raise
        self.part = _PIECE // 4
        return self.send()

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
        if passing(response):
            raise httpx.ReadError(f"status {response.status_code}", request=request)
        return checked(response)

    def _pieces(self, start: int, end: int) -> Iterator[bytes]:
        """The bytes from ``start`` to ``end`` of all parts, in pieces of a bounded size.

        On a line that breaks the pieces are small: of a TLS record that was cut nothing arrives.
        """
        position, size = 0, _PIECE if self.part >= _PIECE else _SMALL_PIECE
        for part in self.parts:
            view = memoryview(part)
            first, last = max(start - position, 0), min(end - position, len(view))
            for place in range(first, last, size):
                piece = bytes(view[place : min(last, place + size)])
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
