"""Low rank with a public basis: each matrix of an update times few columns that all clients share.

    encode       M -> M Q (or Q' M), Q orthonormal, of a public seed and the round
    decode_sum   S -> S Q', with S the sum of what the clients sent

The projection of a sum is the sum of the projections, so nothing has to be undone for one update,
and what leaves is a shorter vector of plain numbers: it is added up as it is, in the clear or
behind masks. `anabranch.updates.lowrank` looks at each update to find its own basis, which keeps
more of it and cannot be added up.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import ClassVar, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from anabranch.errors import AnabranchError
from anabranch.randomness import generator
from anabranch.updates.layout import Layout
from anabranch.updates.sections import Section, Sections, Update, Vector
from anabranch.updates.shapes import Shapes, covered, shapes_for
from anabranch.updates.stages import EncodeContext, Stage, StageContract
from anabranch.updates.total import Total

__all__ = ["SharedLowRank"]

_ROUND = "lowrank_shared.round"
"""The round whose bases they are, as a count: of n updates of one round it is n times the round."""
_REST = "rest"
_GRID = 2.0**-20
"""Bases are rounded to multiples of it, so that machines agree on them but for ties."""

Matrix: TypeAlias = NDArray[np.float64]


class _Block(NamedTuple):
    """One parameter as a matrix; with rank 0 it is sent as it is."""

    rows: int
    columns: int
    rank: int

    @property
    def size(self) -> int:
        return self.rows * self.columns

    @property
    def sent(self) -> int:
        return self.rank * min(self.rows, self.columns) if self.rank else self.size


class SharedLowRank(Stage):
    """Each parameter with two or more axes times a thin public matrix; others as they are.

    After Vogels, Karimireddy and Jaggi, "PowerSGD" (2019), with a basis that nobody computes from
    updates: it is drawn anew each round, so that over the rounds every direction has its turn.
    With ``feedback`` clients keep what the basis left out and add it to their next update; without
    it, sums are scaled by the share of the directions, which makes them right on average over
    rounds. The longer side of a matrix is the one that is projected.
    """

    name: ClassVar[str] = "lowrank_shared"
    kind: Literal["lowrank_shared"] = "lowrank_shared"
    rank: int = Field(default=16, ge=1, le=1024, json_schema_extra={"unit": "columns"})
    """Columns of the shared basis; more is larger and more exact."""
    feedback: bool = True
    """Whether clients keep what was not sent and add it to their next update."""
    seed: int = Field(default=0, ge=0, lt=2**53)
    """Public seed of the bases, shared by all clients."""
    shapes: Shapes = ()
    """Shapes of the parameters in the order of the vector. Left out: those of the model."""

    def contract(self) -> StageContract:
        # A projection never lengthens; scaled or with what was kept it may, by any multiple.
        return StageContract(
            linear=True, unbiased=not self.feedback, inflation=math.inf, lossy=True
        )

    def memory(self, sections: Sections) -> tuple[Section, ...]:
        return (Section.vector(_REST, sections["delta"].length),) if self.feedback else ()

    def fitted(self, layout: Layout) -> SharedLowRank:
        """This stage with the shapes of the model's averaged parameters, unless it has its own.

        Raises:
            AnabranchError: AB-466 when its own have another number of coordinates.
        """
        shapes = shapes_for(self.name, self.shapes, layout)
        if shapes == self.shapes:
            return self
        return SharedLowRank.model_validate({**self.model_dump(), "shapes": shapes})

    def encoded(self, sections: Sections) -> Sections:
        """The sections with a shorter delta, and the round."""
        shorter = [
            replace(s, length=sum(b.sent for b in self._blocks(s.length)))
            if s.name == "delta"
            else s
            for s in sections
        ]
        return Sections((*shorter, Section.count(_ROUND)))

    def encode(
        self, update: Update, memory: Mapping[str, Vector], context: EncodeContext
    ) -> tuple[Update, Mapping[str, Vector]]:
        """The projected delta, and what the projection left out.

        Raises:
            AnabranchError: AB-502 when a value is not finite.
        """
        delta = update.vectors["delta"].astype(np.float32, copy=False)
        if self.feedback:
            with np.errstate(over="ignore", invalid="ignore"):  # refused just below
                delta = delta + memory[_REST]
        if not np.isfinite(delta).all():
            raise AnabranchError(
                "AB-502",
                f"client {context.client!r}: a value of section 'delta' is not finite, so it "
                "cannot be encoded.",
                fix="lower the learning rate, or clip gradients with local.clip_norm.",
                kept="Nothing of this client was sent; the round goes on.",
            )
        sent = self.projected(delta, context.round).astype(np.float32)
        scalars = {**update.scalars, _ROUND: float(context.round)}
        encoded = Update({**update.vectors, "delta": sent}, scalars, update.packed)
        if not self.feedback:
            return encoded, {}
        kept = self.lifted(sent.astype(np.float64), len(delta), context.round)
        return encoded, {_REST: (delta - kept).astype(np.float32)}

    def decode_sum(self, total: Total) -> Total:
        """The total with a delta of the whole length.

        Raises:
            AnabranchError: AB-527 when updates of several rounds are in the sum.
            ValueError: the shapes are not known.
        """
        if not self.shapes:
            raise ValueError("stage 'lowrank_shared' does not know the shapes: use `fitted`")
        round_ = total.scalar(_ROUND) / total.contributors
        if round_ != int(round_):
            raise AnabranchError(
                "AB-527",
                "a sum holds projections of different rounds: its updates are not of one round.",
                fix="merge the updates of one round at a time (no asynchronous rounds, no "
                "late_window), or leave out stage 'lowrank_shared'.",
                kept="The model is unchanged.",
            )
        length = covered(self.shapes)
        whole = self.lifted(total.sums["delta"], length, int(round_), scaled=not self.feedback)
        others = {name: v for name, v in total.sums.items() if name != _ROUND}
        sections = Sections(
            tuple(
                replace(section, length=length) if section.name == "delta" else section
                for section in total.sections
                if section.name != _ROUND
            )
        )
        return Total(sections, {**others, "delta": whole}, total.contributors)

    def projected(self, delta: Vector | Matrix, round_: int) -> Matrix:
        """What is sent of a vector, float64."""
        parts, start = [], 0
        for number, block in enumerate(self._blocks(len(delta))):
            part = delta[start : start + block.size].astype(np.float64)
            start += block.size
            if block.rank:
                basis = self._basis(block, round_, number)
                matrix = part.reshape(block.rows, block.columns)
                wide = block.columns >= block.rows
                part = (matrix @ basis if wide else basis.T @ matrix).ravel()
            parts.append(part)
        return np.concatenate(parts) if parts else np.zeros(0)

    def lifted(self, sent: Matrix, length: int, round_: int, *, scaled: bool = False) -> Matrix:
        """The vector, or the sum of vectors, that projections stand for.

        Args:
            sent: as `projected` makes it, or a sum of such.
            length: coordinates of the vector.
            round_: of the projections.
            scaled: whether each matrix is divided by the share of its directions.
        """
        whole, start, place = np.zeros(length), 0, 0
        for number, block in enumerate(self._blocks(length)):
            part = sent[place : place + block.sent]
            place += block.sent
            if block.rank:
                basis, wide = self._basis(block, round_, number), block.columns >= block.rows
                short = (block.rows, block.rank) if wide else (block.rank, block.columns)
                factor = part.reshape(short)
                part = (factor @ basis.T if wide else basis @ factor).ravel()
                part = part * (max(block.rows, block.columns) / block.rank) if scaled else part
            whole[start : start + block.size] = part
            start += block.size
        return whole

    def _basis(self, block: _Block, round_: int, number: int) -> Matrix:
        """Orthonormal columns, shape (longer side, rank): of the seed, the round and the place."""
        draw = generator(self.seed, "shared basis", round_, str(number))
        start = draw.standard_normal((max(block.rows, block.columns), block.rank))
        basis, upper = np.linalg.qr(start)
        basis = basis * np.sign(np.diag(upper))  # which sign a library takes does not matter
        return np.asarray(np.rint(basis / _GRID) * _GRID, np.float64)

    def _blocks(self, length: int) -> Iterator[_Block]:
        shapes = self.shapes if covered(self.shapes) == length else ((length,),)
        for shape in shapes:
            rows, columns = shape[0] if shape else 1, math.prod(shape[1:])
            fits = len(shape) > 1 and min(rows, columns) > 0 and self.rank < max(rows, columns)
            yield _Block(rows, columns, self.rank if fits else 0)
