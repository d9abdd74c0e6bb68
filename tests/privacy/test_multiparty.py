"""Shared computations against plain integers, one property for each primitive."""

from __future__ import annotations

import itertools
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anabranch.errors import AnabranchError
from anabranch.privacy.multiparty import (
    PRIME,
    BitDealer,
    Dealer,
    FixedPointField,
    Triples,
    add_reveal,
    add_share,
    argmax,
    is_negative,
    multiply,
    random_elements,
    secure_histogram,
    secure_sum,
    shamir_reveal,
    shamir_share,
    truncate,
)
from anabranch.privacy.multiparty.field import (
    add,
    elements,
    multiply_mod,
    negate,
    signed,
    subtract,
)

ELEMENTS = st.integers(0, PRIME - 1)
EDGES = [0, 1, 2, PRIME - 1, PRIME - 2, 2**32, 2**32 - 1, 2**60, 2**29, 2**61 - 2**32]
LISTS = st.lists(ELEMENTS, min_size=1, max_size=5)


def array(values: list[int]) -> np.ndarray:
    return np.array(values, np.uint64)


def test_arithmetic_is_that_of_integers_modulo_the_prime_at_every_edge() -> None:
    for one, other in itertools.product(EDGES, EDGES):
        a, b = array([one]), array([other])
        assert int(add(a, b)[0]) == (one + other) % PRIME
        assert int(subtract(a, b)[0]) == (one - other) % PRIME
        assert int(multiply_mod(a, b)[0]) == one * other % PRIME
    assert [int(negate(array([x]))[0]) for x in EDGES] == [-x % PRIME for x in EDGES]


@given(a=ELEMENTS, b=ELEMENTS)
def test_products_are_those_of_integers(a: int, b: int) -> None:
    assert int(multiply_mod(array([a]), array([b]))[0]) == a * b % PRIME


@given(values=st.lists(st.integers(-(2**59), 2**59), min_size=1, max_size=4))
def test_negative_numbers_come_back(values: list[int]) -> None:
    assert signed(elements(np.array(values))).tolist() == values


@pytest.mark.parametrize("wrong", [[0.5], [2**61], [-(2**61)]])
def test_numbers_outside_the_field_are_refused(wrong: list[object]) -> None:
    with pytest.raises(AnabranchError, match="AB-977"):
        elements(np.array(wrong))


def test_a_draw_of_the_prime_itself_is_drawn_again() -> None:
    draws = iter([b"\xff" * 16, bytes([7] + [0] * 7 + [9] + [0] * 7)])
    assert random_elements(2, lambda size: next(draws)[:size]).tolist() == [7, 9]


@given(values=LISTS, parties=st.integers(2, 5))
def test_additive_shares_sum_to_the_values(values: list[int], parties: int) -> None:
    shares = add_share(array(values), parties)
    oracle = [sum(int(s[i]) for s in shares) % PRIME for i in range(len(values))]
    assert oracle == values == add_reveal(shares).tolist()


def test_all_but_one_additive_shares_do_not_depend_on_the_value() -> None:
    fixed = os.urandom(64)
    one, other = (add_share(array([v]), 3, lambda size: fixed[:size]) for v in (5, 6))
    assert np.array_equal(one[1:], other[1:])
    assert not np.array_equal(one[0], other[0])


@given(values=LISTS, threshold=st.integers(1, 4), more=st.integers(0, 3), data=st.data())
def test_any_threshold_of_shamir_shares_gives_the_values(
    values: list[int], threshold: int, more: int, data: st.DataObject
) -> None:
    shares = shamir_share(array(values), threshold, threshold + more)
    chosen = data.draw(st.permutations(sorted(shares)))[:threshold]
    got = shamir_reveal({x: shares[x] for x in chosen}, threshold)
    assert got.tolist() == values


def test_shares_below_the_threshold_fit_every_value() -> None:
    shares = shamir_share(array([1234]), 2, 2)
    # With share (1, y) any secret s is possible: the line through (0, s) and (1, y) exists.
    y = int(shares[1][0])
    for secret in (0, 1, 99):
        slope = (y - secret) % PRIME
        assert (secret + slope) % PRIME == y


def test_one_wrong_share_is_found_or_at_least_noticed() -> None:
    shares = shamir_share(array([1, 2, 3]), 2, 4)
    shares[3] = add(shares[3], array([0, 1, 0]))
    assert shamir_reveal(shares, 2).tolist() == [1, 2, 3]
    with pytest.raises(AnabranchError, match="AB-978"):
        shamir_reveal({x: shares[x] for x in (1, 2, 3)}, 2)
    # The control: without spare shares the wrong one spoils the value silently.
    assert shamir_reveal({x: shares[x] for x in (1, 3)}, 2).tolist() != [1, 2, 3]


@pytest.mark.parametrize(("threshold", "holders"), [(0, 3), (4, 3)])
def test_impossible_sharings_are_refused(threshold: int, holders: int) -> None:
    with pytest.raises(AnabranchError, match="AB-977"):
        shamir_share(array([1]), threshold, holders)
    with pytest.raises(AnabranchError, match="AB-977"):
        add_share(array([1]), 1)
    with pytest.raises(AnabranchError, match="AB-977"):
        shamir_reveal({1: array([1])}, 2)


