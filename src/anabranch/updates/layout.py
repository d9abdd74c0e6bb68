"""The layout: where each named parameter of a model stands in one flat float32 vector.

Parameters are ordered by policy, so that what is averaged is a prefix of the vector:
``[averaged ... | local ... | frozen ...]``. Aggregation, privacy and compression see only the
averaged prefix; local parameters are client state; frozen ones never move.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from anabranch.updates.sections import Vector

__all__ = ["Layout", "Parameter", "Policy"]


class Policy(StrEnum):
    """What happens to a parameter in a round."""

    AVERAGE = "average"  # trained at the clients, merged at the coordinator
    LOCAL = "local"  # trained at the client and kept there (FedBN, FedPer)
    FREEZE = "freeze"  # never changed (a pretrained backbone)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One named tensor of a model.

    Attributes:
        name: as the learner calls it (``layer.weight``).
        shape: logical shape, e.g. (out, in, height, width).
        policy: averaged, local or frozen.
        channels_last: stored as (out, height, width, in) inside the vector.
        trained: whether a gradient moves it; running statistics of a normalisation layer are not.
    """

    name: str
    shape: tuple[int, ...]
    policy: Policy = Policy.AVERAGE
    channels_last: bool = False
    trained: bool = True

    def __post_init__(self) -> None:
        # Plain integers, so that equal layouts print, and therefore digest, alike.
        object.__setattr__(self, "shape", tuple(int(length) for length in self.shape))
        if self.channels_last and len(self.shape) != 4:
            raise ValueError(f"{self.name!r}: channels_last needs four dimensions")

    @property
    def size(self) -> int:
        return math.prod(self.shape)


_ORDER = (Policy.AVERAGE, Policy.LOCAL, Policy.FREEZE)


@dataclass(frozen=True)
class Layout:
    """Parameters of a model and their places in the flat vector.

    >>> layout = Layout.of([Parameter("w", (2, 3)), Parameter("head", (4,), Policy.LOCAL)])
    >>> layout.size, layout.averaged, layout.offsets["head"]
    (10, 6, 6)
    """

    parameters: tuple[Parameter, ...]
    offsets: Mapping[str, int] = field(init=False, repr=False, compare=False)
    _by_name: Mapping[str, Parameter] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ranks = [_ORDER.index(parameter.policy) for parameter in self.parameters]
        if ranks != sorted(ranks):
            raise ValueError("parameters must be ordered average, local, freeze; use Layout.of")
        offsets, position = {}, 0
        for parameter in self.parameters:
            offsets[parameter.name] = position
            position += parameter.size
        if len(offsets) != len(self.parameters):
            raise ValueError("parameter names must be unique")
        object.__setattr__(self, "offsets", offsets)
        object.__setattr__(self, "_by_name", {p.name: p for p in self.parameters})

    @staticmethod
    def of(parameters: Iterable[Parameter]) -> Layout:
        """A layout with the parameters sorted by policy, otherwise in the order given."""
        return Layout(tuple(sorted(parameters, key=lambda p: _ORDER.index(p.policy))))

    @property
    def size(self) -> int:
        """Coordinates of the whole vector."""
        return sum(parameter.size for parameter in self.parameters)

    @property
    def averaged(self) -> int:
        """Coordinates of the averaged prefix: the dimension that aggregation works in."""
        return self._count(Policy.AVERAGE)

    @property
    def local(self) -> int:
        """Coordinates that stay at the client; they stand directly behind the averaged prefix."""
        return self._count(Policy.LOCAL)

    def _count(self, policy: Policy) -> int:
        return sum(p.size for p in self.parameters if p.policy is policy)

    def view(self, vector: Vector, name: str) -> Vector:
        """The slice of ``vector`` that holds ``name``, in its logical shape (a view).

        Raises:
            KeyError: there is no such parameter.
        """
        parameter = self._by_name[name]
        start = self.offsets[name]
        flat = vector[start : start + parameter.size]
        if not parameter.channels_last:
            return flat.reshape(parameter.shape)
        out, inner, height, width = parameter.shape
        return flat.reshape(out, height, width, inner).transpose(0, 3, 1, 2)

    def views(self, vector: Vector) -> dict[str, Vector]:
        """Every parameter as a view of ``vector`` in its logical shape."""
        return {parameter.name: self.view(vector, parameter.name) for parameter in self.parameters}

    def flatten(self, values: Mapping[str, Vector]) -> Vector:
        """One new vector from arrays in their logical shapes.

        Raises:
            KeyError: a parameter is missing.
            ValueError: an array has another shape than its parameter.
        """
        vector = np.empty(self.size, np.float32)
        for name, view in self.views(vector).items():
            value = np.asarray(values[name])
            if value.shape != view.shape:  # assignment would broadcast without a word
                raise ValueError(f"{name!r} has shape {value.shape}, wanted {view.shape}")
            view[...] = value
        return vector

    @property
    def digest(self) -> str:
        """SHA-256 over names, shapes and policies: equal layouts, equal digests."""
        return hashlib.sha256(repr(self.parameters).encode()).hexdigest()
