"""Codecs that send few coordinates, or of all only the sign.

What they leave out is lost on average, so by default the client keeps it and adds it to its next
update (error feedback: Stich et al. 2018; Karimireddy et al. 2019). That needs clients that come
back; the shared random mask needs none, because it is right on average.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from anabranch.randomness import derived_seed
from anabranch.updates.codec import Codec, LevelCodec, codec_contract
from anabranch.updates.levels import Levels
from anabranch.updates.packed import FRAME_BYTES, Packed, Reader, Writer, inconsistent
from anabranch.updates.sections import Vector
from anabranch.updates.stages import EncodeContext, StageContract
from anabranch.updates.symbols import Symbols, read_symbols, write_symbols

__all__ = ["STC", "ErrorFeedback", "RandomMask", "Sign", "TopK"]

_UNBOUNDED = float("inf")


class ErrorFeedback(Codec):
    """A codec that shortens updates, and may keep what it left out."""

    feedback: bool = True
    """Whether clients keep what was not sent and add it to their next update."""

    @property
    def remembers(self) -> bool:
        return self.feedback

    def contract(self) -> StageContract:
        # What was kept from earlier rounds may be any multiple of this round's update.
        return codec_contract(unbiased=False, inflation=_UNBOUNDED if self.feedback else 1.0)


class _Largest(ErrorFeedback):
    """Only the coordinates of largest absolute value are sent."""

    version: ClassVar[int] = 2  # 1 did not say which part of the coordinates is sent
    fraction: float = Field(default=0.01, gt=0, le=1, json_schema_extra={"unit": "of coordinates"})
    """Part of the coordinates that is sent; at least one is."""
    coarsest: float | None = Field(
        default=None, gt=0, le=1, json_schema_extra={"unit": "of coordinates"}
    )
    """Part down to which an update is encoded anew, two thirds of the last each time, to keep to
    ``updates.max_bytes``. Left out: the part stays as it is."""

    @model_validator(mode="after")
    def _coarser(self) -> _Largest:
        if self.coarsest is not None and self.coarsest > self.fraction:
            raise ValueError("coarsest must be at most fraction")
        return self

    def ladder(self) -> Iterator[Codec]:
        part, last = self.fraction, self.coarsest or self.fraction
        yield self
        while part > last:
            part = max(part / 1.5, last)
            yield self.replace(fraction=part, coarsest=None)

    def coarseness_of(self, packed: Packed) -> float | None:
        part = packed.content[FRAME_BYTES : FRAME_BYTES + 4]
        return struct.unpack("<f", part)[0] if len(part) == 4 else None

    def _write_places(self, delta: Vector, writer: Writer) -> NDArray[np.intp]:
        """The part that is sent, for the record of the round; returns where it lies."""
        writer.number(self.fraction, "<f4")
        return _largest(delta, _kept(len(delta), self.fraction))

    def _check_count(self, count: int, length: int) -> None:
        most = _kept(length, self.fraction)
        if not _kept(length, self.coarsest or self.fraction) <= count <= most:
            raise inconsistent("it holds another number of coordinates than the plan says")


def _kept(length: int, fraction: float) -> int:
    """At least ``fraction`` of the coordinates, so that a mask inflates by 1 / fraction at most."""
    return min(length, max(1, math.ceil(length * fraction - 1e-9)))


def _largest(delta: Vector, count: int) -> NDArray[np.intp]:
    """Places of the ``count`` largest absolute values in rising order; of equals the first."""
    sizes = np.abs(delta)
    bound = np.partition(sizes, len(sizes) - count)[len(sizes) - count]
    above = np.flatnonzero(sizes > bound)
    equal = np.flatnonzero(sizes == bound)[: count - len(above)]
    return np.sort(np.concatenate([above, equal]))


class TopK(_Largest):
    """The largest coordinates, as float16 or float32 values; their places as an ANS-coded bitmap.

    Aji and Heafield, "Sparse Communication for Distributed Gradient Descent" (2017).
    """

    name: ClassVar[str] = "topk"
    codec: ClassVar[int] = 5
    kind: Literal["topk"] = "topk"

    def write(self, delta: Vector, context: EncodeContext, writer: Writer) -> None:
        places = self._write_places(delta, writer)
        symbols = np.zeros(len(delta), np.int32)
        symbols[places] = 1
        write_symbols(symbols, writer)
        writer.array(delta[places], "<f4")

    def least_bytes(self, length: int) -> int:
        return FRAME_BYTES + 4 + 4 * _kept(length, self.coarsest or self.fraction)

    def read(self, reader: Reader, length: int) -> Vector:
        reader.scale()
        places = np.flatnonzero(_checked(read_symbols(reader, length), 0, 1))
        self._check_count(len(places), length)
        vector = np.zeros(length, np.float32)
        vector[places] = reader.floats(len(places))
        return vector


class STC(_Largest, LevelCodec):
    """Sparse ternary compression: the largest coordinates become plus or minus their mean size.

    Sattler et al., "Robust and Communication-Efficient Federated Learning from Non-IID Data"
    (2019), with ANS in place of Golomb codes.
    """

    name: ClassVar[str] = "stc"
    codec: ClassVar[int] = 6
    kind: Literal["stc"] = "stc"

    def write(self, delta: Vector, context: EncodeContext, writer: Writer) -> None:
        places = self._write_places(delta, writer)
        writer.number(float(np.abs(delta[places]).mean(dtype=np.float64)), "<f4")
        symbols = np.zeros(len(delta), np.int32)
        symbols[places] = np.where(delta[places] < 0, -1, 1)
        write_symbols(symbols, writer)

    def read_levels(self, reader: Reader, length: int) -> Levels:
        reader.scale()
        size = reader.scale()
        symbols = _checked(read_symbols(reader, length), -1, 1)
        self._check_count(int(np.count_nonzero(symbols)), length)
        return Levels(symbols, size)


def _checked(symbols: Symbols, low: int, high: int) -> Symbols:
    if int(symbols.min()) < low or int(symbols.max()) > high:
        raise inconsistent("a symbol is out of range")
    return symbols


class Sign(ErrorFeedback):
    """One bit a coordinate: its sign, times the mean absolute value of the update.

    Bernstein et al., "signSGD" (2018); the scale and the feedback as in Karimireddy et al., "Error
    Feedback Fixes SignSGD" (2019). A zero counts as positive.
    """

    name: ClassVar[str] = "sign"
    codec: ClassVar[int] = 7
    kind: Literal["sign"] = "sign"

    def write(self, delta: Vector, context: EncodeContext, writer: Writer) -> None:
        writer.number(float(np.abs(delta).mean(dtype=np.float64)), "<f4")
        writer.raw(np.packbits(delta < 0).tobytes())

    def least_bytes(self, length: int) -> int:
        return FRAME_BYTES + 4 + (length + 7) // 8

    def read(self, reader: Reader, length: int) -> Vector:
        size = reader.scale()
        packed = np.frombuffer(reader.raw((length + 7) // 8), np.uint8)
        return np.where(np.unpackbits(packed, count=length), -size, size).astype(np.float32)


class RandomMask(Codec):
    """The same random coordinates at every client of a round, divided by their part; the rest 0.

    Linear and right on average over rounds (random-k of Konečný et al., "Federated Learning:
    Strategies for Improving Communication Efficiency", 2016). All clients leave out the same
    coordinates, so more clients do not make the error smaller. The mask follows from ``seed`` and
    the round, which the frame names.
    """

    name: ClassVar[str] = "mask"
    codec: ClassVar[int] = 8
    kind: Literal["mask"] = "mask"
    fraction: float = Field(default=0.125, gt=0, le=1, json_schema_extra={"unit": "of coordinates"})
    """Part of the coordinates that is sent; at least one is."""
    seed: int = Field(default=0, ge=0, lt=2**53)
    """Public seed of the masks, shared by all clients."""

    def contract(self) -> StageContract:
        return codec_contract(unbiased=True, inflation=1 / self.fraction, linear=True)

    def write(self, delta: Vector, context: EncodeContext, writer: Writer) -> None:
        writer.number(context.round, "<u4")
        writer.array(delta[self.places(len(delta), context.round)], "<f4")

    def least_bytes(self, length: int) -> int:
        return FRAME_BYTES + 4 + 4 * _kept(length, self.fraction)

    def read(self, reader: Reader, length: int) -> Vector:
        places = self.places(length, reader.integer("<u4"))
        vector = np.zeros(length, np.float32)
        vector[places] = reader.floats(len(places)) * np.float32(length / len(places))
        return vector

    def kept(self, length: int) -> int:
        """How many of ``length`` coordinates are sent."""
        return _kept(length, self.fraction)

    def places(self, length: int, round_: int) -> NDArray[np.intp]:
        """The coordinates that are sent, in rising order.

        They are those with the smallest of ``length`` raw words of PCG64: the words are fixed by
        the generator's definition, unlike the derived draws of a library.
        """
        count = _kept(length, self.fraction)
        words = np.random.PCG64(derived_seed(self.seed, "mask", round_)).random_raw(length)
        bound = np.partition(words, count - 1)[count - 1]
        return np.flatnonzero(words <= bound)[:count]
