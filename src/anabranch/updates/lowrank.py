"""A codec that sends each matrix of a model's update as the product of two thin ones.

For a matrix M of the update, with r columns in Q:

    P = orth(M Q),  Q random and public      repeated: P = orth(M M' P)
    sent: P and Q' = P' M                    decoded: P Q', the projection of M on the span of P

Vogels, Karimireddy and Jaggi, "PowerSGD: Practical Low-Rank Gradient Compression for Distributed
Optimization" (2019), for single clients: the start Q is drawn anew each round, so nobody has to
have seen the last one, and what the projection leaves out is kept at the client.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from anabranch.updates.codec import Codec
from anabranch.updates.halves import read_halves, write_halves
from anabranch.updates.layout import Layout
from anabranch.updates.packed import FRAME_BYTES, Packed, Reader, Writer, inconsistent
from anabranch.updates.sections import Vector
from anabranch.updates.shapes import Shapes, covered, shapes_for
from anabranch.updates.sparse import ErrorFeedback
from anabranch.updates.stages import EncodeContext, StageContract

__all__ = ["LowRank"]

_ROUNDING = 2.0**-9
"""What rounding both factors to eleven bits can add to the norm."""

_ROWS = 64
"""Rows multiplied together when decoding, so that they stay in a core's cache."""

Matrix = NDArray[np.float32]


class LowRank(ErrorFeedback):
    """Each parameter with two or more axes as two thin factors in float16; others as float32.

    The first axis of a parameter makes the rows of its matrix, the others its columns.
    """

    name: ClassVar[str] = "lowrank"
    codec: ClassVar[int] = 11
    version: ClassVar[int] = 2  # 1 did not say the rank
    kind: Literal["lowrank"] = "lowrank"
    rank: int = Field(default=8, ge=1, le=256, json_schema_extra={"unit": "columns"})
    """Columns of each factor; more is larger and more exact."""
    coarsest: int | None = Field(default=None, ge=1, le=256, json_schema_extra={"unit": "columns"})
    """Columns down to which an update is encoded anew, two thirds of the last each time, to keep to
    ``updates.max_bytes``. Left out: they stay as they are."""
    iterations: int = Field(default=2, ge=1, le=8)
    """Products with the matrix that bring the factors near the best ones; costs only time."""
    shapes: Shapes = ()
    """Shapes of the parameters in the order of the vector. Left out: those of the model."""

    @model_validator(mode="after")
    def _coarser(self) -> LowRank:
        if self.coarsest is not None and self.coarsest > self.rank:
            raise ValueError("coarsest must be at most rank")
        return self

    def ladder(self) -> Iterator[Codec]:
        rank, last = self.rank, self.coarsest or self.rank
        yield self
        while rank > last:
            rank = max(2 * rank // 3, last)
            yield self.replace(rank=rank, coarsest=None)

    def coarseness_of(self, packed: Packed) -> float | None:
        rank = packed.content[FRAME_BYTES : FRAME_BYTES + 2]
        return float(struct.unpack("<H", rank)[0]) if len(rank) == 2 else None

    def contract(self) -> StageContract:
        promised = super().contract()
        # A projection, with rounded factors.
        return replace(promised, inflation=promised.inflation * (1 + _ROUNDING))

    def fitted(self, layout: Layout) -> LowRank:
        """This stage with the shapes of the model's averaged parameters, unless it has its own.

        Raises:
            AnabranchError: AB-466 when its own have another number of coordinates.
        """
        shapes = shapes_for(self.name, self.shapes, layout)
        if shapes == self.shapes:
            return self
        return LowRank.model_validate({**self.model_dump(), "shapes": shapes})

    def least_bytes(self, length: int) -> int:
        if covered(self.shapes) != length:  # the shapes are not known yet
            return FRAME_BYTES
        blocks = list(self._blocks(length, self.coarsest or self.rank))
        factors = sum(4 + 2 * rank * (rows + cols) for rows, cols, rank in blocks if rank)
        raw = sum(4 * rows * cols for rows, cols, rank in blocks if not rank)
        return FRAME_BYTES + 2 + factors + raw

    def write(self, delta: Vector, context: EncodeContext, writer: Writer) -> None:
        writer.number(self.rank, "<u2")
        start = 0
        for rows, cols, rank in self._blocks(len(delta), self.rank):
            block = delta[start : start + rows * cols]
            start += rows * cols
            if not rank:
                writer.array(block, "<f4")
                continue
            left, right = _factors(
                block.reshape(rows, cols), rank, self.iterations, context.generator
            )
            write_halves(left.ravel(), writer)
            write_halves(right.ravel(), writer)

    def read(self, reader: Reader, length: int) -> Vector:
        most = reader.integer("<u2")
        if not (self.coarsest or self.rank) <= most <= self.rank:
            raise inconsistent("its factors have another number of columns than the plan says")
        vector = np.empty(length, np.float32)
        start = 0
        for rows, cols, rank in self._blocks(length, most):
            block = vector[start : start + rows * cols]
            start += rows * cols
            if not rank:
                block[...] = reader.floats(rows * cols)
                continue
            left = read_halves(reader, rank * rows).reshape(rank, rows)
            right = read_halves(reader, rank * cols).reshape(rank, cols)
            _multiply(left, right, block)
        return vector

    def _blocks(self, length: int, most: int) -> Iterator[tuple[int, int, int]]:
        """(rows, columns, rank) of each part of a vector, with rank at most ``most``; rank 0 where
        factors save nothing."""
        shapes = self.shapes if covered(self.shapes) == length else (_nearly_square(length),)
        for shape in shapes:
            rows, cols = shape[0] if shape else 1, math.prod(shape[1:])
            rank = min(most, rows, cols)
            saves = len(shape) > 1 and 2 * rank * (rows + cols) + 4 < 4 * rows * cols
            yield rows, cols, rank if saves else 0


def _nearly_square(length: int) -> tuple[int, int]:
    """Rows and columns whose product is ``length``, as near to each other as they can be."""
    rows = next(r for r in range(math.isqrt(max(length, 1)), 0, -1) if length % r == 0)
    return rows, length // rows


def _factors(
    matrix: Matrix, rank: int, iterations: int, rng: np.random.Generator
) -> tuple[Matrix, Matrix]:
    """Transposed P (rank, rows) and Q' (rank, columns)."""
    # One scale for all, so that products of very small or large updates stay in range.
    scale = float(np.abs(matrix).max()) or 1.0
    scaled = matrix / np.float32(scale)
    right = rng.standard_normal((matrix.shape[1], rank), np.float32)
    for _ in range(iterations):
        basis = np.linalg.qr((scaled @ right).astype(np.float64))[0]
        left = np.asarray(basis, np.float32)
        right = np.asarray(scaled.T @ left, np.float32)
    return np.ascontiguousarray(left.T), np.ascontiguousarray(right.T) * np.float32(scale)


def _multiply(left: Matrix, right: Matrix, out: Vector) -> None:
    """The product of the factors into ``out``, summed in one fixed order on every machine."""
    rank, rows = left.shape
    grid = out.reshape(rows, right.shape[1])
    scratch = np.empty((min(_ROWS, rows), right.shape[1]), np.float32)
    for low in range(0, rows, _ROWS):
        part = grid[low : low + _ROWS]
        np.multiply(left[0, low : low + _ROWS, None], right[0], out=part)
        for column in range(1, rank):
            term = scratch[: len(part)]
            np.multiply(left[column, low : low + _ROWS, None], right[column], out=term)
            part += term
