"""Sections, totals and norms."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from anabranch.errors import AnabranchError
from anabranch.updates import (
    WEIGHT,
    Clip,
    Kind,
    Section,
    Sections,
    Total,
    Update,
    Weighting,
    squared_norm,
)

SECTIONS = Sections(
    (
        Section.vector("delta", 2),
        Section.statistic("histogram", 3),
        Section.statistic(WEIGHT),
        Section.count("examples"),
    )
)


def test_what_is_sent_as_arrays_and_what_as_numbers() -> None:
    assert [s.name for s in SECTIONS.vectors] == ["delta", "histogram"]
    assert [s.name for s in SECTIONS.scalars] == [WEIGHT, "examples"]
    assert SECTIONS.size == 7
    assert [s.name for s in SECTIONS] == ["delta", "histogram", WEIGHT, "examples"]
    assert not Section.vector("x", 1).scalar  # a model may have one parameter


def test_types() -> None:
    assert Section.vector("x", 2).dtype == np.float32
    assert Section.count("x", 2).dtype == np.float64
    assert Section.vector("x", 2, Weighting.UNIFORM).quantum == 2.0**-32
    assert Section.count("x").quantum == 1.0


@pytest.mark.parametrize("quantum", [0.0, -0.5, 0.3, math.inf, math.nan])
def test_a_quantum_is_a_power_of_two(quantum: float) -> None:
    with pytest.raises(ValueError, match="power of two"):
        Section("x", 1, quantum=quantum)


def test_other_mistakes() -> None:
    with pytest.raises(ValueError, match="unique"):
        Sections((Section.count("a"), Section.count("a")))
    with pytest.raises(ValueError, match="negative length"):
        Section.vector("x", -1)
    with pytest.raises(ValueError, match="bound"):
        Section("x", 1, Kind.STATISTIC, bound=0.0)


def test_sections_survive_process_borders() -> None:
    again = pickle.loads(pickle.dumps(SECTIONS))
    assert again == SECTIONS
    assert hash(again) == hash(SECTIONS)
    assert again["delta"] == SECTIONS["delta"]


def test_a_refusal_names_sections_but_no_value() -> None:
    update = Update({"delta": np.float32([123.456, 0])}, {WEIGHT: 98.75})
    with pytest.raises(AnabranchError) as raised:
        update.check(SECTIONS, "va")
    text = str(raised.value)
    assert "'va'" in text
    assert "delta: float32[2]" in text
    assert "histogram: float64[3]" in text
    assert "123" not in text
    assert "98" not in text


def test_sum_of_sections() -> None:
    more = (Section.count("b"),)
    assert (Sections((Section.count("a"),)) + more).size == 2


def test_bytes_of_an_update() -> None:
    assert Update({"delta": np.zeros(5, np.float32)}, {WEIGHT: 1.0}).nbytes == 28


def test_totals() -> None:
    sections = Sections(
        (
            Section.vector("delta", 1),
            Section.vector("control", 1, Weighting.UNIFORM),
            Section.statistic(WEIGHT),
        )
    )
    total = Total(
        sections,
        {"delta": np.array([12.0]), "control": np.array([3.0]), WEIGHT: np.array([4.0])},
        contributors=2,
    )
    assert total.mean("delta").tolist() == [3.0]  # by weight
    assert total.mean("control").tolist() == [1.5]  # uniform
    both = total.plus(total)
    assert both.contributors == 4
    assert both.mean("delta").tolist() == [3.0]
    unweighted = Sections((Section.vector("delta", 1),))
    plain = Total(unweighted, {"delta": np.array([12.0])}, contributors=2)
    assert plain.weight == 2.0
    with pytest.raises(ValueError, match="different sections"):
        plain.plus(total)


_floats = st.floats(-(2.0**100), 2.0**100, width=32)
_vectors = hnp.arrays(np.float32, st.integers(0, 40), elements=_floats)


@given(_vectors)
def test_squared_norm(vector: np.ndarray) -> None:
    wanted = math.fsum(float(x) ** 2 for x in vector)
    assert squared_norm(vector) == pytest.approx(wanted, rel=1e-14)


@given(_vectors, st.floats(1e-6, 1e6))
def test_clip_bounds_the_norm_and_keeps_the_direction(vector: np.ndarray, bound: float) -> None:
    clipped = Clip(max_norm=bound).clipped(Update({"delta": vector}, {})).vectors["delta"]
    assert clipped.dtype == np.float32
    norm = math.sqrt(squared_norm(vector))
    # Numbers below the smallest normal float32 have less than 24 bits: an absolute slack.
    assert math.sqrt(squared_norm(clipped)) <= bound + 1e-44
    if norm <= bound:
        assert np.array_equal(clipped, vector)
    else:
        assert np.allclose(clipped, vector.astype(np.float64) * (bound / norm), rtol=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_clip_leaves_what_is_not_finite_to_the_fold(bad: float) -> None:
    update = Update({"delta": np.float32([1, bad])}, {})
    assert Clip(max_norm=0.1).clipped(update) is update
