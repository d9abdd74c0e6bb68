"""Encoded broadcasts on the wire: a container with the frame, and what goes down beside it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import numpy as np

from anabranch.algorithms.base import Broadcast
from anabranch.errors import AnabranchError
from anabranch.runtimes.http.messages import checked_vectors, pack_broadcast
from anabranch.updates.container import Buffer, parts_of, read_views
from anabranch.updates.sections import Sections, Vector

if TYPE_CHECKING:
    from anabranch.coordinator.runtime import Work

__all__ = ["FRAME", "pack_frame", "pack_work", "sections_beside", "unpack_frame", "vectors_digest"]

FRAME: Final = "downlink"
"""Name of the frame in the container; no broadcast declares a section of that name."""


def pack_work(work: Work, sections: Sections) -> tuple[tuple[Buffer, ...], str]:
    """What every client of a work can read, and the SHA-256 of the vectors it decodes to; that is
    empty where it holds them as they are.

    Args:
        work: its broadcast may be empty.
        sections: the type of a broadcast.
    """
    frames = work.frames
    if frames is None or not work.broadcast:
        return pack_broadcast(work.broadcast, sections if work.broadcast else Sections(())), ""
    beside = sections_beside(sections, frames.names)
    decoded = vectors_digest({name: work.broadcast[name] for name in frames.names})
    return pack_frame(frames.whole, work.broadcast, beside), decoded


def pack_frame(frame: bytes, broadcast: Broadcast, beside: Sections) -> tuple[Buffer, ...]:
    """One encoded download.

    Args:
        frame: what the plan's downlink has made.
        broadcast: the vectors that clients compute with.
        beside: sections that the frame does not hold, which go down as float32.
    """
    arrays = {s.name: np.ascontiguousarray(broadcast[s.name]) for s in beside}
    return parts_of({FRAME: np.frombuffer(frame, np.uint8), **arrays})


def unpack_frame(content: Buffer, beside: Sections) -> tuple[bytes, dict[str, Vector]]:
    """The inverse of `pack_frame`: the frame, and the vectors beside it.

    Raises:
        AnabranchError: AB-525 there is no frame, AB-720 the vectors beside it are not those that
            the client's program expects.
    """
    try:
        arrays = read_views(content)
    except ValueError:
        arrays = {}
    frame = arrays.pop(FRAME, None)
    if frame is None or frame.dtype != np.uint8 or frame.ndim != 1:
        raise AnabranchError(
            "AB-525",
            "a broadcast cannot be read: the download holds no frame.",
            fix="use the same plan and software version at the client and the coordinator.",
            kept="The client keeps the version that it holds.",
        )
    return frame.tobytes(), checked_vectors(arrays, beside)


def sections_beside(sections: Sections, framed: tuple[str, ...]) -> Sections:
    """The sections of a broadcast that no frame holds."""
    return Sections(tuple(s for s in sections if s.name not in framed))


def vectors_digest(vectors: Broadcast) -> str:
    """SHA-256 of decoded vectors, by name: name, length and float32 bytes, little endian.

    >>> vectors_digest({"model": np.zeros(2, np.float32)})[:8]
    '6f19a21b'
    """
    digest = hashlib.sha256(b"anabranch broadcast 1\n")
    for name in sorted(vectors):
        vector = np.ascontiguousarray(vectors[name], np.dtype("<f4"))
        digest.update(f"{name} {len(vector)}\n".encode())
        digest.update(vector.data)
    return digest.hexdigest()
