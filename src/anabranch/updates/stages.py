"""Stages and their compiler: what happens to an update between the client and the new model.

A stage is one object with up to three halves, each optional and each a protocol of its own::

    encode       at the client, on its update                             (clip, quantise)
    decode_one   at the server, on each update before the fold            (non-linear codecs)
    decode_sum   at the server, on the folded sum                         (linear codecs)

`compile_stages` fits them around the fold: ``encode`` in the order of the plan, ``decode_one`` and
``decode_sum`` in reverse. It refuses orders that would compute something else than they say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np

from anabranch.errors import AnabranchError
from anabranch.updates.budget import Budget, limit_for
from anabranch.updates.layout import Layout
from anabranch.updates.packed import Packed
from anabranch.updates.sections import Section, Sections, Update, Vector
from anabranch.updates.total import Finest, Total
from anabranch.values import Value

__all__ = [
    "Choosing",
    "DecodesLevels",
    "DecodesOne",
    "DecodesSum",
    "Encodes",
    "EncodeContext",
    "Pipeline",
    "Stage",
    "StageContract",
    "compile_stages",
]


@dataclass(frozen=True, slots=True)
class StageContract:
    """What a stage promises; the algebra of the plan reasons with nothing else.

    Attributes:
        linear: encode(sum) equals sum of encodes, so decoding may happen after the fold.
        unbiased: the expectation of decode(encode(x)) is x.
        inflation: largest factor by which the Euclidean norm of an update can grow.
        norm_bound: largest Euclidean norm that can leave the stage, ``inf`` when unbounded.
        integer: the encoded numbers are integers.
        finest: the finest thing the server half needs to see.
        packs: it leaves bytes instead of numbers, so nothing can be computed on them afterwards.
        lossy: what is decoded differs from what was encoded by more than the fold rounds.
    """

    linear: bool
    unbiased: bool
    inflation: float = 1.0
    norm_bound: float = float("inf")
    integer: bool = False
    finest: Finest = Finest.TOTAL
    packs: bool = False
    lossy: bool = False


@dataclass(frozen=True, slots=True)
class EncodeContext:
    """What a client half may use besides the update.

    Attributes:
        client: the client's identifier.
        round: the model version that the update belongs to.
        generator: public generator of (seed, "encode", round, client); never for privacy.
        max_bytes: the most bytes that the encoded update may have; None when any number will do.
    """

    client: str
    round: int
    generator: np.random.Generator
    max_bytes: int | None = None


class Stage(Value):
    """Base of every stage; subclasses add the halves that they have."""

    name: ClassVar[str] = ""

    def contract(self) -> StageContract:
        """The promises of this stage with these parameters."""
        raise NotImplementedError(f"{type(self).__name__} declares no contract")

    def memory(self, sections: Sections) -> tuple[Section, ...]:
        """Vectors that the client keeps between rounds for this stage (error feedback)."""
        return ()

    def fitted(self, layout: Layout) -> Stage:
        """The stage as it works on a model of this layout; most work on any."""
        return self

    def encoded(self, sections: Sections) -> Sections:
        """The type of what leaves the stage; most leave the declared sections.

        A stage that changes it has a `DecodesSum` half, which changes it back.
        """
        return sections


@runtime_checkable
class Encodes(Protocol):
    """Has a client half."""

    def encode(
        self, update: Update, memory: Mapping[str, Vector], context: EncodeContext
    ) -> tuple[Update, Mapping[str, Vector]]: ...


@runtime_checkable
class DecodesOne(Protocol):
    """Has a server half before the fold."""

    def decode_one(self, update: Update) -> Update: ...


@runtime_checkable
class DecodesLevels(Protocol):
    """Has a server half before the fold that may stop at whole numbers and a step."""

    def decode_levels(self, update: Update) -> Update: ...


@runtime_checkable
class Choosing(Protocol):
    """Chooses how coarsely to encode, and writes that down."""

    def coarseness_of(self, packed: Packed) -> float | None: ...


@runtime_checkable
class DecodesSum(Protocol):
    """Has a server half after the fold."""

    def decode_sum(self, total: Total) -> Total: ...


@dataclass(frozen=True)
class Pipeline:
    """Compiled stages; the identity when there are none."""

    stages: tuple[Stage, ...] = ()
    max_bytes: int | None = None
    """The most bytes that an encoded update may have."""
    budgets: tuple[Budget, ...] = ()
    """The same for single clients; the first one that names a client counts."""
    # Who has which half, found once: asking a protocol costs more than clipping a small model.
    _encode: tuple[tuple[str, Encodes], ...] = field(init=False, repr=False, compare=False)
    _decode_one: tuple[DecodesOne, ...] = field(init=False, repr=False, compare=False)
    _decode_sum: tuple[DecodesSum, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        backwards = self.stages[::-1]
        halves = {
            "_encode": tuple((f"{s.name}.", s) for s in self.stages if isinstance(s, Encodes)),
            "_decode_one": tuple(s for s in backwards if isinstance(s, DecodesOne)),
            "_decode_sum": tuple(s for s in backwards if isinstance(s, DecodesSum)),
        }
        for name, value in halves.items():
            object.__setattr__(self, name, value)

    def memory(self, sections: Sections) -> tuple[Section, ...]:
        """Everything that the stages keep at a client, names prefixed by their stage."""
        kept: list[Section] = []
        for stage in self.stages:
            own = stage.memory(sections)
            kept += [Section.vector(f"{stage.name}.{s.name}", s.length) for s in own]
            sections = stage.encoded(sections)
        return tuple(kept)

    def encoded(self, sections: Sections) -> Sections:
        """The type of what leaves a client and is folded."""
        for stage in self.stages:
            sections = stage.encoded(sections)
        return sections

    def limit_for(self, client: str, network: str = "") -> int | None:
        """The most bytes that an update of this client may have, over the network in use."""
        return limit_for(client, self.max_bytes, self.budgets, network)

    def encode(
        self, update: Update, memory: Mapping[str, Vector], context: EncodeContext
    ) -> tuple[Update, dict[str, Vector]]:
        """All client halves in order; returns the update and the new memory."""
        kept: dict[str, Vector] = {}
        for prefix, stage in self._encode:
            own = {k.removeprefix(prefix): v for k, v in memory.items() if k.startswith(prefix)}
            update, own_after = stage.encode(update, own, context)
            kept.update({prefix + name: value for name, value in own_after.items()})
        return update, kept

    def decode_one(self, update: Update) -> Update:
        """All per-update server halves, last stage first."""
        for stage in self._decode_one:
            update = stage.decode_one(update)
        return update

    def coarseness_of(self, update: Update) -> float | None:
        """How coarsely an update was encoded, where its codec chooses that."""
        packed = update.packed.get("delta")
        codec = next((stage for stage in self.stages if isinstance(stage, Choosing)), None)
        return None if packed is None or codec is None else codec.coarseness_of(packed)

    def decode_to_add(self, update: Update) -> Update:
        """`decode_one` for a caller who does nothing but add the update up: where the codec allows
        it, a vector stays as `Update.levels`, which the fold adds to the same bits."""
        stages = self._decode_one
        if len(stages) == 1 and isinstance(stages[0], DecodesLevels):
            return stages[0].decode_levels(update)
        return self.decode_one(update)

    def decode_sum(self, total: Total) -> Total:
        """All server halves on the sum, last stage first."""
        for stage in self._decode_sum:
            total = stage.decode_sum(total)
        return total

    @property
    def finest(self) -> Finest:
        """The finest thing that any stage needs to see."""
        return max((stage.contract().finest for stage in self.stages), default=Finest.TOTAL)

    @property
    def delivery(self) -> Finest:
        """What a runtime has to hand on. Updates are decoded wherever they are folded, so a stage
        that is undone for each update asks for nothing finer than a sum."""
        others = (s.contract().finest for s in self.stages if not isinstance(s, DecodesOne))
        return max(others, default=Finest.TOTAL)


def compile_stages(
    stages: Sequence[Stage], max_bytes: int | None = None, budgets: Sequence[Budget] = ()
) -> Pipeline:
    """Fit the stages around the fold; ``max_bytes`` is what an encoded update may have, and
    ``budgets`` say so for single clients.

    Raises:
        AnabranchError: AB-410 when a stage appears twice; AB-411 when a stage that is undone for
            each update stands before one that is undone on the sum: its half would run on
            something that the later stage has not yet undone; AB-460 and AB-461 when a stage
            stands behind one that leaves bytes; AB-424 when a stage is undone on
            the sum without being linear; AB-425 when a stage bounds the norm of what an earlier
            one has encoded.
    """
    names = [stage.name for stage in stages]
    for position, stage in enumerate(stages):
        if stage.name in names[:position]:
            raise AnabranchError(
                "AB-410",
                f"stage {stage.name!r} appears twice in updates.stages.",
                fix="keep one of them.",
            )
        _check_promises(stage)
        _check_place(stage, stages[:position])
    return Pipeline(tuple(stages), max_bytes, tuple(budgets))


def _check_promises(stage: Stage) -> None:
    if isinstance(stage, DecodesSum) and not stage.contract().linear:
        raise AnabranchError(
            "AB-424",
            f"stage {stage.name!r} is undone on the sum, but its contract does not say that it "
            "is linear.",
            fix="undo it for each update (decode_one), or declare linear=True when the sum of "
            "encoded updates is the encoded sum.",
        )


def _check_place(stage: Stage, before: Sequence[Stage]) -> None:
    """Whether the stage may stand behind the others."""
    _check_bytes(stage, before)
    undone_one = next((s for s in before if isinstance(s, DecodesOne)), None)
    undone_sum = next((s for s in before if isinstance(s, DecodesSum)), None)
    if isinstance(stage, DecodesSum) and undone_one is not None:
        raise AnabranchError(
            "AB-411",
            f"stage {undone_one.name!r} is undone for each update, but {stage.name!r} behind it "
            "is undone only on the sum.",
            fix=f"put {stage.name!r} before {undone_one.name!r}, or leave one out.",
        )
    encoded = undone_one or undone_sum
    bounds = not isinstance(stage, (DecodesOne, DecodesSum)) and stage.contract().norm_bound
    if encoded is not None and bounds and math.isfinite(bounds):
        raise AnabranchError(
            "AB-425",
            f"stage {stage.name!r} stands behind {encoded.name!r}, so it would bound the norm of "
            "encoded numbers, not of the update.",
            fix=f"put {stage.name!r} before {encoded.name!r}.",
        )


def _check_bytes(stage: Stage, before: Sequence[Stage]) -> None:
    codec = next((s for s in before if s.contract().packs), None)
    if codec is None or not isinstance(stage, Encodes):
        return
    twice = stage.contract().packs
    raise AnabranchError(
        "AB-460" if twice else "AB-461",
        f"stage {stage.name!r} works on numbers, but {codec.name!r} before it leaves bytes.",
        fix="keep one of them." if twice else f"put {stage.name!r} before {codec.name!r}.",
    )
