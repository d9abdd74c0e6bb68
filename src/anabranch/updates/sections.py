"""Sections: the named, declared parts of everything that leaves a client.

An algorithm, an evaluation or a statistic declares its sections before anything is computed. What
is not declared cannot be folded or serialised, so no count, loss or score leaves as a side field.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from anabranch.errors import AnabranchError
from anabranch.updates.levels import Levels
from anabranch.updates.packed import Packed

__all__ = [
    "WEIGHT",
    "Audience",
    "Kind",
    "Section",
    "Sections",
    "Statistics",
    "Update",
    "Vector",
    "Weighting",
]

Vector: TypeAlias = NDArray[np.float32]
"""A flat float32 vector: model parameters, a delta, a control variate."""

Statistics: TypeAlias = NDArray[np.float64]
"""A flat float64 vector: sums, histograms, metric counts."""

ArrayType: TypeAlias = tuple[tuple[int, ...], np.dtype[np.generic]]
"""Shape and dtype of an array."""

_FLOAT32 = np.dtype(np.float32)

WEIGHT = "weight"
"""The reserved scalar section that carries a client's aggregation weight."""


class Kind(StrEnum):
    """What the numbers of a section are."""

    VECTOR = "vector"  # float32, as long as the trained part of the model
    STATISTIC = "statistic"  # float64: sums of losses, squared norms
    COUNT = "count"  # exact integers below 2**53, held in float64


class Weighting(StrEnum):
    """What a section is multiplied by before it is added up."""

    BY_WEIGHT = "by-weight"  # the client's weight (examples, steps, ... as the plan says)
    UNIFORM = "uniform"  # one


class Audience(StrEnum):
    """Who may see the section of a single client."""

    CLEAR = "clear"  # the coordinator, by the protocol (never values of the data)
    SUM_ONLY = "sum-only"  # nobody: only sums over a group are needed
    PRIVATE = "private"  # nobody, and the sum only after a release with privacy


@dataclass(frozen=True, slots=True)
class Section:
    """One declared part of an update.

    Attributes:
        name: unique within its `Sections`.
        length: number of coordinates.
        kind: what the numbers are; a STATISTIC or COUNT of length 1 is a *scalar*.
        weighting: what each client's value is multiplied by in the fold.
        audience: who may see a single client's value.
        quantum: the power of two that each weighted term is rounded to, once (design idea 4).
        bound: largest absolute value a client may send; ``inf`` when only the fold's range binds.

    Raises:
        ValueError: the length is negative, the quantum is not a power of two (sums would not be
            exact), or the bound is not above zero.
    """

    name: str
    length: int
    kind: Kind = Kind.VECTOR
    weighting: Weighting = Weighting.BY_WEIGHT
    audience: Audience = Audience.SUM_ONLY
    quantum: float = 2.0**-24
    bound: float = float("inf")

    def __post_init__(self) -> None:
        if self.length < 0:
            raise ValueError(f"section {self.name!r} has a negative length")
        if not (0 < self.quantum < math.inf and math.frexp(self.quantum)[0] == 0.5):
            raise ValueError(f"the quantum of section {self.name!r} is not a power of two")
        if not self.bound > 0:
            raise ValueError(f"the bound of section {self.name!r} is not above zero")

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """float32 for vectors; float64 for statistics and counts of more than one number."""
        return np.dtype(np.float32 if self.kind is Kind.VECTOR else np.float64)

    @property
    def scalar(self) -> bool:
        """Whether a client sends this section as one plain number."""
        return self.kind is not Kind.VECTOR and self.length == 1

    @staticmethod
    def vector(name: str, length: int, weighting: Weighting = Weighting.BY_WEIGHT) -> Section:
        """A float32 section; uniform ones have the finer quantum that their range allows."""
        quantum = 2.0**-24 if weighting is Weighting.BY_WEIGHT else 2.0**-32
        return Section(name, length, Kind.VECTOR, weighting, quantum=quantum)

    @staticmethod
    def count(name: str, length: int = 1) -> Section:
        """Exact integers, added without a weight."""
        return Section(name, length, Kind.COUNT, Weighting.UNIFORM, quantum=1.0)

    @staticmethod
    def statistic(name: str, length: int = 1, weighting: Weighting = Weighting.UNIFORM) -> Section:
        """Float64 sums (losses, squared norms)."""
        return Section(name, length, Kind.STATISTIC, weighting)


