r"""DP-SGD inside one site: per-unit clipping, Poisson sampling, discrete noise on a lattice.

A unit is an example, or a subject with all of its examples. One step (Abadi et al. 2016, algorithm
1, on a lattice)::

    S     each unit of the site with probability q, by its own secret coin
    g_u   mean gradient of at most ``max_examples`` examples of unit u
    r_u   g_u scaled to norm <= C and rounded to multiples of C / k;  |r_u| <= k steps, exactly
    g     = C / (k B) * (sum_{u in S} r_u + N_Z(0, (z k)^2)),   B the planned batch, never |S|
    w     <- optimizer(w, g + pull (w - anchor) + drift)

The correction of the algorithm consists of earlier releases and is added behind the noise. Losses
are not measured: they would be a release. Batch normalisation mixes examples and is refused
elsewhere (AB-980).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from anabranch.data.federation import Examples
from anabranch.learners.base import LocalResult, TrainingJob
from anabranch.learners.flat import trained_ranges
from anabranch.learners.optim import Descent, Pull
from anabranch.privacy.mechanisms.lattice import UnitLattice
from anabranch.privacy.noise import DiscreteGaussian, SecretStream
from anabranch.updates.layout import Layout
from anabranch.updates.sections import Statistics, Vector

__all__ = ["ExampleGradients", "PrivateSteps", "train_privately"]

_FLOATS = 1 << 22
"""Numbers of single examples' gradients that are held at once: 16 MiB."""


class ExampleGradients(Protocol):
    """Gradients of single examples."""

    @property
    def layout(self) -> Layout:
        """Of the parameters."""
        ...

    def gradients(
        self, w: Vector, x: NDArray[np.generic], y: NDArray[np.generic]
    ) -> NDArray[np.float32]:
        """One row for each example, shape (n, trained parameters): averaged ones, then local."""
        ...


@dataclass(frozen=True)
class PrivateSteps:
    """How one site's training keeps its promise.

    Attributes:
        clip: C, bound on one unit's gradient.
        multiplier: z, standard deviation of the noise divided by C.
        batch: B, units expected in a step.
        rate: q, probability of a unit to be in a step.
        steps: of one round.
        max_examples: most examples of one unit that are used.
        stream: secret coins and noise of this task.
    """

    clip: float
    multiplier: float
    batch: float
    rate: float
    steps: int
    max_examples: int
    stream: Callable[[], SecretStream]


@dataclass(frozen=True)
class _Units:
    """Rows of each unit: unit u has ``rows[starts[u] : starts[u + 1]]``."""

    rows: NDArray[np.int64]
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts) - 1

    @staticmethod
    def of(data: Examples, most: int) -> _Units:
        """Bounded contributions: the first ``most`` rows of each unit, in the site's order."""
        subjects = data.subjects if data.subjects is not None else np.arange(len(data))
        order = np.argsort(subjects, kind="stable")
        first = np.flatnonzero(np.r_[True, np.diff(subjects[order]) != 0])
        counts = np.diff(np.r_[first, len(order)])
        place = np.arange(len(order)) - np.repeat(first, counts)
        kept = np.minimum(counts, most)
        return _Units(order[place < most], np.concatenate([[0], np.cumsum(kept)]))


def train_privately(
    source: ExampleGradients, start: Vector, data: Examples, job: TrainingJob, plan: PrivateSteps
) -> LocalResult:
    """Train from ``start``; what is returned besides ``end`` does not depend on the data."""
    layout = source.layout
    ranges = [r for r in trained_ranges(layout) if r.stop > r.start]
    w = start.copy()
    gradient = np.zeros(sum(r.stop - r.start for r in ranges), np.float32)
    descent = _descent(w, gradient, ranges, start, job)
    lattice = UnitLattice(len(gradient))
    noise = DiscreteGaussian.worth(plan.multiplier * lattice.steps)
    units, stream = _Units.of(data, plan.max_examples), plan.stream()
    scale = plan.clip / (lattice.steps * plan.batch)
    for _ in range(plan.steps):
        chosen = _chosen(len(units), plan.rate, stream)
        total = np.zeros(len(gradient))
        for means in _unit_gradients(source, w, data, units, chosen):
            for row in means:
                total += lattice.rounded(row, plan.clip)
        total += noise.sample(stream, len(gradient))
        np.multiply(total, scale, out=gradient, casting="unsafe")
        descent.step()
    return LocalResult(w, plan.steps, plan.steps * job.learning_rate, 0.0, 0)


def _descent(
    w: Vector, gradient: Vector, ranges: list[slice], start: Vector, job: TrainingJob
) -> Descent[Vector]:
    correction, first = job.correction, ranges[0]
    anchor = start if correction.anchor is None else correction.anchor
    drift = None if correction.drift is None else correction.drift[first]
    pull = Pull(correction.pull, anchor[first], drift)
    parts = [w[part] for part in ranges]
    return Descent(job.training, job.learning_rate, parts, gradient, pull, np.zeros_like)


def _chosen(units: int, rate: float, stream: SecretStream) -> NDArray[np.int64]:
    """Units whose coin fell on one; exact to 2^-64, which is less than any delta."""
    if rate >= 1:
        return np.arange(units)
    return np.flatnonzero(stream.words(units) < np.uint64(math.floor(rate * 2.0**64)))


def _unit_gradients(
    source: ExampleGradients,
    w: Vector,
    data: Examples,
    units: _Units,
    chosen: NDArray[np.int64],
) -> Iterator[Statistics]:
    """Mean gradients of the chosen units, several units at a time."""
    widest = int(np.diff(units.starts).max(initial=1))
    count = max(1, _FLOATS // (widest * max(1, len(w))))
    for begin in range(0, len(chosen), count):
        part = chosen[begin : begin + count]
        lengths = units.starts[part + 1] - units.starts[part]
        rows = np.concatenate(
            [units.rows[units.starts[u] : units.starts[u + 1]] for u in part.tolist()]
        )
        single = source.gradients(w, data.x[rows], data.y[rows])
        edges = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        sums = np.add.reduceat(single.astype(np.float64), edges, axis=0)
        yield sums / lengths[:, None]
