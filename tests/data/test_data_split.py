"""Splits: disjoint, complete, stratified, and never through a subject."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anabranch.data import Federation, folds, leave_one_client_out, train_test
from anabranch.data.split import split_generator
from anabranch.errors import AnabranchError


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@settings(max_examples=100, deadline=None)
@given(
    labels=st.lists(st.integers(0, 3), min_size=1, max_size=60),
    fraction=st.floats(0, 0.9),
    seed=st.integers(0, 1000),
    people=st.integers(1, 60),
)
def test_a_split_keeps_its_promises(
    labels: list[int], fraction: float, seed: int, people: int
) -> None:
    y = np.array(labels)
    subjects = rng(seed).integers(0, people, len(y))
    train, test = train_test(y, fraction, rng(seed), subjects)
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(len(y)))
    assert not set(subjects[train].tolist()) & set(subjects[test].tolist())
    assert len(train) > 0
    largest = np.bincount(subjects).max()
    assert abs(len(test) - fraction * len(y)) <= max(largest, 1)


def test_shares_by_label_are_exact_where_they_can_be() -> None:
    y = np.repeat([0, 1, 2], [30, 60, 9])
    train, test = train_test(y, 1 / 3, rng())
    assert np.bincount(y[test]).tolist() == [10, 20, 3]
    assert np.bincount(y[train]).tolist() == [20, 40, 6]


def test_rounding_errors_of_labels_do_not_add_up() -> None:
    y = np.repeat(np.arange(20), 3)  # 20 labels, each wants 1.5 test rows
    assert len(train_test(y, 0.5, rng())[1]) == 30


def test_the_split_depends_on_seed_repeat_and_client_only() -> None:
    y = np.arange(100) % 2
    first = train_test(y, 0.3, split_generator(1, 0, "va"))[1]
    assert np.array_equal(first, train_test(y, 0.3, split_generator(1, 0, "va"))[1])
    for other in (
        split_generator(2, 0, "va"),
        split_generator(1, 1, "va"),
        split_generator(1, 0, "hu"),
    ):
        assert not np.array_equal(first, train_test(y, 0.3, other)[1])


@pytest.mark.parametrize("rows", [0, 1])
def test_clients_with_no_or_one_example_have_no_test(rows: int) -> None:
    train, test = train_test(np.zeros(rows, np.int64), 0.5, rng())
    assert (len(train), len(test)) == (rows, 0)


def test_folds_are_disjoint_complete_stratified_and_whole_in_subjects() -> None:
    y = np.arange(60) // 6 % 2
    subjects = np.arange(60) // 3
    parts = folds(y, 5, rng(), subjects)
    assert sorted(np.concatenate(parts).tolist()) == list(range(60))
    for part in parts:
        assert len(part) == 12
        assert not set(subjects[part].tolist()) & set(np.delete(subjects, part).tolist())
        assert np.bincount(y[part]).tolist() == [6, 6]


@pytest.mark.parametrize("k", [1, 4])
def test_too_many_or_too_few_folds_are_ab_223(k: int) -> None:
    with pytest.raises(AnabranchError, match="AB-223"):
        folds(np.array([0, 1, 0]), k, rng())


def test_leave_one_client_out() -> None:
    clients = {
        name: (np.full((n, 2), n, np.float32), np.zeros(n, np.int64))
        for name, n in (("a", 1), ("b", 2), ("c", 3))
    }
    federation = Federation.from_arrays(clients, test=clients)
    seen = list(leave_one_client_out(federation))
    assert [name for name, _, _ in seen] == ["a", "b", "c"]
    _, rest, left = seen[1]
    assert rest.names == ("a", "c")
    assert rest.train.counts.tolist() == [1, 3]
    assert len(left) == 4  # two for training and the same two for testing
    assert (left.x == 2).all()
