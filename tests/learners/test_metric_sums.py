"""Metrics from merged sums against scikit-learn on the pooled scores."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from anabranch.learners.metrics import MetricSet
from anabranch.updates.sections import Update
from anabranch.updates.total import Total


def pooled(measures: MetricSet, updates: list[Update]) -> dict[str, float]:
    """The summary of the plain sum of some updates."""
    sums = {}
    for section in measures.sections():
        parts = [
            np.atleast_1d(
                u.scalars[section.name] if section.scalar else u.vectors[section.name]
            ).astype(np.float64)
            for u in updates
        ]
        sums[section.name] = np.sum(parts, axis=0)
    return measures.summary(Total(measures.sections(), sums, len(updates)))


def split(outputs: np.ndarray, y: np.ndarray, measures: MetricSet) -> dict[str, float]:
    parts = zip(np.array_split(outputs, 7), np.array_split(y, 7), strict=True)
    updates = [measures.measure(a, b) for a, b in parts]
    for update in updates:
        update.check(measures.sections(), "a")
    return pooled(measures, updates)


SCORES = {
    "separated": (3.0, 1.0, 0.0),
    "mixed": (0.5, 1.0, 0.0),
    "flat": (0.01, 0.02, 0.0),
    "rare and sure": (1.0, 0.7, -5.0),
    "certain": (6.0, 4.0, 3.0),
}


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("outputs", [1, 2])
def test_binned_auc(name: str, outputs: int) -> None:
    shift, spread, base = SCORES[name]
    draw = np.random.default_rng(0)
    y = (draw.random(6000) < 0.3).astype(np.int64)
    logit = (base + shift * y + spread * draw.standard_normal(6000)).astype(np.float32)
    rows = logit[:, None] if outputs == 1 else np.stack([-logit / 2, logit / 2], 1)
    found = split(rows, y, MetricSet.of(2))
    assert found["auc"] == pytest.approx(reference.roc_auc_score(y, logit), abs=1e-3)
    probability = 1 / (1 + np.exp(-logit.astype(np.float64)))
    assert found["loss"] == pytest.approx(reference.log_loss(y, probability), rel=1e-4)
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(y, logit > 0))
    balanced = reference.balanced_accuracy_score(y, logit > 0)
    assert found["balanced_accuracy"] == pytest.approx(balanced)


def test_auc_of_one_class_is_undefined() -> None:
    found = split(np.zeros((9, 1), np.float32), np.zeros(9, np.int64), MetricSet.of(2))
    assert np.isnan(found["auc"])


def test_multiclass() -> None:
    draw = np.random.default_rng(1)
    y = draw.integers(0, 5, 700)
    scores = (draw.standard_normal((700, 5)) + 2 * np.eye(5)[y]).astype(np.float32)
    found = split(scores, y, MetricSet.of(5))
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(y, scores.argmax(1)))
    exact = np.exp(scores.astype(np.float64))
    exact /= exact.sum(1, keepdims=True)
    assert found["loss"] == pytest.approx(reference.log_loss(y, exact), rel=1e-5)


def test_regression() -> None:
    draw = np.random.default_rng(2)
    y = draw.standard_normal(500).astype(np.float32)
    value = (y + 0.3 * draw.standard_normal(500)).astype(np.float32)
    found = split(value[:, None], y, MetricSet.of(0))
    mse = reference.mean_squared_error(y, value)
    assert found["rmse"] == pytest.approx(mse**0.5, rel=1e-5)
    assert found["mae"] == pytest.approx(reference.mean_absolute_error(y, value), rel=1e-5)
    assert found["r2"] == pytest.approx(reference.r2_score(y, value), rel=1e-5)


def test_nothing_measured() -> None:
    measures = MetricSet.of(3)
    empty = measures.measure(np.zeros((0, 3), np.float32), np.zeros(0, np.int64))
    assert pooled(measures, [empty]) == {}
