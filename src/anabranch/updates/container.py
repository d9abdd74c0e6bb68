"""The container of updates and broadcasts, without copies: safetensors, written and read in place.

The format is a length (u64, little endian), a JSON object that says name, type, shape and place of
each array, and the arrays back to back. The library of that name copies every array twice; a model
of a gigabyte should lie in memory once. What is written here has the library's own bytes.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError

from anabranch.values import Value

__all__ = ["Buffer", "joined", "parts_of", "read_views", "size_of"]

Buffer: TypeAlias = bytes | bytearray | memoryview
"""Bytes somewhere: a file that is mapped into memory counts."""

_TYPES: Final[Mapping[str, np.dtype[np.generic]]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "U8": np.dtype("u1"),
}
_NAMES: Final = {dtype: name for name, dtype in _TYPES.items()}
_LENGTH: Final = struct.Struct("<Q")
_LARGEST_HEADER: Final = 1 << 20


class _Entry(Value):
    dtype: str
    shape: tuple[int, ...] = Field(max_length=8)
    data_offsets: tuple[int, int]


_HEADER: Final = TypeAdapter(dict[str, _Entry])


def parts_of(arrays: Mapping[str, NDArray[np.generic]]) -> tuple[Buffer, ...]:
    """The container as a header and one view for each array.

    Args:
        arrays: contiguous, of float32, float64 or uint8.

    >>> joined(parts_of({"a": np.zeros(2, np.float32)}))[8:26]
    b'{"a":{"dtype":"F32'
    """
    order = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))
    entries, position = {}, 0
    for name in order:
        array = arrays[name]
        end = position + array.nbytes
        kind = _NAMES[array.dtype]
        entries[name] = {
            "dtype": kind,
            "shape": list(array.shape),
            "data_offsets": [position, end],
        }
        position = end
    header = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-len(header) % 8)
    views = (arrays[name].reshape(-1).data.cast("B") for name in order if arrays[name].size)
    return (_LENGTH.pack(len(header)) + header, *views)


def size_of(parts: Iterable[Buffer]) -> int:
    """Bytes of a container in parts."""
    return sum(len(part) for part in parts)


def joined(parts: Iterable[Buffer]) -> bytes:
    """The container as one byte string (a copy)."""
    return b"".join(parts)


def read_views(content: Buffer) -> dict[str, NDArray[np.generic]]:
    """The arrays as read-only views of ``content``; every length and place is checked.

    Raises:
        ValueError: this is not such a container.
    """
    view = memoryview(content).toreadonly()
    if len(view) < _LENGTH.size:
        raise ValueError("no header")
    (length,) = _LENGTH.unpack(view[: _LENGTH.size])
    if length > min(_LARGEST_HEADER, len(view) - _LENGTH.size):
        raise ValueError("the header is longer than the content")
    body = view[_LENGTH.size + length :]
    try:
        text = json.loads(bytes(view[_LENGTH.size : _LENGTH.size + length]))
        if isinstance(text, dict):
            text.pop("__metadata__", None)
        entries = _HEADER.validate_python(text)
    except (ValidationError, RecursionError, ValueError) as error:
        raise ValueError("the header is not the declared JSON object") from error
    arrays, position = {}, 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        arrays[name] = _array(body, entry, position)
        position = entry.data_offsets[1]
    if position != len(body):
        raise ValueError("the arrays do not fill the content")
    return arrays


def _array(body: memoryview, entry: _Entry, position: int) -> NDArray[np.generic]:
    start, end = entry.data_offsets
    dtype = _TYPES.get(entry.dtype)
    fits = dtype is not None and all(0 <= n < 2**53 for n in entry.shape)
    if dtype is None or not fits or start != position or not start <= end <= len(body):
        raise ValueError("an array has no known type or place")
    if end - start != math.prod(entry.shape) * dtype.itemsize:
        raise ValueError("an array is not as long as its shape says")
    return np.frombuffer(body[start:end], dtype).reshape(entry.shape)
