"""What is remembered of the downlink: by the coordinator (durable) and by a client."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from anabranch.errors import AnabranchError
from anabranch.updates.grid import Change, Grid, Point, plus, read_change, write_change
from anabranch.updates.packed import FRAME_BYTES, Packed, Writer, open_frame, seal
from anabranch.updates.sections import Vector

__all__ = ["Changes", "DownlinkState", "Held", "Vectors", "frame_of", "opened", "unreadable"]

Vectors = Mapping[str, Vector]
"""What is broadcast, by section name."""

Changes = Mapping[str, Change]
"""What leads from one version to another, by section name."""

_CODEC = 64
_FORMAT = 1


@dataclass(frozen=True)
class Held:
    """What a client keeps of the last broadcast that it decoded.

    Attributes:
        version: its number; 0 for the origin.
        point: its place on the grid; empty for the origin.
    """

    version: int = 0
    point: Point = field(default_factory=dict)

    def grid(self, name: str, length: int) -> Grid:
        """One section of it."""
        return self.point.get(name) or Grid.zero(length)


@dataclass(frozen=True)
class DownlinkState:
    """What the coordinator remembers; part of the durable state of a run.

    Attributes:
        held: version that each client holds, int64, by client number.
        newest: the last broadcast on the grid and its number.
        whole: the frame that leads to it from the origin; enough for every client.
        steps: frames that each lead from one version to the next, the last one to the newest.
    """

    held: NDArray[np.int64]
    newest: Held = Held()
    whole: bytes = b""
    steps: tuple[bytes, ...] = ()

    def for_clients(self, clients: int) -> DownlinkState:
        """The same state for a fleet that has grown; new clients hold the origin."""
        new = max(0, clients - len(self.held))
        return replace(self, held=np.concatenate([self.held, np.zeros(new, np.int64)]))

    def received(self, clients: Iterable[int], version: int) -> DownlinkState:
        """The state once these clients are known to hold ``version``."""
        held, listed = self.held.copy(), list(clients)
        held[listed] = np.maximum(held[listed], version)
        return replace(self, held=held)

    def frames(self, versions: Iterable[int], lengths: Mapping[str, int]) -> dict[int, bytes]:
        """What leads holders of each of these versions to the newest: the difference or the whole,
        whichever is shorter.

        Args:
            versions: that clients hold.
            lengths: coordinates of the broadcast sections.
        """
        frames = dict.fromkeys(versions, self.whole)
        oldest, changes = min((v for v in frames if v), default=self.newest.version), None
        for step in reversed(self.steps):
            start, _, own = opened(step, lengths)
            if start < oldest:
                break
            try:
                changes = {n: plus(c, changes[n]) for n, c in own.items()} if changes else own
            except OverflowError:  # steps of the grid are too far apart
                break
            if start in frames:
                different = frame_of(start, self.newest.version, changes)
                frames[start] = min(different, self.whole, key=len)
        return frames

    def sizes(self, held: NDArray[np.int64], *, differences: bool = True) -> NDArray[np.float64]:
        """Bytes that holders of these versions will be sent, before their frames are made: those of
        the whole, or of all steps since, whichever is less. For the last version that is exact;
        for older ones the steps together are shorter than their sum.

        Args:
            held: versions, by client.
            differences: whether differences are sent at all.
        """
        sizes = np.full(len(held), float(len(self.whole)))
        sent = 0
        for step in reversed(self.steps if differences else ()):
            sent += len(step)
            (start,) = struct.unpack_from("<I", step, FRAME_BYTES)
            if start:
                sizes[held == start] = min(sent, len(self.whole))
        return sizes

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """For the store; the inverse of `from_arrays`."""
        return {
            "held": self.held,
            "version": np.array([self.newest.version], np.int64),
            "whole": np.frombuffer(self.whole, np.uint8),
            "steps": np.frombuffer(b"".join(self.steps), np.uint8),
            "lengths": np.array([len(step) for step in self.steps], np.int64),
        }

    @staticmethod
    def from_arrays(
        arrays: Mapping[str, NDArray[np.generic]], lengths: Mapping[str, int]
    ) -> DownlinkState:
        """The state as it was stored; ``lengths`` are those of the broadcast sections."""
        whole, steps = arrays["whole"].tobytes(), arrays["steps"].tobytes()
        newest = Held(int(arrays["version"].astype(np.int64)[0]))
        if newest.version:
            _, _, changes = opened(whole, lengths)
            point = {n: c.after(Grid.zero(lengths[n])) for n, c in changes.items()}
            newest = replace(newest, point=point)
        ends = np.cumsum(arrays["lengths"].astype(np.int64)).tolist()
        cut = tuple(steps[a:b] for a, b in zip([0, *ends], ends, strict=False))
        return DownlinkState(arrays["held"].astype(np.int64), newest, whole, cut)


def frame_of(start: int, end: int, changes: Changes) -> bytes:
    """The frame that leads from version ``start`` to version ``end``: both numbers (u32), then the
    change of each section."""
    writer = Writer()
    writer.number(start, "<u4")
    writer.number(end, "<u4")
    for change in changes.values():
        write_change(change, writer)
    total = sum(len(change.units) for change in changes.values())
    return seal(_CODEC, _FORMAT, total, writer.body).content


def opened(content: bytes, lengths: Mapping[str, int]) -> tuple[int, int, dict[str, Change]]:
    """The versions and the changes of a frame.

    Args:
        content: what arrived.
        lengths: coordinates of each section, as declared; nothing longer is decoded.

    Raises:
        AnabranchError: AB-525 when it is not what `frame_of` makes.
    """
    try:
        packed = Packed(sum(lengths.values()), content)
        reader = open_frame(packed, _CODEC, _FORMAT, "downlink")
        start, end = reader.integer("<u4"), reader.integer("<u4")
        changes = {name: read_change(reader, length) for name, length in lengths.items()}
        reader.end()
    except AnabranchError as error:
        raise unreadable(error) from error
    return start, end, changes


def unreadable(error: AnabranchError) -> AnabranchError:
    """AB-525: what came down cannot be read, and why."""
    return AnabranchError(
        "AB-525",
        f"a broadcast cannot be read: {error.message}",
        fix="use the same plan and software version at the client and the coordinator; ask for the "
        "whole model.",
        kept="The client keeps the version that it holds.",
    )
