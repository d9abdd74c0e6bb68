"""The container without copies: the library's own bytes, and nothing else is read."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from anabranch.updates.container import joined, parts_of, read_views, size_of

ARRAYS = {
    "delta": np.arange(7, dtype=np.float32),
    "b": np.array([1.0, 2.0]),
    "weight": np.array([2.5]),
    "packed": np.arange(5, dtype=np.uint8),
    "a": np.zeros((2, 3), np.float32),
    "empty": np.zeros(0, np.float32),
}


def test_the_bytes_are_those_of_the_library() -> None:
    parts = parts_of(ARRAYS)
    assert joined(parts) == save(ARRAYS)
    assert size_of(parts) == len(save(ARRAYS))
    for name, array in load(joined(parts)).items():
        np.testing.assert_array_equal(array, ARRAYS[name])


def test_views_share_the_memory_and_cannot_be_written() -> None:
    content = joined(parts_of(ARRAYS))
    views = read_views(content)
    assert views.keys() == ARRAYS.keys()
    for name, view in views.items():
        np.testing.assert_array_equal(view, ARRAYS[name])
        assert view.dtype == ARRAYS[name].dtype
        assert not view.flags.writeable
    whole = np.frombuffer(content, np.uint8)
    assert np.shares_memory(views["delta"], whole)


def container(entries: object, body: bytes = b"") -> bytes:
    header = json.dumps(entries).encode()
    return struct.pack("<Q", len(header)) + header + body


def entry(
    dtype: object = "F32", shape: object = (1,), places: object = (0, 4)
) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": places}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 8,
        struct.pack("<Q", 2**63),
        container([]),
        container("x"),
        container({"a": 1}),
        container({"a": entry("F16")}, b"1234"),
        container({"a": entry(shape=[2])}, b"1234"),
        container({"a": entry(shape=[-1])}, b"1234"),
        container({"a": entry(shape=[2**40, 2**40])}, b"1234"),
        container({"a": entry(places=[0, 8])}, b"1234"),
        container({"a": entry(places=[4, 0])}, b"1234"),
        container({"a": entry(places=[1, 5])}, b"12345"),
        container({"a": entry()}, b"12345"),
        container({"a": entry(), "b": entry()}, b"1234"),
        container({"a": {**entry(), "more": 1}}, b"1234"),
    ],
)
def test_anything_else_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError):
        read_views(content)


@given(st.binary(max_size=200), st.integers(0, 300))
def test_damage_is_an_error_or_other_arrays_but_never_a_crash(damage: bytes, place: int) -> None:
    good = joined(parts_of(ARRAYS))
    bad = good[:place] + damage + good[place + len(damage) :]
    try:
        views = read_views(bad)
    except ValueError:
        return
    assert sum(view.nbytes for view in views.values()) <= len(bad)
