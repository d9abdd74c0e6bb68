"""A section as bytes: the frame that every codec shares, and how it is read without trust.

A frame is ``codec id (u8), version (u8), length (u64), CRC-32 (u32), body``, little endian. The
length is that of the vector which the body decodes to. Who decodes knows it beforehand, from the
declared sections, so nothing in a payload decides how much memory is taken. The CRC is over
everything but itself; it finds accidents, not forgery, so every field is checked besides.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anabranch.errors import AnabranchError

__all__ = [
    "FRAME_BYTES",
    "REFUSED",
    "Packed",
    "Reader",
    "Writer",
    "inconsistent",
    "not_packed",
    "open_frame",
    "seal",
]

_HEAD = struct.Struct("<BBQ")
_CRC = struct.Struct("<I")
FRAME_BYTES = _HEAD.size + _CRC.size
"""Bytes around a body."""

REFUSED = frozenset(("AB-520", "AB-521", "AB-522", "AB-523", "AB-524"))
"""Codes that refuse one client's payload; the round goes on without it."""

_SAME = "use the same plan and software version at the client and the coordinator."
_KEPT = "The update was refused; the round goes on."


@dataclass(frozen=True, slots=True)
class Packed:
    """A vector section as a codec's frame.

    Attributes:
        length: coordinates that the section is declared to have; never read from the content.
        content: the frame.
    """

    length: int
    content: bytes


class Writer:
    """Collects the body of a frame."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def array(self, values: NDArray[np.generic], dtype: str) -> None:
        """Append numbers as ``dtype``, which names its byte order."""
        self._parts.append(np.ascontiguousarray(values, np.dtype(dtype)).tobytes())

    def number(self, value: float, dtype: str) -> None:
        """Append one number."""
        self.array(np.array([value]), dtype)

    def raw(self, content: bytes) -> None:
        """Append bytes."""
        self._parts.append(content)

    @property
    def body(self) -> bytes:
        """Everything appended so far."""
        return b"".join(self._parts)


class Reader:
    """Takes a body apart; it never reads beyond the end.

    Every method raises AB-523 when the body is shorter than what is asked for, or when a number is
    not finite.
    """

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._position = 0

    @property
    def left(self) -> int:
        """Bytes that are not read yet."""
        return len(self._body) - self._position

    def raw(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        if not 0 <= count <= self.left:
            raise inconsistent("it ends before its last part")
        start, self._position = self._position, self._position + count
        return self._body[start : self._position]

    def array(self, count: int, dtype: str) -> NDArray[np.generic]:
        """The next ``count`` numbers of ``dtype``; floats are finite."""
        kind = np.dtype(dtype)
        values = np.frombuffer(self.raw(count * kind.itemsize), kind)
        if kind.kind == "f" and not np.isfinite(values).all():
            raise inconsistent("it holds a number that is not finite")
        return values

    def floats(self, count: int) -> NDArray[np.float32]:
        """The next ``count`` finite float32 numbers."""
        return self.array(count, "<f4").astype(np.float32, copy=False)

    def scale(self) -> np.float32:
        """One finite float32 of at least zero."""
        (value,) = self.floats(1)
        if value < 0:
            raise inconsistent("a scale is negative")
        return np.float32(value)

    def integer(self, dtype: str) -> int:
        """One integer of ``dtype``."""
        return int(self.array(1, dtype).astype(np.int64)[0])

    def end(self) -> None:
        """Raise AB-523 unless everything was read."""
        if self.left:
            raise inconsistent("it goes on after its last part")


def seal(codec: int, version: int, length: int, body: bytes) -> Packed:
    """The frame around a body."""
    head = _HEAD.pack(codec, version, length)
    crc = zlib.crc32(body, zlib.crc32(head))
    return Packed(length, head + _CRC.pack(crc) + body)


def open_frame(packed: Packed, codec: int, version: int, name: str) -> Reader:
    """The body of a frame, once everything around it is as declared.

    Raises:
        AnabranchError: AB-520 for another codec or version, AB-521 for another length, AB-522 when
            the content is cut short or its CRC is wrong.
    """
    content = packed.content
    if len(content) < FRAME_BYTES:
        raise _refusal("AB-522", f"a payload of {len(content)} bytes is too short for a frame.")
    got_codec, got_version, length = _HEAD.unpack_from(content)
    if (got_codec, got_version) != (codec, version):
        raise _refusal(
            "AB-520",
            f"a payload names codec {got_codec} version {got_version}; stage {name!r} is codec "
            f"{codec} version {version}.",
        )
    if length != packed.length:
        raise _refusal(
            "AB-521",
            f"a payload says that it decodes to {length} coordinates; declared are "
            f"{packed.length}.",
        )
    body = content[FRAME_BYTES:]
    if _CRC.unpack_from(content, _HEAD.size)[0] != zlib.crc32(body, zlib.crc32(content[:10])):
        raise _refusal("AB-522", "a payload does not have the checksum that it states.")
    return Reader(body)


def not_packed(name: str) -> AnabranchError:
    """AB-520: numbers came where stage ``name`` sends a frame."""
    return _refusal("AB-520", f"'delta' came as numbers; stage {name!r} sends it encoded.")


def inconsistent(reason: str) -> AnabranchError:
    """AB-523: the frame is whole, but its content cannot come from the codec."""
    return _refusal("AB-523", f"the content of a payload is not what its codec writes: {reason}.")


def _refusal(code: str, message: str) -> AnabranchError:
    return AnabranchError(code, message, fix=_SAME, kept=_KEPT)
