"""What every algorithm must do: a suite to subclass, and rounds without a learner to build more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import ClassVar, TypeVar

import numpy as np
import pytest

from anabranch.aggregation.fold import Accumulator, FoldPlan
from anabranch.algorithms.base import (
    Algorithm,
    ClientMemory,
    LocalWork,
    RoundContext,
    SectionValues,
    ServerState,
)
from anabranch.randomness import generator
from anabranch.updates.sections import WEIGHT, Section, Sections, Update, Vector, Weighting
from anabranch.updates.total import Total

__all__ = ["AlgorithmContract", "as_update", "first_memory", "folded", "update_sections"]

_N = 5  # enrolled clients in the suite's small federation
S = TypeVar("S")


def update_sections(algorithm: Algorithm, dim: int) -> Sections:
    """The algorithm's sections and the weight: the type of what its clients send."""
    return Sections((*algorithm.sections(dim), Section.statistic(WEIGHT)))


def first_memory(algorithm: Algorithm, dim: int) -> dict[str, Vector]:
    """A client's memory before its first round: zeros."""
    return {s.name: np.zeros(s.length, np.float32) for s in algorithm.memory_sections(dim)}


def as_update(values: SectionValues, weight: float) -> Update:
    """A client's values as an update of that weight."""
    vectors = {name: v for name, v in values.items() if isinstance(v, np.ndarray)}
    scalars = {name: float(v) for name, v in values.items() if not isinstance(v, np.ndarray)}
    return Update(vectors, {**scalars, WEIGHT: weight})


def folded(sections: Sections, updates: Iterable[Update]) -> Total:
    """The exact fold over some updates."""
    accumulator = Accumulator(FoldPlan(sections, capacity=1024))
    for number, update in enumerate(updates):
        accumulator.add(update, f"client {number}")
    return accumulator.total()


@dataclass(frozen=True)
class _Round:
    """Everything that one round of the suite produced."""

    before: ServerState
    after: ServerState
    memories: tuple[ClientMemory, ...]
    updates: tuple[Update, ...]
    total: Total


def _works(dim: int, round_: int, scale: float = 0.1) -> list[LocalWork]:
    """Made-up local training of all clients, different in every respect."""
    rng = generator(0, "contract", round_)
    return [
        LocalWork(
            delta=(scale * rng.normal(size=dim)).astype(np.float32),
            steps=1 + number,
            examples=10 * (1 + number),
            step_size_sum=0.05 * (1 + number),
            coefficient=float(1 + number),
            loss_sum=float(rng.uniform(1, 2)),
        )
        for number in range(_N)
    ]


def _play(
    algorithm: Algorithm,
    state: ServerState,
    memories: Sequence[ClientMemory],
    works: Sequence[LocalWork],
    cohort: Sequence[int],
    round_: int,
) -> _Round:
    """One round of `cohort` through the algorithm's public functions and the exact fold."""
    dim = len(state.model)
    broadcast, after, updates = algorithm.broadcast(state), list(memories), []
    for number in cohort:
        work = works[number]
        values, after[number] = algorithm.client_update(broadcast, memories[number], work)
        updates.append(as_update(values, float(work.examples)))
    total = folded(update_sections(algorithm, dim), updates)
    context = RoundContext(round_, clients=_N)
    return _Round(
        state, algorithm.server_update(state, total, context), tuple(after), tuple(updates), total
    )


def _read_only(values: Mapping[str, S]) -> dict[str, S]:
    """The same names with arrays that raise when they are written to."""
    frozen: dict[str, S] = {}
    for name, value in values.items():
        frozen[name] = value
        if isinstance(value, np.ndarray):
            copy = value.copy()
            copy.flags.writeable = False
            frozen[name] = copy
    return frozen


def _read_only_state(state: ServerState) -> ServerState:
    return replace(state, **_read_only({f.name: getattr(state, f.name) for f in fields(state)}))


def _same(left: Mapping[str, object], right: Mapping[str, object]) -> bool:
    """Equal names, types and bits."""
    return left.keys() == right.keys() and all(
        np.asarray(left[name]).dtype == np.asarray(right[name]).dtype
        and np.asarray(left[name]).tobytes() == np.asarray(right[name]).tobytes()
        for name in left
    )


