"""How good a model is at its clients, as a release.

`PrivateScores` is about clients as units of privacy: the mean of their accuracies, with noise.
Every client sends one number, the share of its test examples that the model gets right, and counts
like every other. Sent as 2 share - 1 it moves the sum by at most 1, and what one client can do does
not depend on how many examples it has.

`SiteScores` is about the units inside each site: the site adds up how many units it has, how many
of them the model gets right and how large their bounded losses are, and adds its noise before it
answers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anabranch.privacy.mechanisms.sums import BoundedSums
from anabranch.privacy.noise import DiscreteGaussian, SecretStream
from anabranch.updates.sections import Kind, Section, Statistics, Update, Weighting
from anabranch.updates.total import Total

__all__ = ["PrivateScores", "SiteScores"]

_SCORE = "score"
_STEPS = 1 << 20
"""Lattice steps of a score of 1: its rounding is far below any noise."""


@dataclass(frozen=True)
class PrivateScores:
    """The mean of bounded scores over clients.

    >>> scores = PrivateScores()
    >>> scores.encode(correct=3, examples=4).scalars["score"] / 2**20
    0.5
    """

    def sections(self) -> tuple[Section, ...]:
        """All that a client sends in an evaluation."""
        bound = float(_STEPS)
        return (Section(_SCORE, 1, Kind.COUNT, Weighting.UNIFORM, quantum=1.0, bound=bound),)

    def encode(self, correct: float, examples: float) -> Update:
        """The client half; without examples it counts as one half."""
        share = correct / examples if examples > 0 else 0.5
        return Update({}, {_SCORE: float(round(_STEPS * (2 * min(max(share, 0.0), 1.0) - 1)))})

    def release(self, total: Total, clients: int, multiplier: float, key: bytes) -> float:
        """The noisy mean accuracy over the planned clients, within 0 and 1.

        Args:
            total: the exact sum.
            clients: how many were planned, whoever answered.
            multiplier: standard deviation of the noise divided by what one client can do.
            key: noise key of the release.
        """
        drawn = DiscreteGaussian.worth(multiplier * _STEPS)
        noise = int(drawn.sample(SecretStream.keyed(key, "scores"), 1)[0])
        mean = 0.5 + (total.scalar(_SCORE) + noise) / (2 * _STEPS * clients)
        return min(max(mean, 0.0), 1.0)


@dataclass(frozen=True)
class SiteScores:
    """Sums over the units of a site: 1, what is right, and the bounded loss.

    Right or wrong counts as +1 or -1, a loss between 0 and its bound as -1 to +1: so centred, one
    unit moves the sums by half of what it would otherwise.

    Attributes:
        loss_bound: larger losses count as this.
        decides: whether there is a right and a wrong; not for regression.
    """

    loss_bound: float
    decides: bool = True

    @property
    def sums(self) -> BoundedSums:
        """What leaves a site."""
        dim = 3 if self.decides else 2
        return BoundedSums("scores", dim, math.sqrt(dim))

    def rows(
        self, right: NDArray[np.bool_] | None, losses: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """One vector an example, shape (n, dim).

        >>> SiteScores(4.0).rows(np.array([True, False]), np.array([1.0, 9.0])).tolist()
        [[1.0, 1.0, -0.5], [1.0, -1.0, 1.0]]
        """
        bounded = np.clip(np.nan_to_num(losses, nan=self.loss_bound), 0.0, self.loss_bound)
        columns = [np.ones(len(losses)), 2 * bounded / self.loss_bound - 1]
        if self.decides:
            assert right is not None  # of a model that decides
            columns.insert(1, np.where(right, 1.0, -1.0))
        return np.stack(columns, axis=1)

    def metrics(self, values: Statistics, deviation: float) -> Mapping[str, float]:
        """Metrics over all units, and how far the noise may have moved an accuracy.

        Args:
            values: the noisy sums over all sites.
            deviation: standard deviation of the noise in each.
        """
        units = max(1.0, float(values[0]))
        mean = np.clip(0.5 + values[1:] / (2 * units), 0.0, 1.0)
        found = {"loss": self.loss_bound * float(mean[-1])}
        if self.decides:
            found |= {"accuracy": float(mean[0]), "accuracy_noise": deviation / (2 * units)}
        return found
