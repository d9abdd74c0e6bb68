"""Codecs that keep the numbers: whole as float32, or rounded to float16; bytes shuffled, then zstd.

Shuffling puts the first bytes of all numbers together, then the second ones, and so on. The
exponents then stand side by side, and they are what a general compressor can shorten.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from anabranch.updates.codec import Codec, codec_contract
from anabranch.updates.halves import halves, read_exponent, whole
from anabranch.updates.packed import Reader, Writer, inconsistent
from anabranch.updates.sections import Vector
from anabranch.updates.stages import EncodeContext, StageContract

__all__ = ["Half", "Zstd", "read_packed_halves", "write_packed_halves"]


class Zstd(Codec):
    """The float32 numbers as they are, with shuffled bytes, compressed (lossless)."""

    name: ClassVar[str] = "zstd"
    codec: ClassVar[int] = 10
    kind: Literal["zstd"] = "zstd"
    level: int = Field(default=1, ge=1, le=19)
    """Level of the compressor; higher ones take much longer and save little."""

    def contract(self) -> StageContract:
        return codec_contract(unbiased=True, inflation=1.0, lossy=False)

    def write(self, delta: Vector, context: EncodeContext, writer: Writer) -> None:
        writer.raw(_shuffled(delta, "<f4", self.level))

    def read(self, reader: Reader, length: int) -> Vector:
        return _whole(reader, length, "<f4").astype(np.float32)


class Half(Codec):
    """float16 after a common power of two, with shuffled bytes, compressed."""

    name: ClassVar[str] = "fp16"
    codec: ClassVar[int] = 9
    kind: Literal["fp16"] = "fp16"
    level: int = Field(default=1, ge=1, le=19)
    """Level of the compressor of the shuffled bytes."""

    def contract(self) -> StageContract:
        # Half an ulp of eleven bits; what is below the smallest number adds less than 2^-20.
        return codec_contract(unbiased=False, inflation=1 + 2.0**-10)

    def write(self, delta: Vector, context: EncodeContext, writer: Writer) -> None:
        write_packed_halves(delta, self.level, writer)

    def read(self, reader: Reader, length: int) -> Vector:
        return read_packed_halves(reader, length)


def write_packed_halves(values: Vector, level: int, writer: Writer) -> None:
    """Append an exponent (i16) and the scaled float16 values, compressed."""
    exponent, scaled = halves(values)
    writer.number(exponent, "<i2")
    writer.raw(_shuffled(scaled, "<f2", level))


def read_packed_halves(reader: Reader, length: int) -> Vector:
    """The rest of the body as what `write_packed_halves` has written.

    Raises:
        AnabranchError: AB-523 when it cannot come from there.
    """
    return whole(read_exponent(reader), _whole(reader, length, "<f2"))


def _shuffled(values: NDArray[np.generic], dtype: str, level: int) -> bytes:
    from anabranch.updates.zstd import compress

    kind = np.dtype(dtype)
    planes = values.astype(kind).view(np.uint8).reshape(-1, kind.itemsize).T
    return compress(np.ascontiguousarray(planes).tobytes(), level)


def _whole(reader: Reader, length: int, dtype: str) -> NDArray[np.floating]:
    """The rest of the body as exactly ``length`` finite numbers; never more memory than that."""
    from anabranch.updates.zstd import ZstdDecompressor, ZstdError, get_frame_info

    kind, content = np.dtype(dtype), reader.raw(reader.left)
    wanted = length * kind.itemsize
    try:
        # The size that the content names decides what is allocated, so it is compared first.
        if get_frame_info(content).decompressed_size != wanted:
            raise inconsistent("it decompresses to another length")
        plain = ZstdDecompressor().decompress(content, max_length=wanted)
    except ZstdError as error:
        raise inconsistent(f"the compressor says {type(error).__name__}") from error
    if len(plain) != wanted:
        raise inconsistent("it decompresses to another length")
    planes = np.frombuffer(plain, np.uint8).reshape(kind.itemsize, -1)
    return np.ascontiguousarray(planes.T).view(kind).ravel()
