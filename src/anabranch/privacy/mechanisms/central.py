r"""Noise by a trusted coordinator: fresh in every round (DP-FedAvg), or correlated over the rounds.

McMahan, Ramage, Talwar and Zhang 2018, "Learning Differentially Private Recurrent Language Models",
with integers in the place of floats:

    client i:  x_i = round(f_i Delta_i / max(C, |Delta_i|) * 2^e),   |x_i| <= 2^e
    server:    X = sum_i x_i,   released:  (X + N_Z(0, s^2)) * C / 2^e,   divided by the cohort

with s^2 = (z 2^e)^2 + r^2, see `anabranch.privacy.noise.gaussian` for the r.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from anabranch.privacy.mechanisms.base import (
    DELTA,
    UNCLIPPED,
    Released,
    RoundNoise,
    released_total,
)
from anabranch.privacy.mechanisms.clipping import AdaptiveClip, ClipRule
from anabranch.privacy.mechanisms.lattice import UnitLattice
from anabranch.privacy.noise import DiscreteGaussian, SecretStream
from anabranch.privacy.noise.table import Integers
from anabranch.updates.norm import squared_norm
from anabranch.updates.sections import Kind, Section, Update, Vector, Weighting
from anabranch.updates.total import Total

__all__ = ["CentralNoise", "LatticeClient"]

_BIT_STEPS = 1 << 10
"""Lattice steps of the clipping bit, so that its noise is far above one step."""


@dataclass(frozen=True)
class LatticeClient:
    """What clients of a trusted coordinator do: clip, scale, round.

    Attributes:
        dim: coordinates of an update.
        cohort: planned cohort, the public denominator.
        clip: fixed norm, or one that follows the updates.
    """

    dim: int
    cohort: int
    clip: ClipRule

    @property
    def lattice(self) -> UnitLattice:
        """What updates are rounded to."""
        return UnitLattice(self.dim)

    def sections(self) -> tuple[Section, ...]:
        """The rounded update in clip norms and, with an adaptive norm, the clipping bit."""
        delta = Section(
            DELTA,
            self.dim,
            Kind.VECTOR,
            Weighting.UNIFORM,
            quantum=self.lattice.quantum,
            bound=1.0,
        )
        if not isinstance(self.clip, AdaptiveClip):
            return (delta,)
        return delta, Section(UNCLIPPED, 1, Kind.COUNT, Weighting.UNIFORM, quantum=1.0, bound=1.0)

    def encode(
        self, delta: Vector, clip: float, fraction: float, round_: int, seed: int, own: SecretStream
    ) -> Update:
        """The client half; it draws nothing."""
        steps = self.lattice.rounded(delta, clip, fraction)
        steps *= self.lattice.quantum
        scalars = {}
        if isinstance(self.clip, AdaptiveClip):
            short = squared_norm(delta) <= clip**2  # false where it is not finite
            scalars[UNCLIPPED] = 1.0 if short else -1.0
        return Update({DELTA: steps.astype(np.float32)}, scalars)

    def realised(self, contributors: int, multiplier: float) -> float:
        """The coordinator adds all of the noise, whoever answered."""
        return multiplier

    def steps_of(self, total: Total) -> Integers:
        """The sum in lattice steps, exactly."""
        return np.rint(total.sums[DELTA] * self.lattice.steps).astype(np.int64)

    def mean_total(self, steps: Integers, clip: float) -> Total:
        """A noisy sum of steps as what the algorithm sees."""
        sums = steps.astype(np.float64) * (clip / self.lattice.steps)
        return released_total(self.dim, sums, self.cohort)


@dataclass(frozen=True)
class CentralNoise(LatticeClient):
    """Fresh discrete Gaussian noise in every round."""

    def check(self, multiplier: float) -> None:
        """Refuse, before a run, a clipping bit that would cost more than a round may.

        Raises:
            AnabranchError: AB-932 too many parameters, AB-933 the count takes the whole budget.
        """
        self.sections()
        if isinstance(self.clip, AdaptiveClip):
            self.clip.update_noise(multiplier, self.cohort)

    def release(self, total: Total, noise: RoundNoise) -> Released:
        """Sum plus noise. The multiplier is that of update and clipping bit together."""
        update = noise.multiplier
        if isinstance(self.clip, AdaptiveClip):
            update = self.clip.update_noise(noise.multiplier, self.cohort)
        drawn = DiscreteGaussian.worth(update * self.lattice.steps)
        key = noise.keys[noise.round]
        steps = self.steps_of(total)
        steps += drawn.sample(SecretStream.keyed(key, "central", DELTA), self.dim)
        share, bias = self._unclipped(total, key)
        return Released(
            total=self.mean_total(steps, noise.clip),
            deviation=drawn.sigma / self.lattice.steps * noise.clip / self.cohort,
            bias=self.dim * drawn.bias + bias,
            unclipped=share,
        )

    def _unclipped(self, total: Total, key: bytes) -> tuple[float | None, float]:
        """The noisy share of unclipped updates, and the bias of its noise."""
        if not isinstance(self.clip, AdaptiveClip):
            return None, 0.0
        # A bit of +-1 in units of 2^-10: noise of 2 sigma_b on their sum, see `clipping`.
        deviation = 2 * self.clip.noise_on_count(self.cohort)
        drawn = DiscreteGaussian.worth(deviation * _BIT_STEPS)
        added = int(drawn.sample(SecretStream.keyed(key, "central", UNCLIPPED), 1)[0])
        noisy = total.scalar(UNCLIPPED) + added / _BIT_STEPS
        share = 0.5 + noisy / (2 * self.cohort)
        return (share if math.isfinite(share) else 0.5), drawn.bias
