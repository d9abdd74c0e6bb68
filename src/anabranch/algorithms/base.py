r"""What an algorithm is: a frozen value with pure functions; state goes in and comes out.

One round, from the algorithm's point of view::

    broadcast(state)                             server   what every client of the round receives
    client_correction(broadcast, memory)         client   how the local gradient is changed
        ... the learner trains: g <- g + pull * (w - anchor) + drift ...
    client_update(broadcast, memory, work)       client   declared sections, new memory
        ... exact fold over the cohort ...
    server_update(state, total, context)         server   the next state

Everything works on the *averaged prefix* of the model's flat vector (see `updates.layout`), of
dimension ``dim``. A subclass is one file with the paper in its docstring.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import ClassVar, Self, TypeAlias

import numpy as np
from pydantic import Field

from anabranch.updates.sections import Section, Statistics, Vector
from anabranch.updates.total import Total
from anabranch.values import Value

__all__ = [
    "Algorithm",
    "Broadcast",
    "ClientMemory",
    "Correction",
    "LocalWork",
    "Requirement",
    "RoundContext",
    "SectionValues",
    "ServerState",
    "elementwise",
]

Broadcast: TypeAlias = Mapping[str, Vector]
"""What a round sends down: ``model`` (length ``dim``) and what else the algorithm declares."""

ClientMemory: TypeAlias = Mapping[str, Vector]
"""What one client keeps between rounds, by section name; zeros before its first round."""

SectionValues: TypeAlias = Mapping[str, Vector | float]
"""A client's values for the sections that the algorithm declares."""


@dataclass(frozen=True, slots=True)
class Correction:
    """The affine change of the local gradient: g + pull * (w - anchor) + drift.

    Attributes:
        pull: strength of the pull, 1 / learning-rate units.
        anchor: what w is pulled to, shape (dim,); None means the broadcast model.
        drift: constant addition to the gradient, shape (dim,); None means zero.
    """

    pull: float = 0.0
    anchor: Vector | None = None
    drift: Vector | None = None


@dataclass(frozen=True, slots=True)
class LocalWork:
    """What local training did, as far as an algorithm may know it.

    Attributes:
        delta: end minus start of the averaged prefix, shape (dim,).
        steps: optimizer steps taken.
        examples: examples in the client's training split.
        step_size_sum: sum of the learning rates over the steps.
        coefficient: L1 norm of the accumulated gradient coefficients of the real local optimizer
            in units of the learning rate (FedNova's ||a_i||_1; ``steps`` for plain SGD).
        loss_sum: sum of the training losses over the examples seen.
    """

    delta: Vector
    steps: int
    examples: int
    step_size_sum: float
    coefficient: float
    loss_sum: float = 0.0


@dataclass(frozen=True, slots=True)
class RoundContext:
    """What the server half may know besides state and total.

    Attributes:
        round: number of the model version being made, from 1.
        clients: N, the number of all enrolled clients (not the cohort).
        rate_factor: factor of the server learning-rate schedule in this round.
    """

    round: int
    clients: int
    rate_factor: float = 1.0


@dataclass(frozen=True)
class ServerState:
    """The algorithm's state; subclasses add float32 vectors of length ``dim`` or floats.

    It is stored by field name after every round, so fields are arrays or floats only.
    """

    model: Vector

    @classmethod
    def of(cls, state: ServerState) -> Self:
        """``state`` itself, known to be of this class.

        Raises:
            TypeError: it belongs to another algorithm.
        """
        if not isinstance(state, cls):
            raise TypeError(f"a state of {type(state).__name__} was given, wanted {cls.__name__}")
        return state

    def arrays(self) -> dict[str, np.ndarray]:
        """Every field as an array, for the store."""
        return {f.name: np.asarray(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> ServerState:
        """The inverse of `arrays`: zero-dimensional arrays become floats."""
        values = {f.name: arrays[f.name] for f in fields(cls)}
        given = {name: float(v) if v.ndim == 0 else v for name, v in values.items()}
        return cls(**given)  # type: ignore[arg-type]  # fields are vectors or floats by contract


@dataclass(frozen=True, slots=True)
class Requirement:
    """What an algorithm needs from the rest of the plan; the algebra reads nothing else.

    Attributes:
        uniform_mean: the theory needs an unweighted mean of the deltas.
        plain_sgd: a local step must be the rate times the gradient: SGD without momentum (weight
            decay is part of the gradient).
        known_coefficients: the local optimizer's coefficients must be known (FedNova).
        client_memory: each client keeps vectors between rounds.
        individual_norms: needs the squared norm of each delta, as a section.
    """

    uniform_mean: bool = False
    plain_sgd: bool = False
    known_coefficients: bool = False
    client_memory: bool = False
    individual_norms: bool = False


class Algorithm(Value):
    """Base of every algorithm."""

    name: ClassVar[str] = ""
    state_type: ClassVar[type[ServerState]] = ServerState

    server_learning_rate: float = Field(
        default=1.0, gt=0, json_schema_extra={"unit": "factor on the mean update"}
    )
    """Step size of the server on the aggregated update; times the plan's server schedule."""

    def requirement(self) -> Requirement:
        """What the plan must provide."""
        return Requirement()

    def sections(self, dim: int) -> tuple[Section, ...]:
        """The sections that `client_update` fills, besides the weight."""
        return (Section.vector("delta", dim),)

    def broadcast_sections(self, dim: int) -> tuple[Section, ...]:
        """What `broadcast` sends: always ``model``."""
        return (Section.vector("model", dim),)

    def memory_sections(self, dim: int) -> tuple[Section, ...]:
        """What each client keeps between rounds; empty for stateless algorithms."""
        return ()

    def init(self, model: Vector) -> ServerState:
        """The state before round 1; vectors other than the model start at zero."""
        return self.state_type(model)

    def broadcast(self, state: ServerState) -> Broadcast:
        return {"model": state.model}

    def client_correction(self, broadcast: Broadcast, memory: ClientMemory) -> Correction:
        return Correction()

    def client_update(
        self, broadcast: Broadcast, memory: ClientMemory, work: LocalWork
    ) -> tuple[SectionValues, ClientMemory]:
        return {"delta": work.delta}, {}

    def server_update(self, state: ServerState, total: Total, context: RoundContext) -> ServerState:
        raise NotImplementedError(f"{type(self).__name__} has no server update")

    def evaluated_model(self, state: ServerState) -> Vector:
        """The model that is evaluated and handed out (not always the iterate)."""
        return state.model


def elementwise(
    rule: Callable[..., tuple[Statistics, ...]], *vectors: np.ndarray, chunk: int = 1 << 15
) -> tuple[Vector, ...]:
    """Apply a coordinate-wise float64 rule in cache-sized chunks; results are new float32 vectors.

    Args:
        rule: maps equally long float64 chunks to a tuple of chunks.
        vectors: equally long vectors (float32 or float64).

    >>> import numpy as np
    >>> elementwise(lambda a, b: (a + b, a - b), np.ones(3), np.ones(3))[0]
    array([2., 2., 2.], dtype=float32)
    """
    size = len(vectors[0])
    outputs: list[Vector] = []
    for start in range(0, max(size, 1), chunk):
        part = rule(*(np.asarray(v[start : start + chunk], np.float64) for v in vectors))
        if not outputs:
            outputs = [np.empty(size, np.float32) for _ in part]
        for output, value in zip(outputs, part, strict=True):
            output[start : start + chunk] = value
    return tuple(outputs)
