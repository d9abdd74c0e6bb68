"""Adding up whole numbers and a step: the same bits as decoding first and adding then."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from test_codecs import heavy, packed

from anabranch.aggregation.fold import Accumulator, FoldPlan
from anabranch.errors import AnabranchError
from anabranch.updates import (
    ECQ,
    STC,
    WEIGHT,
    Codec,
    Half,
    Levels,
    Section,
    Sections,
    Update,
    Vector,
    compile_stages,
)

LENGTH = 100_000  # several chunks of the fold
SECTIONS = Sections((Section.vector("delta", LENGTH), Section.statistic(WEIGHT)))


def fold(sections: Sections = SECTIONS) -> Accumulator:
    return Accumulator(FoldPlan(sections, capacity=8))


@pytest.mark.parametrize(
    "codec", [ECQ(), ECQ(coarseness=0.5), STC(feedback=False), Half()], ids=repr
)
def test_levels_add_to_the_same_bits(codec: Codec) -> None:
    pipeline, fused, plain = compile_stages([codec]), fold(), fold()
    for number, weight in enumerate((1.0, 137.0, 0.37)):
        frame = packed(codec, heavy(LENGTH), number)
        update = Update({}, {WEIGHT: weight}, {"delta": frame})
        to_add = pipeline.decode_to_add(update)
        assert bool(to_add.levels) == isinstance(codec, ECQ | STC)
        fused.add(to_add, "a")
        plain.add(pipeline.decode_one(update), "a")
    assert fused.buffer.tobytes() == plain.buffer.tobytes()


@settings(max_examples=100, deadline=None)
@given(
    symbols=arrays(np.int32, st.integers(1, 40), elements=st.integers(-(2**31), 2**31 - 1)),
    step=st.floats(0, 2.0**60, width=32),
)
def test_what_is_refused_is_refused_alike(symbols: Vector, step: float) -> None:
    """Overflow, a term out of range: the same error, or the same sum."""
    levels = Levels(symbols.astype(np.int32), np.float32(step))
    sections = Sections((Section.vector("delta", len(symbols)),))
    outcomes = []
    for update in (
        Update({}, {}, {}, {"delta": levels}),
        Update({"delta": levels.vector()}, {}),
    ):
        accumulator = fold(sections)
        try:
            accumulator.add(update, "a")
            outcomes.append(accumulator.buffer.tobytes())
        except AnabranchError as error:
            outcomes.append(str(error).encode())
    assert outcomes[0] == outcomes[1]


def test_levels_of_another_length_are_refused() -> None:
    update = Update({}, {WEIGHT: 1.0}, {}, {"delta": Levels(np.zeros(5, np.int32), np.float32(1))})
    with pytest.raises(AnabranchError, match=r"AB-501.*float32\[5\]"):
        fold().add(update, "a")


def test_an_update_without_a_delta_passes() -> None:
    """Evaluations go through the same pipeline."""
    pipeline = compile_stages([ECQ()])
    update = Update({}, {"loss": 1.0})
    assert pipeline.decode_to_add(update) == update
    with pytest.raises(AnabranchError, match="AB-520"):
        pipeline.decode_to_add(Update({"delta": heavy(10)}, {}))
