"""What every fold must do: exact sums that no order, grouping or refusal can change."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import reduce

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anabranch.aggregation.fold import Accumulator, FoldPlan
from anabranch.errors import AnabranchError
from anabranch.updates.sections import (
    WEIGHT,
    Kind,
    Section,
    Sections,
    Statistics,
    Update,
    Vector,
    Weighting,
)
from anabranch.updates.total import Total

__all__ = ["FoldContract"]

_SECTIONS = Sections(
    (
        Section.vector("delta", 5),
        Section.vector("control", 3, Weighting.UNIFORM),
        Section("histogram", 4, Kind.COUNT, Weighting.UNIFORM, quantum=1.0),
        Section.statistic("norms", 2, Weighting.BY_WEIGHT),
        Section.vector("last", 1),
        Section.statistic(WEIGHT),
        Section.count("examples"),
        Section.statistic("loss", weighting=Weighting.BY_WEIGHT),
        Section("clipped", 1, Kind.STATISTIC, Weighting.UNIFORM, bound=1.0),
    )
)
_PLAN = FoldPlan(_SECTIONS, capacity=16)

# A suite is run by many subclasses; the draws do not depend on them.
_settings = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.differing_executors]
)


def _update(seed: int) -> Update:
    """An update with values of very different sizes, well inside every limit."""
    rng = np.random.default_rng(seed)

    def numbers(count: int) -> Statistics:
        return rng.normal(size=count) * 2.0 ** rng.integers(-30, 6, size=count)

    vectors: dict[str, Vector | Statistics] = {
        "delta": numbers(5).astype(np.float32),
        "control": numbers(3).astype(np.float32),
        "histogram": rng.integers(0, 1000, size=4).astype(np.float64),
        "norms": numbers(2),
        "last": numbers(1).astype(np.float32),
    }
    scalars = {
        WEIGHT: float(rng.choice([1.0, 17.0, 600.0, 0.3, 1 / 7])),
        "examples": float(rng.integers(1, 5000)),
        "loss": float(numbers(1)[0]),
        "clipped": float(rng.integers(0, 2)),
    }
    return Update(vectors, scalars)


def _changed(name: str, value: float, place: int = -1) -> Update:
    """An update with one number replaced."""
    update = _update(3)
    if name in update.scalars:
        return replace(update, scalars={**update.scalars, name: value})
    vector = update.vectors[name].copy()
    vector[place] = value
    return replace(update, vectors={**update.vectors, name: vector})


def _terms(updates: Sequence[Update], section: Section) -> list[list[Fraction]]:
    """Unrounded weighted terms by client and coordinate, in exact rational arithmetic."""
    result = []
    for update in updates:
        weight = Fraction(1)
        if section.weighting is Weighting.BY_WEIGHT:
            weight = _nearest(Fraction(update.weight), _SECTIONS[WEIGHT].quantum)
        given_value = update.vectors.get(section.name)
        values = [update.scalars[section.name]] if given_value is None else given_value.tolist()
        result.append([weight * Fraction(value) for value in values])
    return result


def _nearest(term: Fraction, quantum: float) -> Fraction:
    """The multiple of the quantum nearest to a rational term, half to even."""
    return round(term / Fraction(quantum)) * Fraction(quantum)


_clients = st.lists(st.integers(0, 2**32), min_size=1, max_size=9)


class FoldContract:
    """Subclass it, return your fold from `accumulator`, and run pytest."""

    def accumulator(self, plan: FoldPlan, buffer: Statistics | None = None) -> Accumulator:
        """An empty fold."""
        return Accumulator(plan, buffer)

    def _flat(self, updates: Sequence[Update]) -> Statistics:
        accumulator = self.accumulator(_PLAN)
        for update in updates:
            accumulator.add(update, "a")
        return accumulator.buffer

    @_settings
    @given(seeds=_clients, data=st.data())
    def test_order_and_grouping_change_no_bit(self, seeds: list[int], data: st.DataObject) -> None:
        """Any order, any partition, merged in any order, in place or as totals."""
        updates = [_update(seed) for seed in seeds]
        flat = self._flat(updates)
        order = data.draw(st.permutations(range(len(updates))))
        assert self._flat([updates[place] for place in order]).tobytes() == flat.tobytes()
        groups = [self.accumulator(_PLAN) for _ in range(4)]
        for place in order:
            groups[data.draw(st.integers(0, 3))].add(updates[place], "a")
        totals = [groups[g].total() for g in data.draw(st.permutations(range(4)))]
        root = self.accumulator(_PLAN)
        for group in groups[:2]:
            root.merge(group)
        for group in groups[2:]:
            root.absorb(group.total())
        assert root.buffer.tobytes() == flat.tobytes()
        assert root.contributors == len(updates)
        whole = self.accumulator(_PLAN)
        whole.merge(root)
        combined, expected = reduce(Total.plus, totals), whole.total()
        for name, value in expected.sums.items():
            assert combined.sums[name].tobytes() == value.tobytes()
        assert combined.contributors == len(updates)

    @_settings
    @given(seeds=_clients)
    def test_each_term_is_rounded_once_and_added_exactly(self, seeds: list[int]) -> None:
        """The sum is within half a quantum a client of the sum in rational arithmetic.

        Products of 53-bit weights and values are themselves rounded to float64 first; that is
        counted with 2^-53 of the term.
        """
        updates = [_update(seed) for seed in seeds]
        accumulator = self.accumulator(_PLAN)
        for update in updates:
            accumulator.add(update, "a")
        sums = accumulator.total().sums
        for section in _SECTIONS:
            terms = _terms(updates, section)
            for place in range(section.length):
                column = [client[place] for client in terms]
                got = Fraction(float(sums[section.name][place]))
                assert (got / Fraction(section.quantum)).denominator == 1
                error = abs(got - sum(column))
                product = sum((abs(term) for term in column), Fraction(0)) / 2**53
                assert error <= len(updates) * Fraction(section.quantum) / 2 + product

    @_settings
    @given(value=st.floats(-(2.0**20), 2.0**20, width=32))
    def test_rounding_is_to_the_nearest_even_multiple(self, value: float) -> None:
        """Weight one: the product is exact, so the sum is the one correctly rounded term."""
        sections = Sections((Section("x", 1, Kind.VECTOR, Weighting.UNIFORM, quantum=2.0**-8),))
        accumulator = self.accumulator(FoldPlan(sections, capacity=1))
        accumulator.add(Update({"x": np.array([value], np.float32)}, {}), "a")
        assert Fraction(float(accumulator.buffer[0])) == _nearest(Fraction(value), 2.0**-8)

    @_settings
    @given(seeds=_clients)
    def test_close_to_a_correctly_rounded_sum(self, seeds: list[int]) -> None:
        """Weighted means agree with `math.fsum` to the quantum over the mean weight."""
        updates = [_update(seed) for seed in seeds]
        accumulator = self.accumulator(_PLAN)
        for update in updates:
            accumulator.add(update, "a")
        total = accumulator.total()
        weight = math.fsum(update.weight for update in updates)
        for place in range(5):
            terms = [update.weight * float(update.vectors["delta"][place]) for update in updates]
            mean = math.fsum(terms) / weight
            size = max(abs(float(update.vectors["delta"][place])) for update in updates)
            allowed = len(updates) * 2.0**-24 / weight * (1 + 2 * size)
            assert abs(float(total.mean("delta")[place]) - mean) <= allowed

    @_settings
    @given(seeds=_clients, value=st.floats(-100, 100, width=32))
    def test_the_mean_of_equal_values_is_that_value(self, seeds: list[int], value: float) -> None:
        """Whatever the weights: numerator and denominator hold the same rounded weight."""
        updates = [
            replace(u, vectors={**u.vectors, "last": np.array([value], np.float32)})
            for u in map(_update, seeds)
        ]
        accumulator = self.accumulator(_PLAN)
        for update in updates:
            accumulator.add(update, "a")
        total = accumulator.total()
        allowed = len(updates) * 2.0**-25 / total.weight + abs(value) * 2.0**-50
        assert abs(float(total.mean("last")[0]) - value) <= allowed

    @pytest.mark.parametrize(
        ("bad", "code"),
        [
            *[(_changed(name, bad), "AB-502")
              for name in ("delta", "control", "histogram", "norms", "last", WEIGHT, "loss")
              for bad in (math.nan, math.inf, -math.inf)],
            (_changed("delta", math.nan, place=0), "AB-502"),
            *[(_changed(name, 3e38), "AB-503") for name in ("delta", "control", "last")],
            *[(_changed(name, -1e300), "AB-503") for name in ("norms", "loss", "examples")],
            *[(_changed(WEIGHT, bad), "AB-503") for bad in (0.0, -1.0, 1e-12, 1e300)],
            *[(_changed("clipped", bad), "AB-503") for bad in (1.5, -1.001)],
            (_changed("examples", 2.5), "AB-503"),
            (_changed("histogram", 0.5), "AB-503"),
        ],
    )  # fmt: skip
    def test_refusals_change_nothing(self, bad: Update, code: str) -> None:
        accumulator = self.accumulator(_PLAN)
        accumulator.add(_update(1), "good")
        before = accumulator.buffer.tobytes()
        with pytest.raises(AnabranchError, match="'villain'") as raised:
            accumulator.add(bad, "villain")
        assert raised.value.code == code
        assert accumulator.buffer.tobytes() == before
        assert accumulator.contributors == 1

    @pytest.mark.parametrize("case", ["missing", "extra", "shape", "dtype", "length", "scalar"])
    def test_other_sections_are_refused(self, case: str) -> None:
        update = _update(3)
        vectors, scalars = dict(update.vectors), dict(update.scalars)
        if case == "missing":
            del vectors["last"]
        elif case == "extra":
            vectors["note"] = np.zeros(1, np.float32)
        elif case == "scalar":
            del scalars["loss"]
        else:
            wrong: dict[str, Vector | Statistics] = {
                "shape": np.zeros((5, 1), np.float32),
                "dtype": np.zeros(5),
                "length": np.zeros(6, np.float32),
            }
            vectors["delta"] = wrong[case]
        accumulator = self.accumulator(_PLAN)
        with pytest.raises(AnabranchError) as raised:
            accumulator.add(Update(vectors, scalars), "villain")
        assert raised.value.code == "AB-501"
        assert not accumulator.buffer.any()

    @pytest.mark.parametrize("capacity", [1, 2, 3, 100])
    def test_limits_at_their_exact_edge(self, capacity: int) -> None:
        """The largest accepted term fits as often as there is room; the next float is refused."""
        section = Section.statistic("x", 2)
        plan = FoldPlan(Sections((section,)), capacity)
        edge = plan.limit(section)
        accumulator = self.accumulator(plan)
        for _ in range(capacity):
            accumulator.add(Update({"x": np.array([edge, -edge])}, {}), "a")
        wanted = capacity * _nearest(Fraction(edge), section.quantum)
        assert [Fraction(float(x)) for x in accumulator.total().sums["x"]] == [wanted, -wanted]
        accumulator.reset()
        for beyond in (math.nextafter(edge, math.inf), math.nextafter(-edge, -math.inf)):
            with pytest.raises(AnabranchError, match="AB-503"):
                accumulator.add(Update({"x": np.array([0.0, beyond])}, {}), "a")
        assert not accumulator.buffer.any()

    def test_more_updates_than_planned_are_an_error(self) -> None:
        """The limits hold for the planned number only, so more would not be exact."""
        plan = FoldPlan(_SECTIONS, capacity=2)
        full, other = self.accumulator(plan), self.accumulator(plan)
        full.add(_update(1), "a")
        full.add(_update(2), "b")
        other.add(_update(3), "c")
        with pytest.raises(ValueError, match="planned for 2"):
            full.add(_update(3), "c")
        with pytest.raises(ValueError, match="planned for 2"):
            full.merge(other)
        with pytest.raises(ValueError, match="planned for 2"):
            full.absorb(other.total())

    def test_other_plans_cannot_be_merged(self) -> None:
        other = self.accumulator(FoldPlan(Sections((Section.vector("delta", 5),)), 16))
        with pytest.raises(ValueError, match="different"):
            self.accumulator(_PLAN).merge(other)
        with pytest.raises(ValueError, match="different"):
            self.accumulator(_PLAN).absorb(other.total())

    def test_works_in_a_given_buffer(self) -> None:
        """For example in shared memory; a total is a copy unless asked otherwise."""
        buffer = np.zeros(_SECTIONS.size)
        accumulator = self.accumulator(_PLAN, buffer)
        accumulator.add(_update(1), "a")
        assert buffer.tobytes() == self._flat([_update(1)]).tobytes()
        total, view = accumulator.total(), accumulator.total(copy=False)
        kept = total.sums["delta"].copy()
        accumulator.reset()
        assert np.array_equal(total.sums["delta"], kept)
        assert not view.sums["delta"].any()
        assert accumulator.contributors == 0
        with pytest.raises(ValueError, match="buffer"):
            self.accumulator(_PLAN, np.zeros(_SECTIONS.size + 1))

    def test_long_vectors_are_added_whole(self) -> None:
        """Longer than any internal chunk, and not a multiple of it."""
        sections = Sections((Section.vector("x", 100_003, Weighting.UNIFORM),))
        accumulator = self.accumulator(FoldPlan(sections, capacity=4))
        value = np.linspace(-1, 1, 100_003, dtype=np.float32)
        for _ in range(3):
            accumulator.add(Update({"x": value}, {}), "a")
        wanted = 3 * np.rint(value.astype(np.float64) * 2**32) / 2**32
        assert np.array_equal(accumulator.total().sums["x"], wanted)