@dataclass(frozen=True)
class Sections:
    """An ordered set of sections with unique names: the type of an update.

    >>> s = Sections((Section.vector("delta", 3), Section.count("examples")))
    >>> s["delta"].length, "loss" in s, s.size
    (3, False, 4)
    """

    items: tuple[Section, ...]
    vectors: tuple[Section, ...] = field(init=False, repr=False, compare=False)
    """The sections that a client sends as arrays."""
    scalars: tuple[Section, ...] = field(init=False, repr=False, compare=False)
    """The sections that a client sends as plain numbers."""
    _by_name: Mapping[str, Section] = field(init=False, repr=False, compare=False)
    _arrays: Mapping[str, ArrayType] = field(init=False, repr=False, compare=False)
    _numbers: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_name = {section.name: section for section in self.items}
        if len(by_name) != len(self.items):
            names = [section.name for section in self.items]
            raise ValueError(f"section names must be unique, got {names}")
        # Derived once: every update of every client is compared with them.
        vectors = tuple(section for section in self.items if not section.scalar)
        scalars = tuple(section for section in self.items if section.scalar)
        derived = {
            "_by_name": by_name,
            "vectors": vectors,
            "scalars": scalars,
            "_arrays": {section.name: ((section.length,), section.dtype) for section in vectors},
            "_numbers": frozenset(section.name for section in scalars),
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)

    def __iter__(self) -> Iterator[Section]:
        return iter(self.items)

    def __getitem__(self, name: str) -> Section:
        return self._by_name[name]

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __add__(self, other: Iterable[Section]) -> Sections:
        return Sections(self.items + tuple(other))

    @property
    def size(self) -> int:
        """Number of coordinates over all sections."""
        return sum(section.length for section in self.items)

    def fit(
        self,
        vectors: Mapping[str, Vector | Statistics],
        scalars: Mapping[str, float],
        levels: Mapping[str, Levels] = MappingProxyType({}),
    ) -> bool:
        """Whether these are exactly the declared names, shapes and types."""
        arrays: dict[str, ArrayType] = {n: (v.shape, v.dtype) for n, v in vectors.items()}
        for name, value in levels.items():
            arrays[name] = ((len(value),), _FLOAT32)
        return arrays == self._arrays and scalars.keys() == self._numbers


@dataclass(frozen=True, slots=True)
class Update:
    """What one client answers: an array for each vector section, a number for each scalar one."""

    vectors: Mapping[str, Vector | Statistics]
    scalars: Mapping[str, float]
    packed: Mapping[str, Packed] = field(default_factory=dict)
    """Vector sections that a codec has turned into bytes; the fold takes none of them."""
    levels: Mapping[str, Levels] = field(default_factory=dict)
    """Vector sections that are decoded only as far as the fold needs it."""

    @property
    def weight(self) -> float:
        """The aggregation weight that the client declares (1 when the section is absent)."""
        return self.scalars.get(WEIGHT, 1.0)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays, frames and numbers: packed sections count as encoded."""
        frames = sum(len(p.content) for p in self.packed.values())
        return sum(v.nbytes for v in self.vectors.values()) + frames + 8 * len(self.scalars)

    def check(self, sections: Sections, client: str) -> None:
        """Raise AB-501 unless the update has exactly the declared sections, shapes and types."""
        if not self.packed and sections.fit(self.vectors, self.scalars, self.levels):
            return
        got = {name: f"{v.dtype}{list(v.shape)}" for name, v in self.vectors.items()}
        got.update((name, f"float32[{len(v)}]") for name, v in self.levels.items())
        got.update((name, "packed bytes") for name in self.packed)
        wanted = {s.name: f"{s.dtype}[{s.length}]" for s in sections.vectors}
        raise AnabranchError(
            "AB-501",
            f"client {client!r} sent the sections {_listed(got, self.scalars)}; "
            f"declared are {_listed(wanted, (s.name for s in sections.scalars))}.",
            fix="use the same plan and software version at the client and the coordinator.",
            kept="The update was refused; the round goes on.",
        )


def _listed(arrays: Mapping[str, str], scalars: Iterable[str]) -> str:
    """Names with their types, in one order; never a value."""
    types = {**dict.fromkeys(scalars, "number"), **arrays}
    return ", ".join(f"{name}: {types[name]}" for name in sorted(types)) or "(none)"
