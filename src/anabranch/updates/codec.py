"""What every codec shares: the delta becomes a frame at the client and a vector again before the
fold, and what the frame does not hold may be remembered for the next round (error feedback).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np

from anabranch.errors import AnabranchError
from anabranch.updates.levels import Levels
from anabranch.updates.packed import (
    FRAME_BYTES,
    Packed,
    Reader,
    Writer,
    not_packed,
    open_frame,
    seal,
)
from anabranch.updates.sections import Section, Sections, Update, Vector
from anabranch.updates.stages import EncodeContext, Stage, StageContract
from anabranch.updates.total import Finest
from anabranch.updates.wire import packed_size

__all__ = ["Codec", "LevelCodec", "codec_contract"]

_REST = "rest"


def codec_contract(
    *, unbiased: bool, inflation: float, linear: bool = False, lossy: bool = True
) -> StageContract:
    """The contract of a codec: it leaves bytes, so each update is decoded before the fold."""
    return StageContract(
        linear=linear,
        unbiased=unbiased,
        inflation=inflation,
        finest=Finest.INDIVIDUALS,
        packs=True,
        lossy=lossy,
    )


class Codec(Stage):
    """Base of the stages that turn ``delta`` into a frame; other sections are left alone.

    Subclasses write and read the body; `encode` and `decode_one` do the rest. The body may depend
    on nothing but the arguments of `write`.
    """

    codec: ClassVar[int]
    """Number in the frame, unique among codecs; never used again for something else."""
    version: ClassVar[int] = 1
    """Of the body's format."""

    @property
    def remembers(self) -> bool:
        """Whether clients keep what was not sent and add it to their next update."""
        return False

    def memory(self, sections: Sections) -> tuple[Section, ...]:
        return (Section.vector(_REST, sections["delta"].length),) if self.remembers else ()

    def ladder(self) -> Iterator[Codec]:
        """Ways to write, each smaller than the one before, all read by this codec: the first one
        that meets ``EncodeContext.max_bytes`` is sent."""
        yield self

    def least_bytes(self, length: int) -> int:
        """A number of bytes that no frame of ``length`` coordinates falls below."""
        return FRAME_BYTES

    def coarseness_of(self, packed: Packed) -> float | None:
        """Which way of the `ladder` a frame was written; None for codecs with one way only.

        What is read is checked when the frame is decoded, not here.
        """
        return None

    def write(self, delta: Vector, context: EncodeContext, writer: Writer) -> None:
        """Write the body for a finite vector of at least one coordinate."""
        raise NotImplementedError

    def read(self, reader: Reader, length: int) -> Vector:
        """A new float32 vector of exactly ``length``.

        Raises:
            AnabranchError: AB-523 when the body is not what `write` writes.
        """
        raise NotImplementedError

    def encode(
        self, update: Update, memory: Mapping[str, Vector], context: EncodeContext
    ) -> tuple[Update, Mapping[str, Vector]]:
        """The update with its delta packed, and what is kept of it.

        Raises:
            AnabranchError: AB-502 when a value is not finite, AB-524 when the update does not fit
                the bytes that it may have.
        """
        delta = update.vectors["delta"].astype(np.float32, copy=False)
        if self.remembers:
            with np.errstate(over="ignore", invalid="ignore"):  # refused just below
                delta = delta + memory[_REST]
        if not np.isfinite(delta).all():
            raise _not_finite(context.client)
        others = {name: v for name, v in update.vectors.items() if name != "delta"}
        packed = self._fitting(delta, context, Update(others, update.scalars, update.packed))
        sent = Update(others, update.scalars, {**update.packed, "delta": packed})
        if not self.remembers:
            return sent, {}
        with np.errstate(over="ignore"):
            rest = delta - self._unpacked(packed)
        return sent, {_REST: rest}

    def decode_one(self, update: Update) -> Update:
        """The update with its delta as numbers again.

        Raises:
            AnabranchError: AB-520 to AB-523 when the frame is not one of this codec with the
                declared length.
        """
        packed = self._frame(update)
        if packed is None:
            return update  # an evaluation, or another update that the fold will name
        vectors = {**update.vectors, "delta": self._unpacked(packed)}
        return Update(vectors, update.scalars, _others(update))

    def _frame(self, update: Update) -> Packed | None:
        packed = update.packed.get("delta")
        if packed is None and "delta" in update.vectors:
            raise not_packed(self.name)
        return packed

    def _fitting(self, delta: Vector, context: EncodeContext, others: Update) -> Packed:
        """The first frame of the ladder that leaves room for all else that is sent."""
        smallest = 0
        for way in self.ladder():
            packed = way._packed(delta, context)
            if context.max_bytes is None:
                return packed
            held = {**others.packed, "delta": packed}
            smallest = packed_size(Update(others.vectors, others.scalars, held))
            if smallest <= context.max_bytes:
                return packed
        raise AnabranchError(
            "AB-524",
            f"client {context.client!r}: the update has {smallest} bytes at the coarsest; "
            f"updates.max_bytes allows {context.max_bytes}.",
            fix="allow more bytes, or let the codec go further (its parameter 'coarsest').",
            kept="Nothing of this client was sent; the round goes on.",
        )

    def _packed(self, delta: Vector, context: EncodeContext) -> Packed:
        writer = Writer()
        if len(delta):
            self.write(delta, context, writer)
        return seal(self.codec, self.version, len(delta), writer.body)

    def _unpacked(self, packed: Packed) -> Vector:
        reader = open_frame(packed, self.codec, self.version, self.name)
        vector = np.zeros(0, np.float32)
        if packed.length:
            with np.errstate(over="ignore", invalid="ignore"):  # what overflows, the fold refuses
                vector = self.read(reader, packed.length)
        reader.end()
        return vector


class LevelCodec(Codec):
    """A codec whose vectors are whole numbers times one step: they may be added up as such."""

    def read_levels(self, reader: Reader, length: int) -> Levels:
        """Exactly ``length`` numbers and their step.

        Raises:
            AnabranchError: AB-523 when the body is not what `write` writes.
        """
        raise NotImplementedError

    def read(self, reader: Reader, length: int) -> Vector:
        return self.read_levels(reader, length).vector()

    def decode_levels(self, update: Update) -> Update:
        """`decode_one` for who only adds up: the delta stays whole numbers and a step."""
        packed = self._frame(update)
        if packed is None or not packed.length:
            return self.decode_one(update)
        reader = open_frame(packed, self.codec, self.version, self.name)
        levels = self.read_levels(reader, packed.length)
        reader.end()
        return Update(update.vectors, update.scalars, _others(update), {"delta": levels})


def _others(update: Update) -> dict[str, Packed]:
    return {name: packed for name, packed in update.packed.items() if name != "delta"}


def _not_finite(client: str) -> AnabranchError:
    return AnabranchError(
        "AB-502",
        f"client {client!r}: a value of section 'delta' is not finite, so it cannot be encoded.",
        fix="lower the learning rate, or clip gradients with local.clip_norm.",
        kept="Nothing of this client was sent; the round goes on.",
    )
