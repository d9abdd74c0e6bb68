"""Whole numbers with a public step on a shared random mask: what secure aggregation can add up.

Under secure aggregation nobody may choose a scale, a sparsity pattern or an entropy code by looking
at one update, so everything here is public and equal for all clients of a round::

    q = round(x / step),  step = limit / levels      stochastic, so right on average
    levels = (2^(bits-1) - 1) // clients             the sum of so many clients cannot wrap around
    sent: q modulo 2^bits on the coordinates of the mask, bits each

As a codec it sends these integers as they are, so a simulation has the sizes and the errors of a
protocol that only sees sums. `integers` and `vector` are the two halves that such a protocol uses.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from anabranch.updates.codec import Codec, codec_contract
from anabranch.updates.packed import FRAME_BYTES, Reader, Writer
from anabranch.updates.sections import Vector
from anabranch.updates.sparse import RandomMask
from anabranch.updates.stages import EncodeContext, StageContract

__all__ = ["Lattice"]

Integers = NDArray[np.int64]


class Lattice(Codec):
    """Integers modulo 2^bits with a public step, on a shared random part of the coordinates.

    Konečný et al. (2016) for the mask; Bonawitz et al., "Federated Learning with Autotuned
    Communication-Efficient Secure Aggregation" (2019), for integers of few bits under masks.
    Coordinates beyond ``limit`` are cut off there. Up to it the code is linear but for the rounding
    and right on average.
    """

    name: ClassVar[str] = "lattice"
    codec: ClassVar[int] = 12
    kind: Literal["lattice"] = "lattice"
    bits: int = Field(default=11, ge=2, le=32)
    """Bits of an integer that is sent; sums are taken modulo 2^bits."""
    clients: int = Field(default=10, ge=1, le=2**20, json_schema_extra={"unit": "clients in a sum"})
    """Most clients in one sum, at least the cohort."""
    limit: float = Field(default=0.1, gt=0, le=1e6, json_schema_extra={"unit": "of a coordinate"})
    """Largest absolute coordinate of an update; what is larger is cut off there."""
    fraction: float = Field(default=0.125, gt=0, le=1, json_schema_extra={"unit": "of coordinates"})
    """Part of the coordinates that is sent; at least one is."""
    seed: int = Field(default=0, ge=0, lt=2**53)
    """Public seed of the masks, shared by all clients."""

    @model_validator(mode="after")
    def _no_wrap(self) -> Lattice:
        if self.levels < 1:
            raise ValueError(f"{self.bits} bits hold no sum of {self.clients} clients")
        return self

    @property
    def levels(self) -> int:
        """Integers of one client lie between minus and plus this."""
        return ((1 << (self.bits - 1)) - 1) // self.clients

    @property
    def mask(self) -> RandomMask:
        """The coordinates that are sent."""
        return RandomMask(fraction=self.fraction, seed=self.seed)

    def contract(self) -> StageContract:
        # A coordinate errs by less than a step, so there is no bound relative to a small update.
        return codec_contract(unbiased=True, inflation=float("inf"), linear=True)

    def integers(self, delta: Vector, round_: int, rng: np.random.Generator) -> Integers:
        """One client's integers, shape (coordinates of the mask,), between -levels and levels."""
        chosen = delta[self.mask.places(len(delta), round_)].astype(np.float64)
        np.clip(chosen, -self.limit, self.limit, out=chosen)
        chosen *= self.levels / self.limit
        chosen += rng.random(len(chosen))
        whole = np.floor(chosen, out=chosen).astype(np.int64)
        return np.clip(whole, -self.levels, self.levels, out=whole)

    def vector(self, integers: Integers, length: int, round_: int) -> Vector:
        """The vector that integers, or a sum of them, stand for."""
        places = self.mask.places(length, round_)
        scale = self.limit / self.levels * (length / len(places))
        vector = np.zeros(length, np.float32)
        vector[places] = integers * scale
        return vector

    def least_bytes(self, length: int) -> int:
        return FRAME_BYTES + 4 + _plane(self.mask.kept(length)) * self.bits

    def write(self, delta: Vector, context: EncodeContext, writer: Writer) -> None:
        writer.number(context.round, "<u4")
        integers = self.integers(delta, context.round, context.generator)
        for bit in range(self.bits):
            writer.raw(np.packbits((integers >> bit).astype(np.uint8) & np.uint8(1)).tobytes())

    def read(self, reader: Reader, length: int) -> Vector:
        round_, count = reader.integer("<u4"), self.mask.kept(length)
        integers = np.zeros(count, np.int64)
        for bit in range(self.bits):
            plane = np.frombuffer(reader.raw(_plane(count)), np.uint8)
            integers |= np.unpackbits(plane, count=count).astype(np.int64) << bit
        half = 1 << (self.bits - 1)
        return self.vector((integers ^ half) - half, length, round_)


def _plane(count: int) -> int:
    """Bytes of one bit of each integer."""
    return (count + 7) // 8
