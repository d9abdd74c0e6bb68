"""Updates as bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save

from anabranch.errors import AnabranchError
from anabranch.updates import WEIGHT, Section, Sections, Update
from anabranch.updates.wire import pack, unpack

SECTIONS = Sections(
    (
        Section.vector("delta", 3),
        Section.statistic("histogram", 2),
        Section.statistic(WEIGHT),
        Section.count("examples"),
    )
)
GOOD = {
    "delta": np.float32([1, 2, 3]),
    "histogram": np.array([1.0, 2.0]),
    WEIGHT: np.array([2.5]),
    "examples": np.array([7.0]),
}

_any = st.floats(width=32)


@given(hnp.arrays(np.float32, 3, elements=_any), st.floats(), st.floats())
def test_bytes_and_back(delta: np.ndarray, weight: float, examples: float) -> None:
    """Every bit, also of NaN and infinity: refusing those is the fold's task."""
    update = Update(
        {"delta": delta, "histogram": np.array([weight, examples])},
        {WEIGHT: weight, "examples": examples},
    )
    again = unpack(pack(update, SECTIONS), SECTIONS, "a")
    for name, value in update.vectors.items():
        assert again.vectors[name].tobytes() == value.tobytes()
    for name, number in update.scalars.items():
        assert np.float64(again.scalars[name]).tobytes() == np.float64(number).tobytes()


@pytest.mark.parametrize(
    "change",
    [
        {"delta": np.zeros(3)},
        {"delta": np.zeros(4, np.float32)},
        {"delta": np.zeros((3, 1), np.float32)},
        {"histogram": np.zeros(2, np.float32)},
        {WEIGHT: np.array([2.5, 1.0])},
        {WEIGHT: np.zeros(0)},
        {WEIGHT: np.float32([2.5])},
        {"examples": np.array([7])},
        {"note": np.zeros(1)},
    ],
    ids=lambda change: ",".join(f"{k}-{v.dtype}{list(v.shape)}" for k, v in change.items()),
)
def test_other_contents_are_refused(change: dict[str, np.ndarray]) -> None:
    assert unpack(save(GOOD), SECTIONS, "a").weight == 2.5
    with pytest.raises(AnabranchError, match="AB-501"):
        unpack(save({**GOOD, **change}), SECTIONS, "a")


@pytest.mark.parametrize("missing", sorted(GOOD))
def test_missing_sections_are_refused(missing: str) -> None:
    with pytest.raises(AnabranchError, match="AB-501"):
        unpack(save({k: v for k, v in GOOD.items() if k != missing}), SECTIONS, "a")


@given(st.binary(max_size=64), st.integers(0, 200))
def test_bytes_that_are_no_update_are_refused(noise: bytes, cut: int) -> None:
    for payload in (noise, save(GOOD)[:cut]):
        with pytest.raises(AnabranchError, match="AB-501"):
            unpack(payload, SECTIONS, "a")
