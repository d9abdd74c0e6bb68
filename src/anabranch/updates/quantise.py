"""Codecs that round each coordinate to few levels and entropy-code the levels.

What training leaves is far from Gaussian: of a small CNN's update one per cent of the coordinates
holds half of the energy. One step for all coordinates, and an entropy coder that makes the many
zeros nearly free, keeps that structure; scales for each bucket and rotations even it out.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from anabranch.updates.codec import Codec, LevelCodec, codec_contract
from anabranch.updates.integers import read_integers, write_integers
from anabranch.updates.levels import Levels
from anabranch.updates.norm import squared_norm
from anabranch.updates.packed import FRAME_BYTES, Packed, Reader, Writer, inconsistent
from anabranch.updates.sections import Vector
from anabranch.updates.stages import EncodeContext, StageContract
from anabranch.updates.symbols import Symbols, read_symbols, write_symbols

__all__ = ["ECQ", "QSGD", "Rounding", "Ternary"]

Rounding = Literal["stochastic", "nearest"]

_BIG = 2.0**30
"""Levels beyond would not fit an int32; no plan reaches them, a tiny step could."""


class ECQ(LevelCodec):
    """Entropy-coded quantisation: symbols round(x / step), step = coarseness * rms(x), ANS-coded.

    Stochastic rounding is unbiased; its error in a mean of n clients shrinks as 1 / n. Rounding to
    the nearest level errs least for one client, and is biased towards zero.
    """

    name: ClassVar[str] = "ecq"
    codec: ClassVar[int] = 1
    version: ClassVar[int] = 2  # 1 did not say how coarse the step is
    kind: Literal["ecq"] = "ecq"
    coarseness: float = Field(
        default=6.0, ge=2.0**-10, le=1024.0, json_schema_extra={"unit": "root mean squares"}
    )
    """Step of the levels in root mean squares of the update; larger is smaller and less exact."""
    rounding: Rounding = "stochastic"
    """``stochastic`` is right on average, ``nearest`` errs least for a single client."""

    coarsest: float | None = Field(
        default=None, ge=2.0**-10, le=1024.0, json_schema_extra={"unit": "root mean squares"}
    )
    """Step up to which an update is encoded anew, half as coarse again each time, to keep to
    ``updates.max_bytes``. Left out: the step stays as it is."""

    @model_validator(mode="after")
    def _coarser(self) -> ECQ:
        if self.coarsest is not None and self.coarsest < self.coarseness:
            raise ValueError("coarsest must be at least coarseness")
        return self

    def ladder(self) -> Iterator[Codec]:
        step, last = self.coarseness, self.coarsest or self.coarseness
        yield self
        while step < last:
            step = min(1.5 * step, last)
            yield ECQ(coarseness=step, rounding=self.rounding)

    def contract(self) -> StageContract:
        # |x^ - x| < step at each coordinate, so the norm grows by step * sqrt(d) = c * |x| at most;
        # to the nearest, a coordinate also never more than doubles.
        stochastic, step = self.rounding == "stochastic", self.coarsest or self.coarseness
        inflation = 1 + step if stochastic else min(2.0, 1 + step / 2)
        return codec_contract(unbiased=stochastic, inflation=inflation)

    def write(self, delta: Vector, context: EncodeContext, writer: Writer) -> None:
        step = np.float32(self.coarseness * math.sqrt(squared_norm(delta) / len(delta)))
        writer.number(self.coarseness, "<f4")
        writer.number(float(step), "<f4")
        write_symbols(_levels(delta, step, self.rounding, context.generator), writer)

    def coarseness_of(self, packed: Packed) -> float | None:
        coarseness = packed.content[FRAME_BYTES : FRAME_BYTES + 4]
        return struct.unpack("<f", coarseness)[0] if len(coarseness) == 4 else None

    def read_levels(self, reader: Reader, length: int) -> Levels:
        reader.scale()  # of the step in root mean squares: for the record of the round
        step = reader.scale()
        return Levels(read_symbols(reader, length), step)


def _levels(
    delta: Vector, step: np.float32, rounding: Rounding, rng: np.random.Generator
) -> Symbols:
    """Whole multiples of ``step``, as int32."""
    if not step > 0:
        return np.zeros(len(delta), np.int32)
    with np.errstate(over="ignore"):
        scaled = delta * np.float32(1 / step) if float(step) > 1e-30 else delta / step
    if rounding == "nearest":
        np.rint(scaled, out=scaled)
    else:
        scaled += rng.random(len(scaled), dtype=np.float32)
        np.floor(scaled, out=scaled)
    return np.clip(scaled, -_BIG, _BIG, out=scaled).astype(np.int32)


class _Buckets(Codec):
    """Each bucket of coordinates has its own scale, its largest absolute value."""

    version: ClassVar[int] = 2  # 1 coded whole symbols

    bucket: int = Field(default=1024, ge=1, le=2**24, json_schema_extra={"unit": "coordinates"})
    """Coordinates that share one scale."""

    @property
    def levels(self) -> int:
        """Levels between zero and the scale."""
        raise NotImplementedError

    @property
    def fewest_levels(self) -> int:
        """The same for the coarsest way to write."""
        return self.levels

    def contract(self) -> StageContract:
        # In a bucket |x^ - x| < max / levels <= |x| / levels at each of its coordinates.
        growth = 1 + math.sqrt(self.bucket) / self.fewest_levels
        return codec_contract(unbiased=True, inflation=growth)

    def write(self, delta: Vector, context: EncodeContext, writer: Writer) -> None:
        rows = _rows(delta, self.bucket)
        scales = np.abs(rows).max(axis=1)
        writer.array(scales, "<f4")
        safe = np.where(scales > 0, scales, np.float32(1))[:, None]
        scaled = rows / safe * np.float32(self.levels)
        scaled += context.generator.random(scaled.shape, dtype=np.float32)
        symbols = np.floor(scaled, out=scaled).astype(np.int32)
        np.clip(symbols, -self.levels, self.levels, out=symbols)
        write_integers(symbols.ravel()[: len(delta)], writer)

    def read(self, reader: Reader, length: int) -> Vector:
        return self._read_rows(reader, length, self.levels)

    def _read_rows(self, reader: Reader, length: int, levels: int) -> Vector:
        scales = reader.floats(-(-length // self.bucket))
        symbols = read_integers(reader, length)
        if int(symbols.max()) > levels or int(symbols.min()) < -levels:
            raise inconsistent("a level is out of range")
        vector, steps = symbols.astype(np.float32), scales / np.float32(levels)
        full = length // self.bucket
        rows = vector[: full * self.bucket].reshape(full, self.bucket)
        rows *= steps[:full, None]
        vector[full * self.bucket :] *= steps[-1]
        return vector


def _rows(vector: Vector, bucket: int) -> Vector:
    """The vector as rows of one bucket each, filled up with zeros."""
    short = -len(vector) % bucket
    padded = np.concatenate([vector, np.zeros(short, np.float32)]) if short else vector
    return padded.reshape(-1, bucket)


class QSGD(_Buckets):
    """Stochastic rounding to 2^(bits-1) - 1 levels a side in each bucket; unbiased.

    Alistarh et al., "QSGD: Communication-Efficient SGD via Gradient Quantization and Encoding"
    (2017), here with the largest absolute value as scale and ANS in place of Elias codes. Applied
    to local updates it is FedPAQ (Reisizadeh et al., 2020).
    """

    name: ClassVar[str] = "qsgd"
    codec: ClassVar[int] = 3
    version: ClassVar[int] = 3  # 2 did not say how many bits a level has
    kind: Literal["qsgd"] = "qsgd"
    bits: int = Field(default=4, ge=2, le=8)
    """Bits of a level before entropy coding."""
    coarsest: int | None = Field(default=None, ge=2, le=8, json_schema_extra={"unit": "bits"})
    """Bits down to which an update is encoded anew, one less each time, to keep to
    ``updates.max_bytes``. Left out: they stay as they are."""

    @model_validator(mode="after")
    def _coarser(self) -> QSGD:
        if self.coarsest is not None and self.coarsest > self.bits:
            raise ValueError("coarsest must be at most bits")
        return self

    @property
    def levels(self) -> int:
        return _levels_of(self.bits)

    @property
    def fewest_levels(self) -> int:
        return _levels_of(self.coarsest or self.bits)

    def ladder(self) -> Iterator[Codec]:
        yield self
        for bits in range(self.bits - 1, (self.coarsest or self.bits) - 1, -1):
            yield self.replace(bits=bits, coarsest=None)

    def coarseness_of(self, packed: Packed) -> float | None:
        bits = packed.content[FRAME_BYTES : FRAME_BYTES + 1]
        return float(bits[0]) if bits else None

    def write(self, delta: Vector, context: EncodeContext, writer: Writer) -> None:
        writer.number(self.bits, "u1")
        super().write(delta, context, writer)

    def read(self, reader: Reader, length: int) -> Vector:
        bits = reader.integer("u1")
        if not (self.coarsest or self.bits) <= bits <= self.bits:
            raise inconsistent("its levels have another number of bits than the plan says")
        return self._read_rows(reader, length, _levels_of(bits))


def _levels_of(bits: int) -> int:
    """Levels a side that so many bits tell apart."""
    return (1 << (bits - 1)) - 1


class Ternary(_Buckets):
    """Each coordinate becomes -m, 0 or m, with m the largest of its bucket; unbiased.

    Wen et al., "TernGrad: Ternary Gradients to Reduce Communication in Distributed Deep Learning"
    (2017), entropy-coded. The error of one update is large and averages out over clients.
    """

    name: ClassVar[str] = "ternary"
    codec: ClassVar[int] = 2
    kind: Literal["ternary"] = "ternary"

    @property
    def levels(self) -> int:
        return 1
