"""Only the coordinates of a public random mask leave a client; sums of them stand for the whole.

The mask follows from a public seed and the round, so it is the same at every client and says
nothing about any of them. What leaves is a shorter vector, added up as it is: in the clear, or
behind the masks of secure aggregation, where nothing may be chosen by looking at one update.

    encode       d coordinates -> the k of the round's mask, rounded to a public step if wanted
    decode_sum   the sums of the k, times d / k, at their places; all others are zero
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from anabranch.errors import AnabranchError
from anabranch.updates.layout import Layout
from anabranch.updates.sections import Section, Sections, Update, Vector
from anabranch.updates.sparse import RandomMask
from anabranch.updates.stages import EncodeContext, Stage, StageContract
from anabranch.updates.total import Total

__all__ = ["Subsample"]

_ROUND = "subsample.round"
"""The round whose mask it is, as a count: of n updates of one round it is n times the round."""


class Subsample(Stage):
    """A shared random part of the coordinates (linear, right on average over rounds).

    Konečný et al., "Federated Learning: Strategies for Improving Communication Efficiency" (2016).
    All clients leave out the same coordinates, so more clients do not make the error smaller.
    """

    name: ClassVar[str] = "subsample"
    kind: Literal["subsample"] = "subsample"
    fraction: float = Field(default=0.1, gt=0, le=1, json_schema_extra={"unit": "of coordinates"})
    """Part of the coordinates that is sent; at least one is."""
    step: float | None = Field(
        default=None, ge=2.0**-24, le=2.0**20, json_schema_extra={"unit": "of a coordinate"}
    )
    """Coordinates are rounded to multiples of it, up or down at random so that they are right on
    average; a power of two. Left out: they stay as they are."""
    seed: int = Field(default=0, ge=0, lt=2**53)
    """Public seed of the masks, shared by all clients."""
    length: int | None = Field(default=None, ge=1, json_schema_extra={"unit": "coordinates"})
    """Coordinates of the whole update. Left out: as many as the model averages."""

    @field_validator("step")
    @classmethod
    def _power_of_two(cls, step: float | None) -> float | None:
        if step is not None and math.frexp(step)[0] != 0.5:
            raise ValueError("must be a power of two, such as 0.00048828125 (2^-11)")
        return step

    @property
    def mask(self) -> RandomMask:
        """The coordinates that are sent."""
        return RandomMask(fraction=self.fraction, seed=self.seed)

    def contract(self) -> StageContract:
        # Rounding to a step moves small updates by any multiple of their size.
        growth = 1 / self.fraction if self.step is None else math.inf
        return StageContract(linear=True, unbiased=True, inflation=growth, lossy=True)

    def fitted(self, layout: Layout) -> Subsample:
        """This stage with the length of the model's averaged part, unless it has its own."""
        return self if self.length is not None else self.replace(length=layout.averaged)

    def encoded(self, sections: Sections) -> Sections:
        """The sections with a shorter delta, and the round."""
        shorter = [
            replace(section, length=self.mask.kept(section.length))
            if section.name == "delta"
            else section
            for section in sections
        ]
        return Sections((*shorter, Section.count(_ROUND)))

    def encode(
        self, update: Update, memory: Mapping[str, Vector], context: EncodeContext
    ) -> tuple[Update, Mapping[str, Vector]]:
        delta = update.vectors["delta"]
        sent = delta[self.mask.places(len(delta), context.round)].astype(np.float32, copy=False)
        if self.step is not None:
            sent = _rounded(sent, self.step, context.generator)
        scalars = {**update.scalars, _ROUND: float(context.round)}
        return Update({**update.vectors, "delta": sent}, scalars, update.packed), {}

    def decode_sum(self, total: Total) -> Total:
        """The total with a delta of the whole length.

        Raises:
            AnabranchError: AB-527 when updates of several rounds are in the sum.
            ValueError: the length is not known.
        """
        if self.length is None:
            raise ValueError("stage 'subsample' does not know the length: use `fitted`")
        round_ = total.scalar(_ROUND) / total.contributors
        if round_ != int(round_):
            raise AnabranchError(
                "AB-527",
                "a sum holds coordinates of different masks: its updates are not of one round.",
                fix="merge the updates of one round at a time (no asynchronous rounds, no "
                "late_window), or leave out stage 'subsample'.",
                kept="The model is unchanged.",
            )
        places = self.mask.places(self.length, int(round_))
        whole = np.zeros(self.length)
        whole[places] = total.sums["delta"] * (self.length / len(places))
        others = {name: v for name, v in total.sums.items() if name != _ROUND}
        sections = Sections(
            tuple(
                replace(section, length=self.length) if section.name == "delta" else section
                for section in total.sections
                if section.name != _ROUND
            )
        )
        return Total(sections, {**others, "delta": whole}, total.contributors)


def _rounded(values: Vector, step: float, rng: np.random.Generator) -> Vector:
    """Multiples of a power of two, right on average."""
    scaled = values.astype(np.float64) / step
    scaled += rng.random(len(scaled))
    return np.asarray(np.floor(scaled) * step, np.float32)
