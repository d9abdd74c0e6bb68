r"""Metrics from mergeable sums: every client sends counts and sums, never scores.

For a binary task the AUC comes from two histograms of the predicted log-odds, one for each
class. With p_b positives and n_b negatives in bin b, in the order of the score::

    AUC = sum_b p_b * (n_1 + ... + n_(b-1) + n_b / 2) / (P * N)

which is the exact AUC of the binned scores (ties count one half; Hanley & McNeil 1982); scores in
one bin are treated as equal, so the error is at most the share of pairs that share a bin.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from anabranch.updates.sections import Section, Sections, Statistics, Update
from anabranch.updates.total import Total

__all__ = ["MetricSet", "MetricTask", "binned_auc", "example_losses"]

MetricTask: TypeAlias = Literal["binary", "multiclass", "regression"]

_FINEST, _LARGEST = 0.05, 30.0  # log-odds

_CONFUSION_CLASSES = 32
"""Confusion counts are kept up to this many classes."""


@dataclass(frozen=True)
class MetricSet:
    """What an evaluation measures.

    Attributes:
        task: binary, multiclass or regression.
        classes: number of classes; 0 for regression.
        bins: score bins a class for the AUC of a binary task.
    """

    task: MetricTask
    classes: int
    bins: int = 512

    @staticmethod
    def of(classes: int, bins: int = 512) -> MetricSet:
        """The metrics for data with ``classes`` classes (0: regression)."""
        task: MetricTask = (
            "regression" if classes == 0 else "binary" if classes == 2 else "multiclass"
        )
        return MetricSet(task, classes, bins)

    @cached_property
    def _sections(self) -> Sections:
        common = (Section.count("examples"), Section.statistic("loss_sum"))
        if self.task == "regression":
            more = (
                Section.statistic("squared_error"),
                Section.statistic("absolute_error"),
                Section.statistic("target_sum"),
                Section.statistic("target_square_sum"),
            )
            return Sections((*common, *more))
        counts = [Section.count("correct")]
        if self.task == "binary":
            counts += [Section.count(name, self.bins) for name in ("positives", "negatives")]
        if self.classes <= _CONFUSION_CLASSES:
            counts.append(Section.count("confusion", self.classes**2))
        return Sections((*common, *counts))

    def sections(self) -> Sections:
        """The declared sections of an evaluation."""
        return self._sections

    def measure(self, outputs: NDArray[np.float32], y: NDArray[np.generic]) -> Update:
        """The sums over some examples.

        Args:
            outputs: logits, shape (n, classes) or (n, 1) for a binary task with one output; values,
                shape (n, 1), for regression.
            y: class numbers, or values, shape (n,).
        """
        if self.task == "regression":
            return self._regression(outputs, y)
        scores = _class_scores(outputs)
        labels = y.astype(np.int64)
        chosen = scores.argmax(1)
        _, losses = example_losses(outputs, y, self.task)
        vectors: dict[str, Statistics] = {}
        if self.task == "binary":
            vectors.update(self._histograms(scores, labels))
        if "confusion" in self._sections:
            cells = labels * self.classes + chosen
            vectors["confusion"] = np.bincount(cells, minlength=self.classes**2).astype(float)
        scalars = {
            "examples": float(len(labels)),
            "loss_sum": float(losses.sum()),
            "correct": float((chosen == labels).sum()),
        }
        return Update(vectors, scalars)

    def _histograms(
        self, scores: NDArray[np.float64], labels: NDArray[np.int64]
    ) -> dict[str, Statistics]:
        """Counts by bin of the log-odds z; bins are equally wide in asinh(z / 0.05).

        Equal bins of the probability would put the scores of a rare class, of a very sure or of a
        hardly trained model into a few. With 512 bins these are 0.0014 wide at 0 and 3 % of z
        far from it.
        """
        odds = np.nan_to_num(scores[:, 1] - scores[:, 0])
        place = np.arcsinh(odds / _FINEST) / math.asinh(_LARGEST / _FINEST)
        bins = np.clip(((place + 1) * (self.bins / 2)).astype(int), 0, self.bins - 1)
        return {
            name: np.bincount(bins[labels == label], minlength=self.bins).astype(float)
            for name, label in (("positives", 1), ("negatives", 0))
        }

    def _regression(self, outputs: NDArray[np.float32], y: NDArray[np.generic]) -> Update:
        target = y.astype(np.float64)
        residual = outputs.reshape(-1).astype(np.float64) - target
        squared = float(residual @ residual)
        scalars = {
            "examples": float(len(target)),
            "loss_sum": squared,
            "squared_error": squared,
            "absolute_error": float(np.abs(residual).sum()),
            "target_sum": float(target.sum()),
            "target_square_sum": float(target @ target),
        }
        return Update({}, scalars)

    def summary(self, total: Total) -> dict[str, float]:
        """Metrics of the summed examples; undefined ones are NaN (an AUC with one class)."""
        n = total.scalar("examples")
        if n == 0:
            return {}
        metrics = {"loss": total.scalar("loss_sum") / n}
        if self.task == "regression":
            return {**metrics, **_errors(total, n)}
        metrics["accuracy"] = total.scalar("correct") / n
        if self.task == "binary":
            metrics["auc"] = binned_auc(total.sums["positives"], total.sums["negatives"])
        if "confusion" in self._sections:
            table = total.sums["confusion"].reshape(self.classes, self.classes)
            seen = table.sum(1)
            recalls = np.diag(table)[seen > 0] / seen[seen > 0]
            metrics["balanced_accuracy"] = float(recalls.mean())
        return metrics


def example_losses(
    outputs: NDArray[np.float32], y: NDArray[np.generic], task: MetricTask
) -> tuple[NDArray[np.bool_] | None, NDArray[np.float64]]:
    """Whether each example is right (None for regression), and its loss; both of shape (n,).

    Args:
        outputs: as for `MetricSet.measure`.
        y: class numbers, or values.
        task: what the outputs mean.
    """
    if task == "regression":
        residual = outputs.reshape(-1).astype(np.float64) - y.astype(np.float64)
        return None, residual * residual
    scores, labels = _class_scores(outputs), y.astype(np.int64)
    shifted = scores - scores.max(1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(labels)), labels]
    return scores.argmax(1) == labels, losses


def binned_auc(positives: Statistics, negatives: Statistics) -> float:
    """The AUC of two histograms over the same score bins; NaN when a class is empty.

    >>> import numpy as np
    >>> binned_auc(np.array([0.0, 1.0, 1.0]), np.array([2.0, 1.0, 0.0]))
    0.9166666666666666
    """
    pairs = float(positives.sum() * negatives.sum())
    if not pairs:
        return math.nan
    below = np.cumsum(negatives) - negatives
    return float((positives * (below + negatives / 2)).sum() / pairs)


def _class_scores(outputs: NDArray[np.float32]) -> NDArray[np.float64]:
    """Logits a class; a single output z is the logit of class 1 against 0."""
    scores = outputs.astype(np.float64)
    if scores.shape[1] == 1:
        return np.concatenate([np.zeros_like(scores), scores], 1)
    return scores


def _errors(total: Total, n: float) -> Mapping[str, float]:
    mean = total.scalar("target_sum") / n
    variance = total.scalar("target_square_sum") / n - mean**2
    mse = total.scalar("squared_error") / n
    return {
        "rmse": math.sqrt(mse),
        "mae": total.scalar("absolute_error") / n,
        "r2": 1 - mse / variance if variance > 0 else math.nan,
    }
