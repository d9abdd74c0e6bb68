"""Splits inside each client: train and test, k folds, leave one client out.

Splits are stratified by label, never divide a subject, and depend on (seed, repeat, client) only,
so that every site can make its own and gets the one that a simulation makes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from anabranch.data.federation import Examples, Federation, Ragged
from anabranch.errors import AnabranchError
from anabranch.randomness import generator

__all__ = ["folds", "hold_out", "leave_one_client_out", "split_generator", "train_test"]

Index = NDArray[np.int64]


def split_generator(seed: int, repeat: int, client: str) -> np.random.Generator:
    """The public generator of one client's split in one repeat."""
    return generator(seed, "split", repeat, client)


def train_test(
    y: NDArray[np.generic],
    fraction: float,
    rng: np.random.Generator,
    subjects: Index | None = None,
) -> tuple[Index, Index]:
    """Row numbers for training and for testing, each in ascending order.

    The number of test rows differs from ``fraction * n`` by at most half a subject (half a row
    without subjects), and within each label by at most one subject. At least one subject stays
    for training, so a client with a single subject has no test rows.

    Args:
        y: targets, shape (n,); numbers of a regression are one stratum.
        fraction: of rows for testing, from 0 to below 1.
        rng: public generator.
        subjects: person of each row; every row a person of its own by default.

    >>> train, test = train_test(np.array([0, 0, 0, 1, 1, 1]), 1 / 3, np.random.default_rng(0))
    >>> len(test)
    2
    """
    person, strata = _strata(y, rng, subjects)
    sizes = np.bincount(person)
    in_test = np.zeros(len(sizes), np.bool_)
    seen = taken = 0
    for stratum in strata:
        # The wish is for all strata so far: rounding errors of labels cancel, not add up.
        seen += int(sizes[stratum].sum())
        reached = np.concatenate([[0], np.cumsum(sizes[stratum])])
        count = int(np.argmin(np.abs(reached - (fraction * seen - taken))))
        taken += int(reached[count])
        in_test[stratum[:count]] = True
    if in_test.size and in_test.all():
        in_test[strata[0][0]] = False
    rows = in_test[person]
    return np.flatnonzero(~rows), np.flatnonzero(rows)


def hold_out(federation: Federation, fraction: float, seed: int) -> Federation:
    """The federation with ``fraction`` of each client's training examples moved to its test set."""
    kept: list[Examples] = []
    held: list[Examples] = []
    for number, name in enumerate(federation.names):
        own = federation.train.of(number)
        train, test = train_test(own.y, fraction, split_generator(seed, 0, name))
        kept.append(Examples(own.x[train], own.y[train]))
        held.append(Examples(own.x[test], own.y[test]))
    return dataclasses.replace(federation, train=Ragged.stack(kept), test=Ragged.stack(held))


def folds(
    y: NDArray[np.generic], k: int, rng: np.random.Generator, subjects: Index | None = None
) -> list[Index]:
    """Row numbers of the ``k`` test folds of one client: disjoint, together all rows.

    Raises:
        AnabranchError: AB-223 when there are fewer subjects than folds.
    """
    person, strata = _strata(y, rng, subjects)
    line = np.concatenate(strata) if strata else np.empty(0, np.int64)
    if k < 2 or len(line) < k:
        raise AnabranchError(
            "AB-223",
            f"{len(line)} subject(s) cannot be divided into {k} folds.",
            fix="use at least two folds and at most as many as the smallest client has subjects.",
        )
    fold = np.empty(len(line), np.int64)
    fold[line] = np.arange(len(line)) % k
    return [np.flatnonzero(fold[person] == number) for number in range(k)]


def _strata(
    y: NDArray[np.generic], rng: np.random.Generator, subjects: Index | None
) -> tuple[Index, list[Index]]:
    """The person of each row as 0..g-1, and shuffled persons by the label of their first row."""
    if subjects is None:
        person = first = np.arange(len(y), dtype=np.int64)
    else:
        _, first, person = np.unique(subjects, return_index=True, return_inverse=True)
    classification = np.issubdtype(y.dtype, np.integer)
    labels = y[first] if classification else np.zeros(len(first), np.int64)
    return person, [rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]


def leave_one_client_out(federation: Federation) -> Iterator[tuple[str, Federation, Examples]]:
    """Each client's name, the federation without it, and all its examples (train and test)."""
    for number, name in enumerate(federation.names):
        kept = [i for i in range(len(federation)) if i != number]
        if not kept:
            return
        left = federation.train.of(number)
        test = federation.test
        if test is not None:
            held = test.of(number)
            left = Examples(np.concatenate([left.x, held.x]), np.concatenate([left.y, held.y]))
        yield (
            name,
            dataclasses.replace(
                federation,
                names=tuple(federation.names[i] for i in kept),
                train=Ragged.stack([federation.train.of(i) for i in kept]),
                test=None if test is None else Ragged.stack([test.of(i) for i in kept]),
            ),
            left,
        )
