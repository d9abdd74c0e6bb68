"""Partitions: every row to exactly one client, the promised skew, subjects kept whole."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anabranch.data import IID, Dirichlet, EqualDirichlet, FeatureNoise, Labels, Quantity, Ragged
from anabranch.data.partition import Assignment, Invented, assign
from anabranch.errors import AnabranchError

LABELS = np.repeat(np.arange(4), 50)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


PARTITIONS = [
    IID(clients=7),
    Dirichlet(clients=7, alpha=0.5, min_examples=2),
    Dirichlet(clients=7, alpha=0.5, min_examples=2, balanced=False),
    EqualDirichlet(clients=7, alpha=0.1, min_examples=2),
    Labels(clients=7, k=2),
    Quantity(clients=7, alpha=0.5, min_examples=3),
]


@pytest.mark.parametrize("partition", PARTITIONS, ids=repr)
def test_every_row_has_one_client_and_the_seed_decides(partition: Invented) -> None:
    first = assign(partition, LABELS, rng())
    assert sorted(first.rows.tolist()) == list(range(len(LABELS)))
    assert len(first) == partition.clients
    assert first.counts.min() >= partition.min_examples
    again = assign(partition, LABELS, rng())
    assert np.array_equal(first.rows, again.rows)
    other = assign(partition, LABELS, rng(1))
    assert not np.array_equal(first.rows, other.rows)
    assert partition.description.startswith("synthetic: ")


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    sizes=st.lists(st.integers(1, 30), min_size=2, max_size=6),
    clients=st.integers(1, 5),
    alpha=st.floats(0.05, 10),
)
def test_dirichlet_never_loses_a_row(
    seed: int, sizes: list[int], clients: int, alpha: float
) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    partition = Dirichlet(clients=clients, alpha=alpha, min_examples=0)
    result = assign(partition, labels, rng(seed))
    assert sorted(result.rows.tolist()) == list(range(len(labels)))


def test_iid_sizes_differ_by_one_at_most() -> None:
    counts = assign(IID(clients=7), LABELS, rng()).counts
    assert counts.max() - counts.min() <= 1


def test_equal_dirichlet_is_skewed_in_labels_and_equal_in_sizes() -> None:
    labels = np.repeat(np.arange(10), 400)
    assignment = assign(EqualDirichlet(clients=40, alpha=0.1), labels, rng())
    assert set(assignment.counts.tolist()) == {100}
    tops = [np.bincount(labels[assignment.of(c)]).max() / 100 for c in range(40)]
    assert 0.5 < np.mean(tops) < 0.95  # Dirichlet(0.1) over ten classes: about 0.7


def test_labels_gives_every_client_k_labels_in_equal_shares() -> None:
    assignment = assign(Labels(clients=10, k=2), LABELS, rng())
    held = [np.unique(LABELS[assignment.of(client)]) for client in range(10)]
    assert {len(labels) for labels in held} == {2}
    for label in range(4):
        shares = [
            int((LABELS[assignment.of(client)] == label).sum())
            for client in range(10)
            if label in held[client]
        ]
        assert max(shares) - min(shares) <= 1


def test_small_alpha_is_more_skewed() -> None:
    def purity(alpha: float) -> float:
        partition = Dirichlet(clients=10, alpha=alpha, min_examples=1)
        assignment = assign(partition, LABELS, rng())
        parts = [np.bincount(LABELS[assignment.of(c)]) for c in range(10)]
        return float(np.mean([part.max() / part.sum() for part in parts]))

    assert purity(0.1) > purity(1.0) > purity(100.0)


def test_subjects_are_not_divided() -> None:
    subjects = np.repeat(np.arange(40), 5)
    assignment = assign(Dirichlet(clients=4, alpha=1, min_examples=5), LABELS, rng(), subjects)
    owners = [set(subjects[assignment.of(client)].tolist()) for client in range(4)]
    assert sum(len(owner) for owner in owners) == 40


def test_regression_targets_are_binned() -> None:
    y = np.linspace(0, 1, 100, dtype=np.float32)
    assert len(assign(Dirichlet(clients=3, alpha=0.3, min_examples=1), y, rng()).rows) == 100


@pytest.mark.parametrize(
    "partition",
    [
        IID(clients=500, min_examples=1),
        Dirichlet(clients=50, alpha=0.01, min_examples=10),
        Labels(clients=10, k=5),
        Labels(clients=1, k=2),
        Quantity(clients=7, alpha=1, min_examples=100),
    ],
    ids=repr,
)
def test_impossible_partitions_are_ab_220(partition: Invented) -> None:
    with pytest.raises(AnabranchError, match="AB-220"):
        assign(partition, LABELS, rng())


def test_noise_grows_with_the_client() -> None:
    data = Ragged(
        np.zeros((4000, 5), np.float32),
        np.zeros(4000, np.int64),
        np.array([0, 1000, 2000, 3000, 4000]),
    )
    noisy = FeatureNoise(level=0.8).apply(data, rng())
    variances = [noisy.of(client).x.var() for client in range(4)]
    assert variances == pytest.approx([0.2, 0.4, 0.6, 0.8], rel=0.1)
    assert not data.x.any()


def test_of_parts_and_by_owner_agree() -> None:
    owner = np.array([2, 0, 2, 1])
    by_owner = Assignment.by_owner(owner, 3)
    of_parts = Assignment.of_parts([by_owner.of(client) for client in range(3)])
    assert np.array_equal(by_owner.rows, of_parts.rows)
    assert np.array_equal(by_owner.offsets, of_parts.offsets)
