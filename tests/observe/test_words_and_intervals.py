"""Numbers in words, and intervals against numbers computed by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.observe.intervals import bootstrap_mean, mean_and_error
from anabranch.observe.words import bytes_in_words, metric_in_words, seconds_in_words


def test_mean_and_error_by_hand() -> None:
    # values 1, 2, 6: mean 3, sum of squares 4 + 1 + 9 = 14, s = sqrt(7), error = sqrt(7 / 3)
    mean, error = mean_and_error([1.0, 2.0, 6.0])
    assert mean == 3.0
    assert error == pytest.approx(math.sqrt(7 / 3))


def test_one_value_has_no_interval() -> None:
    estimate = bootstrap_mean([0.7])
    assert (estimate.mean, estimate.error, estimate.low, estimate.high) == (0.7, None, None, None)
    assert str(estimate) == "0.7000"


def test_bootstrap_against_all_resamples() -> None:
    """Three values have 27 equally likely resamples: the exact quantiles are known."""
    values = [0.0, 1.0, 5.0]
    means = [np.mean(pick) for pick in itertools.product(values, repeat=3)]
    exact = np.quantile(means, [0.025, 0.975], method="inverted_cdf")
    estimate = bootstrap_mean(values, draws=200_000)
    assert estimate.low == pytest.approx(exact[0])
    assert estimate.high == pytest.approx(exact[1])


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20))
def test_interval_lies_within_the_values(values: list[float]) -> None:
    estimate = bootstrap_mean(values, draws=200)
    assert estimate.low is not None
    assert estimate.high is not None
    slack = 1e-9 * max(map(abs, values), default=0.0) + 1e-12
    assert min(values) - slack <= estimate.low <= estimate.high <= max(values) + slack


def test_equal_values_give_equal_intervals() -> None:
    assert bootstrap_mean([0.1, 0.2, 0.4]) == bootstrap_mean([0.4, 0.1, 0.2])


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (5e12, "5.0 TB"), (2.5e15, "2500.0 TB")],
)
def test_bytes(count: float, words: str) -> None:
    assert bytes_in_words(count) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(59.94, "59.9 s"), (3599, "59 min 59 s"), (7260, "2 h 1 min"), (math.inf, "unknown")],
)
def test_seconds(seconds: float, words: str) -> None:
    assert seconds_in_words(seconds) == words


def test_a_metric_that_is_not_finite_is_said_so() -> None:
    assert metric_in_words(math.nan) == "not finite"
