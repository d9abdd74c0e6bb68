"""The client's program: everything that a client needs to answer tasks, apart from its data.

It is built from the contract alone, so every client, worker and coordinator builds the same one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from anabranch.aggregation.weighting import WeightRule
from anabranch.algorithms.base import Algorithm
from anabranch.client.inside import InsideNoise
from anabranch.learners.base import Learner
from anabranch.learners.metrics import MetricSet
from anabranch.learners.training import LocalTraining
from anabranch.privacy.mechanisms import Mechanism, PrivateScores
from anabranch.updates.downlink import Downlink
from anabranch.updates.sections import Section, Sections, Vector
from anabranch.updates.stages import Pipeline

__all__ = ["CLIP_NORM", "DIAGNOSTICS", "ClientProgram", "MemoryLayout"]

CLIP_NORM = Section.vector("clip_norm", 1)
"""What a private run sends down besides the algorithm's vectors: the round's clip norm."""

DIAGNOSTICS: tuple[Section, ...] = (
    Section.count("examples"),
    Section.count("steps"),
    Section.count("train_examples"),
    Section.statistic("train_loss_sum"),
    Section.statistic("delta_sq_norm"),
)
"""What every training update carries besides its weight and the algorithm's own sections."""


@dataclass(frozen=True)
class MemoryLayout:
    """Where each kept vector stands in a client's one flat memory vector.

    The algorithm's vectors come first, then those of the stages, then the local parameters.
    """

    sections: tuple[Section, ...]

    @cached_property
    def slices(self) -> dict[str, slice]:
        places, position = {}, 0
        for section in self.sections:
            places[section.name] = slice(position, position + section.length)
            position += section.length
        return places

    @cached_property
    def size(self) -> int:
        """Length of the flat memory vector; 0 when clients keep nothing."""
        return sum(section.length for section in self.sections)

    def split(self, flat: Vector | None) -> dict[str, Vector]:
        """Named views of a flat memory; zeros when there is none yet."""
        if flat is None:
            flat = np.zeros(self.size, np.float32)
        return {name: flat[place] for name, place in self.slices.items()}

    def join(self, values: Mapping[str, Vector]) -> Vector:
        """One new flat vector from the named ones."""
        flat = np.zeros(self.size, np.float32)
        for name, place in self.slices.items():
            flat[place] = values[name]
        return flat


LOCAL_PARAMETERS = "local-parameters"


@dataclass(frozen=True)
class ClientProgram:
    """The pieces that a client combines.

    Attributes:
        algorithm: what is computed around local training.
        learner: trains and predicts.
        training: how much and how.
        weight: the aggregation weight of a client.
        pipeline: compiled stages.
        metrics: what an evaluation measures.
        seed: the plan's public seed.
        rounds: planned number of rounds, for schedules.
        base: initial whole vector; gives the values of local and frozen parameters.
        mechanism: of a private run: bounds the update, and says all that may leave in training.
        inside: of a private run whose noise is made inside local training.
        scores: of a private run: what a client tells of the model's quality; None if nothing.
        secret: of simulated clients that add noise; real ones ask their operating system.
        downlink: how broadcasts are encoded; None for float32.
        stops_early: whether a client ends its training when its time is nearly used up.
    """

    algorithm: Algorithm
    learner: Learner
    training: LocalTraining
    weight: WeightRule
    pipeline: Pipeline
    metrics: MetricSet
    seed: int
    rounds: int
    base: Vector
    mechanism: Mechanism | None = None
    scores: PrivateScores | None = None
    inside: InsideNoise | None = None
    secret: bytes | None = field(default=None, repr=False, compare=False)
    downlink: Downlink | None = None
    stops_early: bool = False

    @cached_property
    def dim(self) -> int:
        """Length of the averaged prefix."""
        return self.learner.layout.averaged

    @property
    def private(self) -> bool:
        """Whether answers may hold secret randomness, so that none must be made twice."""
        return self.mechanism is not None or self.inside is not None

    @property
    def tells_scores(self) -> bool:
        """Whether clients of a private run tell how good the model is, within its budget."""
        return self.scores is not None or (
            self.inside is not None and self.inside.scores is not None
        )

    @property
    def evaluation_sections(self) -> Sections:
        """The type of what a client tells in an evaluation."""
        if self.inside is not None and self.inside.scores is not None:
            return Sections(self.inside.scores.sums.sections())
        if self.scores is not None:
            return Sections(self.scores.sections())
        return self.metrics.sections()

    @cached_property
    def plain_layout(self) -> bool:
        """Whether the whole model is averaged, so that the broadcast is the whole vector."""
        return self.dim == self.learner.layout.size

    @cached_property
    def sections(self) -> Sections:
        """The type of a training update; in a private run what the mechanism bounds, no more."""
        if self.mechanism is not None:
            return Sections(self.mechanism.sections())
        return self.pipeline.encoded(self._before_stages)

    @cached_property
    def _before_stages(self) -> Sections:
        own = (*self.algorithm.sections(self.dim), self.weight.section())
        return Sections(own if self.inside is not None else (*own, *DIAGNOSTICS))

    @cached_property
    def broadcast_sections(self) -> Sections:
        """The type of what goes down."""
        own = tuple(self.algorithm.broadcast_sections(self.dim))
        return Sections((*own, CLIP_NORM) if self.mechanism is not None else own)

    @cached_property
    def origin(self) -> dict[str, Vector]:
        """The first broadcast of a run: differences go down from here, and every client has it."""
        state = self.algorithm.init(self.base[: self.dim].copy())
        return dict(self.algorithm.broadcast(state))

    @cached_property
    def memory(self) -> MemoryLayout:
        """What a client keeps between rounds."""
        local: Sequence[Section] = ()
        if self.learner.layout.local:
            local = (Section.vector(LOCAL_PARAMETERS, self.learner.layout.local),)
        return MemoryLayout(
            tuple(self.algorithm.memory_sections(self.dim))
            + self.pipeline.memory(self._before_stages)
            + tuple(local)
        )

    def whole_vector(self, model: Vector, memory: Vector | None) -> Vector:
        """The model as this client runs it: broadcast prefix, own local part, frozen part."""
        if self.plain_layout:
            return model
        layout, vector = self.learner.layout, self.base.copy()
        vector[: self.dim] = model
        if layout.local and memory is not None:
            vector[self.dim : self.dim + layout.local] = self.memory.split(memory)[LOCAL_PARAMETERS]
        return vector
