"""How good a model is at its clients, as a release: the mean of their accuracies, with noise.

Every client sends one number, the share of its test examples that the model gets right, and counts
like every other. Sent as 2 share - 1 it moves the sum by at most 1, and what one client can do does
not depend on how many examples it has.
"""

from __future__ import annotations

from dataclasses import dataclass

from anabranch.privacy.noise import DiscreteGaussian, SecretStream
from anabranch.updates.sections import Kind, Section, Update, Weighting
from anabranch.updates.total import Total

__all__ = ["PrivateScores"]

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
