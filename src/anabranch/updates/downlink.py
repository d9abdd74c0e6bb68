"""What goes down to clients: the broadcast as bytes, in half of its size or as a difference.

The coordinator alone keeps state: which version each client holds, and the last differences. What a
client decodes depends on the version alone, not on the way by which it came there, so every client
of a round computes with the same bits, in a simulation as in a deployment::

    vectors, state = downlink.step(vectors, origin, state, version)     at the coordinator
    frames = state.frames(versions that clients hold, lengths)
    held, vectors = downlink.receive(frame, held, origin)                at a client

The origin is the first broadcast, which follows from the plan; it is version 0, and everybody holds
it. That the server keeps the error of the downlink is known from Tang et al., "DoubleSqueeze"
(2019). Here the exact vector is rounded to a grid anew each time, so what one version leaves out
stands in the next difference by itself.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal, NamedTuple, TypeAlias

import numpy as np
from pydantic import Field

from anabranch.errors import AnabranchError
from anabranch.updates.downlink_state import (
    Changes,
    DownlinkState,
    Held,
    Vectors,
    frame_of,
    opened,
    unreadable,
)
from anabranch.updates.grid import Change, Grid, Point, coarse_exponent
from anabranch.updates.lossless import read_packed_halves, write_packed_halves
from anabranch.updates.packed import Packed, Reader, Writer, open_frame, seal
from anabranch.updates.sections import Vector
from anabranch.values import Value

__all__ = ["AnyDownlink", "DeltaDownlink", "Downlink", "HalfDownlink", "Sent"]

Decoded: TypeAlias = tuple[Held, dict[str, Vector]]
"""What a client keeps, and what it computes with."""

_CODEC = 65
_FORMAT = 1


class Sent(NamedTuple):
    """One broadcast: what every receiver decodes, and the coordinator's next state."""

    vectors: dict[str, Vector]
    state: DownlinkState


class Downlink(Value):
    """Base of the ways to send a broadcast; all of them are pure."""

    kind: str

    @property
    def remembers(self) -> bool:
        """Whether clients keep the last broadcast until the next one."""
        return False

    def start(self, clients: int) -> DownlinkState:
        """The state of a fleet that holds nothing but the origin."""
        return DownlinkState(np.zeros(clients, np.int64))

    def step(self, vectors: Vectors, origin: Vectors, state: DownlinkState, version: int) -> Sent:
        """Encode the next version; `DownlinkState.frames` has the bytes for each client.

        Args:
            vectors: what the server computed.
            origin: the first broadcast of the run.
            state: of the last broadcast.
            version: number of the new one, above the last.
        """
        raise NotImplementedError

    def receive(self, content: bytes, held: Held, origin: Vectors) -> Decoded:
        """Decode a frame at a client.

        Args:
            content: the frame.
            held: what the client keeps of the last one.
            origin: the first broadcast of the run.

        Returns:
            What the client keeps from now on, and the vectors: those of `Sent`.

        Raises:
            AnabranchError: AB-525 when the frame cannot be read, AB-526 when it is a difference to
                another version than the one held.
        """
        raise NotImplementedError


class HalfDownlink(Downlink):
    """Every vector rounded to float16 behind a power of two: half of the bytes, nothing to keep."""

    kind: Literal["fp16"] = "fp16"
    level: int = Field(default=1, ge=1, le=19)
    """Level of the compressor of the shuffled bytes."""

    def step(self, vectors: Vectors, origin: Vectors, state: DownlinkState, version: int) -> Sent:
        writer = Writer()
        for vector in vectors.values():
            part = Writer()
            write_packed_halves(vector, self.level, part)
            writer.number(len(part.body), "<u8")
            writer.raw(part.body)
        frame = seal(_CODEC, _FORMAT, _total(vectors), writer.body).content
        _, decoded = self.receive(frame, Held(), origin)
        return Sent(decoded, replace(state, whole=frame))

    def receive(self, content: bytes, held: Held, origin: Vectors) -> Decoded:
        try:
            reader = open_frame(Packed(_total(origin), content), _CODEC, _FORMAT, self.kind)
            parts = {n: Reader(reader.raw(reader.integer("<u8"))) for n in origin}
            reader.end()
            decoded = {n: read_packed_halves(p, len(origin[n])) for n, p in parts.items()}
        except AnabranchError as error:
            raise unreadable(error) from error
        return held, decoded


class DeltaDownlink(Downlink):
    """The difference to the version that a client holds, on a grid that everybody knows.

    A client that holds none of the last ``window`` versions gets the difference to the origin,
    which needs at most sixteen bits a coordinate: the whole model is never larger than as float16.
    """

    kind: Literal["delta"] = "delta"
    coarseness: float = Field(
        default=1.0, ge=2.0**-10, le=4.0, json_schema_extra={"unit": "root mean squares"}
    )
    """Step of the grid in root mean squares of what a round changes, rounded to a power of two;
    larger is smaller and less exact."""
    window: int = Field(default=16, ge=0, le=1024, json_schema_extra={"unit": "versions"})
    """Versions back to which differences are sent; to all others the whole model. 0: clients keep
    nothing and always get the whole model."""

    @property
    def remembers(self) -> bool:
        return self.window > 0

    def step(self, vectors: Vectors, origin: Vectors, state: DownlinkState, version: int) -> Sent:
        before = state.newest
        point = {
            name: self._grid(vector, origin[name], before.grid(name, len(vector)))
            for name, vector in vectors.items()
        }
        whole = frame_of(0, version, _changes(Held(), point))
        steps = self._steps(state, point, version)
        after = replace(state, newest=Held(version, point), whole=whole, steps=steps)
        return Sent({name: grid.vector(origin[name]) for name, grid in point.items()}, after)

    def receive(self, content: bytes, held: Held, origin: Vectors) -> Decoded:
        start, end, changes = opened(content, {name: len(v) for name, v in origin.items()})
        if start not in (0, held.version):
            raise AnabranchError(
                "AB-526",
                f"a broadcast is the difference to version {start}; this client holds version "
                f"{held.version}.",
                fix="ask for the whole model, and keep what is decoded until the next broadcast.",
                kept="The client keeps the version that it holds.",
            )
        base = held if start else Held()
        try:
            point = {n: c.after(base.grid(n, len(origin[n]))) for n, c in changes.items()}
        except AnabranchError as error:
            raise unreadable(error) from error
        return Held(end, point), {n: grid.vector(origin[n]) for n, grid in point.items()}

    def _grid(self, vector: Vector, origin: Vector, before: Grid) -> Grid:
        exponent = coarse_exponent(vector, origin, before, self.coarseness)
        return Grid.nearest(vector, origin, exponent)

    def _steps(self, state: DownlinkState, point: Point, version: int) -> tuple[bytes, ...]:
        """The last frames from version to version, with the new one."""
        if not self.window:
            return ()
        try:
            new = frame_of(state.newest.version, version, _changes(state.newest, point))
        except OverflowError:  # nobody can come from an older version to this one
            return ()
        return (*state.steps, new)[-self.window :]


def _changes(before: Held, point: Point) -> Changes:
    """What leads to ``point``; OverflowError when steps are too far apart."""
    return {
        name: Change.between(before.grid(name, len(grid.units)), grid)
        for name, grid in point.items()
    }


def _total(vectors: Vectors) -> int:
    return sum(len(vector) for vector in vectors.values())


AnyDownlink = Annotated[HalfDownlink | DeltaDownlink, Field(discriminator="kind")]
"""What a plan may write in ``[updates.downlink]``."""
