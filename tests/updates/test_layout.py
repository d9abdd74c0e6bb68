"""Layouts: names, shapes and places in the flat vector."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.updates import Layout, Parameter, Policy

_lengths = st.integers(1, 4)
_shapes = st.one_of(
    st.just(()),
    st.lists(_lengths, min_size=1, max_size=3).map(tuple),
    st.tuples(_lengths, _lengths, _lengths, _lengths),
)


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    """Layouts of up to six parameters in any order of policies."""
    parameters = []
    for number in range(draw(st.integers(0, 6))):
        shape = draw(_shapes)
        last = len(shape) == 4 and draw(st.booleans())
        policy = draw(st.sampled_from(Policy))
        parameters.append(Parameter(f"p{number}", shape, policy, channels_last=last))
    return Layout.of(parameters)


@given(layouts())
def test_flatten_and_views_are_inverse(layout: Layout) -> None:
    rng = np.random.default_rng(0)
    values = {p.name: rng.normal(size=p.shape).astype(np.float32) for p in layout.parameters}
    vector = layout.flatten(values)
    assert vector.shape == (layout.size,)
    assert vector.dtype == np.float32
    for name, view in layout.views(vector).items():
        assert np.array_equal(view, values[name])
        assert np.shares_memory(view, vector)
    again = layout.flatten(layout.views(vector))
    assert np.array_equal(again, vector)


@given(layouts())
def test_policies_stand_in_order(layout: Layout) -> None:
    """Averaged coordinates first, then local ones, then frozen ones, without gaps."""
    marks = np.full(layout.size, -1)
    for rank, policy in enumerate((Policy.AVERAGE, Policy.LOCAL, Policy.FREEZE)):
        for parameter in layout.parameters:
            if parameter.policy is policy:
                layout.view(marks, parameter.name)[...] = rank
    assert (np.sort(marks) == marks).all()
    assert (marks >= 0).all()
    assert int((marks == 0).sum()) == layout.averaged
    assert int((marks == 1).sum()) == layout.local


def test_channels_last_is_inside_the_vector_only() -> None:
    """Logical (out, in, h, w) = (1, 2, 1, 2) is stored as (out, h, w, in)."""
    layout = Layout.of([Parameter("w", (1, 2, 1, 2), channels_last=True)])
    value = np.float32([[[[1, 2]], [[3, 4]]]])
    vector = layout.flatten({"w": value})
    assert vector.tolist() == [1, 3, 2, 4]
    assert np.array_equal(layout.view(vector, "w"), value)
    layout.view(vector, "w")[0, 1, 0, 0] = 9
    assert vector.tolist() == [1, 9, 2, 4]


def test_digests_tell_layouts_apart() -> None:
    base = Parameter("w", (2, 3))
    others = [
        Parameter("v", (2, 3)),
        Parameter("w", (3, 2)),
        Parameter("w", (2, 3), Policy.LOCAL),
        Parameter("w", (2, 3), trained=False),
    ]
    digests = {Layout.of([parameter]).digest for parameter in (base, *others)}
    assert len(digests) == 5
    same = Parameter("w", tuple(np.array([2, 3])))  # NumPy's integers print otherwise
    assert Layout.of([same]).digest == Layout.of([base]).digest


def test_mistakes() -> None:
    layout = Layout.of([Parameter("w", (2, 3))])
    with pytest.raises(ValueError, match="shape"):
        layout.flatten({"w": np.ones(3, np.float32)})  # would broadcast
    with pytest.raises(KeyError):
        layout.view(np.zeros(6, np.float32), "v")
    with pytest.raises(KeyError):
        layout.flatten({})
    with pytest.raises(ValueError, match="unique"):
        Layout.of([Parameter("w", (2,)), Parameter("w", (3,))])
    with pytest.raises(ValueError, match="ordered"):
        Layout((Parameter("a", (1,), Policy.LOCAL), Parameter("b", (1,))))
    with pytest.raises(ValueError, match="four dimensions"):
        Parameter("w", (2, 3), channels_last=True)