@pytest.mark.parametrize("dim", [1, 7])
class AlgorithmContract:
    """Subclass it, return your algorithm from `algorithm`, and run pytest.

    Attributes:
        rests_on_zeros: whether zero deltas leave the first model where it is.
        means: names of state vectors that must stay the mean of a memory section over *all*
            clients, whoever takes part: {state field: memory section} (SCAFFOLD's 1/N rule).
        tolerance: largest deviation of such a mean, relative to the largest entry, from rounding.
    """

    rests_on_zeros: ClassVar[bool] = True
    means: ClassVar[Mapping[str, str]] = {}
    tolerance: ClassVar[float] = 1e-5

    def algorithm(self) -> Algorithm:
        """The algorithm under test."""
        raise NotImplementedError

    def rounds(self, dim: int, count: int = 3) -> list[_Round]:
        """Some rounds from a random model; in each the next two of five clients are missing."""
        algorithm = self.algorithm()
        model = generator(0, "contract model").normal(size=dim).astype(np.float32)
        state: ServerState = algorithm.init(model)
        memories: tuple[ClientMemory, ...] = (first_memory(algorithm, dim),) * _N
        played = []
        for round_ in range(1, count + 1):
            cohort = [(round_ + shift) % _N for shift in range(_N - 2)]
            played.append(_play(algorithm, state, memories, _works(dim, round_), cohort, round_))
            state, memories = played[-1].after, played[-1].memories
        return played

    def test_is_a_value(self, dim: int) -> None:
        """Named, described, immutable, equal to itself after a trip through plain data."""
        algorithm = self.algorithm()
        assert algorithm.name
        assert type(algorithm).model_validate(algorithm.model_dump()) == algorithm
        with pytest.raises(ValueError, match="frozen"):
            setattr(algorithm, "server_learning_rate", 0.5)  # noqa: B010
        undescribed = [n for n, f in type(algorithm).model_fields.items() if not f.description]
        assert not undescribed

    def test_requirement_is_true(self, dim: int) -> None:
        """What the algebra is told agrees with what is declared."""
        algorithm, requirement = self.algorithm(), self.algorithm().requirement()
        sections = Sections(algorithm.sections(dim))
        assert requirement.client_memory == bool(algorithm.memory_sections(dim))
        if requirement.uniform_mean:
            assert sections["delta"].weighting is Weighting.UNIFORM
        if requirement.individual_norms:
            assert any(s.kind.value == "statistic" for s in sections)

    def test_state_round_trips_through_arrays(self, dim: int) -> None:
        algorithm, last = self.algorithm(), self.rounds(dim)[-1].after
        assert type(last) is algorithm.state_type
        again = type(last).from_arrays(last.arrays())
        assert type(again) is type(last)
        assert _same(again.arrays(), last.arrays())

    def test_everything_is_float32(self, dim: int) -> None:
        """State, broadcast, memory and correction are float32 vectors of the declared lengths."""
        algorithm = self.algorithm()
        for played in self.rounds(dim):
            for vector in played.after.arrays().values():
                assert vector.ndim == 0 or (vector.shape == (dim,) and vector.dtype == np.float32)
            broadcast = algorithm.broadcast(played.after)
            declared = {s.name: s.length for s in algorithm.broadcast_sections(dim)}
            assert {name: len(vector) for name, vector in broadcast.items()} == declared
            assert all(vector.dtype == np.float32 for vector in broadcast.values())
            correction = algorithm.client_correction(broadcast, played.memories[0])
            assert 0 <= correction.pull < np.inf
            for part in (correction.anchor, correction.drift):
                assert part is None or (part.shape == (dim,) and part.dtype == np.float32)

    def test_sections_are_those_declared(self, dim: int) -> None:
        algorithm = self.algorithm()
        assert "delta" in Sections(algorithm.sections(dim))
        for update in self.rounds(dim)[-1].updates:
            update.check(update_sections(algorithm, dim), "a")

    def test_memory_is_that_declared(self, dim: int) -> None:
        algorithm = self.algorithm()
        declared = {s.name: ((s.length,), "float32") for s in algorithm.memory_sections(dim)}
        for memory in self.rounds(dim)[-1].memories:
            assert {n: (v.shape, v.dtype.name) for n, v in memory.items()} == declared

    def test_client_half_is_pure(self, dim: int) -> None:
        """It writes to nothing that it is given and gives the same again."""
        algorithm, played = self.algorithm(), self.rounds(dim)[-1]
        broadcast = _read_only(algorithm.broadcast(played.after))
        memory, work = _read_only(played.memories[1]), _works(dim, 9)[1]
        work.delta.flags.writeable = False
        algorithm.client_correction(broadcast, memory)
        first = algorithm.client_update(broadcast, memory, work)
        second = algorithm.client_update(broadcast, memory, work)
        assert _same(first[0], second[0])
        assert _same(first[1], second[1])

    def test_server_half_is_pure(self, dim: int) -> None:
        algorithm, played = self.algorithm(), self.rounds(dim)[-1]
        state = _read_only_state(played.before)
        total = replace(played.total, sums=_read_only(played.total.sums))
        results = [
            algorithm.server_update(state, total, RoundContext(3, clients=_N)) for _ in range(2)
        ]
        assert _same(results[0].arrays(), results[1].arrays())
        assert _same(results[0].arrays(), played.after.arrays())

    def test_order_and_grouping_of_clients_change_no_bit(self, dim: int) -> None:
        algorithm, played = self.algorithm(), self.rounds(dim)[-1]
        sections = update_sections(algorithm, dim)
        for order, cut in (((2, 1, 0), 1), ((1, 0, 2), 2)):
            updates = [played.updates[place] for place in order]
            total = folded(sections, updates[:cut]).plus(folded(sections, updates[cut:]))
            after = algorithm.server_update(played.before, total, RoundContext(3, clients=_N))
            assert _same(after.arrays(), played.after.arrays())

    def test_zero_deltas_leave_the_first_model(self, dim: int) -> None:
        if not self.rests_on_zeros:
            pytest.skip("the algorithm says that it moves without updates")
        algorithm, works = self.algorithm(), _works(dim, 1, scale=0.0)
        state: ServerState = algorithm.init(np.linspace(-1, 1, dim, dtype=np.float32))
        memories: tuple[ClientMemory, ...] = (first_memory(algorithm, dim),) * _N
        for round_ in (1, 2):
            played = _play(algorithm, state, memories, works, range(_N), round_)
            assert np.array_equal(played.after.model, state.model)
            state, memories = played.after, played.memories

    def test_server_schedule_scales_the_step(self, dim: int) -> None:
        """Factor 0 leaves the model in place, and half the factor moves it half as far."""
        algorithm, played = self.algorithm(), self.rounds(dim)[-1]
        start = played.before.model.astype(np.float64)
        moves = {}
        for factor in (0.0, 0.5, 1.0):
            context = RoundContext(3, clients=_N, rate_factor=factor)
            moves[factor] = algorithm.server_update(played.before, played.total, context).model
        assert np.array_equal(moves[0.0], played.before.model)
        halves = 2 * (moves[0.5] - start)
        assert np.allclose(halves, moves[1.0] - start, rtol=1e-4, atol=1e-6)

    def test_number_of_enrolled_clients(self, dim: int) -> None:
        """Only algorithms with client memory look at N, and their means are over all clients."""
        algorithm, played = self.algorithm(), self.rounds(dim)
        if not algorithm.requirement().client_memory:
            more = RoundContext(3, clients=1000)
            after = algorithm.server_update(played[-1].before, played[-1].total, more)
            assert _same(after.arrays(), played[-1].after.arrays())
        for one in played:
            for field, section in self.means.items():
                mean = np.mean([m[section].astype(np.float64) for m in one.memories], axis=0)
                largest = max(float(np.abs(m[section]).max()) for m in one.memories)
                kept = getattr(one.after, field)
                assert np.allclose(kept, mean, rtol=0, atol=self.tolerance * largest)

    def test_evaluated_model_is_a_model(self, dim: int) -> None:
        algorithm = self.algorithm()
        for played in self.rounds(dim):
            evaluated = algorithm.evaluated_model(played.after)
            assert evaluated.shape == (dim,)
            assert evaluated.dtype == np.float32
            assert np.isfinite(evaluated).all()
