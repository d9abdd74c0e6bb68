"""Intervals over repeats: how far a mean over seeds may be from what more seeds would give."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from anabranch.randomness import generator

__all__ = ["Estimate", "bootstrap_mean", "in_words", "mean_and_error"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over repeats.

    Attributes:
        mean: arithmetic mean; NaN without values.
        error: standard error of the mean; None with fewer than two values.
        low: lower end of the interval; None with fewer than two values.
        high: upper end of the interval; None with fewer than two values.
        count: number of values.
    """

    mean: float
    error: float | None = None
    low: float | None = None
    high: float | None = None
    count: int = 0

    def __str__(self) -> str:
        return in_words(self)


def in_words(estimate: Estimate | None, sign: str = "") -> str:
    """The mean; with its interval, and one decimal less, when there is one.

    Args:
        estimate: None becomes a dash.
        sign: ``+`` for differences.

    >>> in_words(Estimate(0.05, 0.01, 0.03, 0.07, 5), sign="+")
    '+0.050 [+0.030, +0.070]'
    """
    if estimate is None:
        return "–"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.mean:{sign}.4f}"
    return f"{estimate.mean:{sign}.3f} [{estimate.low:{sign}.3f}, {estimate.high:{sign}.3f}]"


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and its standard error s / sqrt(n), s with n - 1 in the denominator.

    >>> mean_and_error([1.0, 3.0])
    (2.0, 1.0)
    """
    if not values:
        return math.nan, None
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, None
    return mean, float(np.std(values, ddof=1) / math.sqrt(len(values)))


def bootstrap_mean(
    values: Sequence[float], *, level: float = 0.95, draws: int = 4000, seed: int = 0
) -> Estimate:
    """Percentile bootstrap interval of the mean (Efron & Tibshirani 1993, chapter 13).

    Give the *differences* of two methods on the same repeats for a paired interval.

    Args:
        values: one value a repeat.
        level: coverage aimed at, in (0, 1).
        draws: resamples.
        seed: public seed; equal values, in any order, give equal intervals.

    >>> bootstrap_mean([0.5, 0.5, 0.5])
    Estimate(mean=0.5, error=0.0, low=0.5, high=0.5, count=3)
    """
    array = np.sort(np.asarray(values, np.float64))
    mean, error = mean_and_error(array.tolist())
    if error is None:
        return Estimate(mean, count=len(values))
    picks = generator(seed, "bootstrap").integers(len(array), size=(draws, len(array)))
    tail = (1 - level) / 2
    low, high = np.quantile(array[picks].mean(axis=1), [tail, 1 - tail])
    return Estimate(mean, error, float(low), float(high), len(array))