@given(x=LISTS, data=st.data())
def test_shared_products_are_those_of_integers(x: list[int], data: st.DataObject) -> None:
    y = data.draw(st.lists(ELEMENTS, min_size=len(x), max_size=len(x)))
    one, other = add_share(array(x), 3), add_share(array(y), 3)
    product = multiply(one, other, Dealer(3).triples(len(x)))
    oracle = [a * b % PRIME for a, b in zip(x, y, strict=True)]
    assert add_reveal(product).tolist() == oracle


def test_wrong_triples_are_noticed_and_right_ones_pass() -> None:
    triples = Dealer(3).triples(8)
    assert triples.checked().count == 4
    c = triples.c.copy()
    c[0, 1] = add(c[0, 1:2], array([1]))[0]
    with pytest.raises(AnabranchError, match="AB-978"):
        Triples(triples.a, triples.b, c).checked()
    # The control: unchecked, the product is wrong and nobody knows.
    ones = add_share(array([1] * 8), 3)
    broken = multiply(ones, ones, Triples(triples.a, triples.b, c))
    assert add_reveal(broken).tolist() == [1, 2, 1, 1, 1, 1, 1, 1]


def test_triples_are_not_printed() -> None:
    triples = Dealer(2).triples(1)
    assert str(int(triples.a[0, 0])) not in repr(triples)


def test_what_is_opened_for_a_product_is_uniform_whatever_the_factors() -> None:
    # The same mask a hides every x: x - a takes each value for exactly one a.
    source = random_elements(64)
    opened = [subtract(array([x] * 64), source) for x in (0, 1, PRIME - 1)]
    assert len({tuple(o.tolist()) for o in opened}) == 3
    assert all(
        np.array_equal(add(o, source), array([x] * 64))
        for o, x in zip(opened, (0, 1, PRIME - 1), strict=True)
    )


NUMBERS = st.floats(-1000, 1000, allow_nan=False)


@settings(max_examples=50)
@given(x=NUMBERS, y=st.floats(-1, 1))
def test_fixed_point_products_are_right_to_two_steps(x: float, y: float) -> None:
    numbers = FixedPointField()
    one, other = (add_share(numbers.encode([v]), 3) for v in (x, y))
    product = multiply(one, other, Dealer(3).triples(1))
    got = float(numbers.decode(add_reveal(truncate(product, numbers)))[0])
    exact = float(numbers.decode(numbers.encode([x]))[0] * numbers.decode(numbers.encode([y]))[0])
    assert abs(got - exact) <= 2.0 ** (1 - numbers.fraction)


def test_the_cut_is_right_on_average() -> None:
    numbers = FixedPointField()
    product = np.full(4000, 1 << (numbers.fraction - 2), np.uint64)  # a quarter of a step
    cut = signed(add_reveal(truncate(add_share(product, 2), numbers)))
    assert set(cut.tolist()) <= {0, 1}
    assert abs(cut.mean() - 0.25) < 0.05


def test_fixed_point_numbers_that_do_not_fit_are_refused() -> None:
    with pytest.raises(AnabranchError, match="AB-977"):
        FixedPointField(fraction=20, whole=20)
    for wrong in (1024.0, float("nan"), float("inf")):
        with pytest.raises(AnabranchError, match="AB-977"):
            FixedPointField().encode([wrong])


@settings(max_examples=40, deadline=None)
@given(x=st.lists(st.integers(-(2**20), 2**20), min_size=1, max_size=6))
def test_signs_are_those_of_integers(x: list[int]) -> None:
    shares = add_share(elements(np.array(x)), 3)
    signs = add_reveal(is_negative(shares, BitDealer(3, length=22)))
    assert signs.tolist() == [int(v < 0) for v in x]


@settings(max_examples=30, deadline=None)
@given(x=st.lists(st.integers(-(2**18), 2**18), min_size=1, max_size=9))
def test_argmax_is_that_of_integers(x: list[int]) -> None:
    shares = add_share(elements(np.array(x)), 3)
    assert argmax(shares, BitDealer(3, length=20)) == int(np.argmax(x))


def test_numbers_that_can_not_be_compared_are_refused() -> None:
    with pytest.raises(AnabranchError, match="AB-977"):
        BitDealer(2, length=41)
    with pytest.raises(AnabranchError, match="AB-977"):
        argmax(np.zeros((2, 0), np.uint64), BitDealer(2))


@given(
    rows=st.lists(
        st.lists(st.integers(-(2**40), 2**40), min_size=3, max_size=3), min_size=1, max_size=6
    )
)
def test_secure_sums_are_plain_sums(rows: list[list[int]]) -> None:
    assert secure_sum([np.array(r) for r in rows]).tolist() == np.sum(rows, axis=0).tolist()


@given(values=st.lists(st.floats(-2, 3), min_size=1, max_size=20))
def test_histograms_are_plain_histograms(values: list[float]) -> None:
    edges = [0.0, 0.25, 0.5, 1.0]
    inside = np.clip(values, 0.0, 0.999)
    oracle = np.histogram(inside, bins=[0.0, 0.25, 0.5, 1.0])[0]
    assert secure_histogram(values, edges).tolist() == oracle.tolist()


def test_bad_sums_and_histograms_are_refused() -> None:
    for inputs in ([], [[1, 2], [3]], [[0.5]]):
        with pytest.raises(AnabranchError, match="AB-977"):
            secure_sum([np.array(row) for row in inputs])
    with pytest.raises(AnabranchError, match="AB-977"):
        secure_histogram([1.0], edges=[1.0, 0.0])
    with pytest.raises(AnabranchError, match="AB-977"):
        secure_histogram([float("nan")], edges=[0.0, 1.0])
