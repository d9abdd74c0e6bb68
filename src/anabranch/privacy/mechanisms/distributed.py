r"""Noise that clients add themselves: what arrives is noisy already, and a sum of enough of them is
private against everybody, the coordinator included.

Kairouz, Liu and Steinke 2021 (discrete Gaussian); Agarwal, Kairouz and Liu 2021 (Skellam). A client

    clips to norm 1, rotates, multiplies by s, rounds at random to norm <= D,
    adds its part of the noise, and sends the integers modulo 2^b

The parts are provisioned: m_min updates make a round, c of their senders may tell the coordinator
their part, so each adds variance (z D)^2 / (m_min - c), and what more clients add is on top. Only
integers leave; they must be masked, or the coordinator sees each client's small part alone.

An adaptive clip norm (`anabranch.privacy.mechanisms.clipping`) needs to know how many updates were
not clipped. The bit travels in the same sum, as one more coordinate behind the rotated ones: +k or
-k steps, and each client adds a part of the noise of standard deviation 2 sigma_b k on the sum of
the bits, provisioned like the other parts. In units of the noise one client moves the pair (update,
bit) by at most

    (D / (z_update D))^2 + (k / (2 sigma_b k))^2 = z_update^-2 + (2 sigma_b)^-2 = z^-2

squared, so that both together cost what the round was planned with. Fewer survivors scale both
noises alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from anabranch.errors import AnabranchError
from anabranch.privacy.mechanisms.base import DELTA, Released, RoundNoise, released_total
from anabranch.privacy.mechanisms.clipping import AdaptiveClip, ClipRule
from anabranch.privacy.mechanisms.modulus import needed_bits, rounded_norm, scale_for, sum_bias
from anabranch.privacy.mechanisms.rotation import Rotation
from anabranch.privacy.mechanisms.rounding import conditionally_rounded
from anabranch.privacy.noise import DiscreteGaussian, SecretStream, Skellam
from anabranch.privacy.noise.gaussian import SMOOTHING
from anabranch.privacy.noise.table import Integers
from anabranch.updates.norm import squared_norm
from anabranch.updates.sections import Kind, Section, Statistics, Update, Vector, Weighting
from anabranch.updates.total import Total

__all__ = ["DistributedNoise"]

_DEVIATIONS = 7.0
"""A coordinate of the sum leaves the modulus with probability below 1e-11."""
_FLATNESS = 2.0
"""rho: entries of the rotation are at most sqrt(2 / d)."""
_FLOAT32_BITS = 24
_BIT_STEPS = 1 << 10
_LEAST_LOCAL = 2.0
"""Least noise of one client in steps: n parts are then one discrete Gaussian up to 1e-16."""


@dataclass(frozen=True)
class DistributedNoise:
    """Discrete noise in parts.

    Attributes:
        dim: coordinates of an update.
        cohort: planned cohort, the public denominator.
        most: the most updates that can be in a sum (over-selection included).
        fewest: m_min; a round with fewer is abandoned.
        corrupt: c, clients whose noise the coordinator may know.
        clip: the clip norm, fixed or following the updates.
        multiplier: z, noise of the honest survivors together in clip norms; of update and clipping
            bit together, where there is one.
        bits: b of the modulus.
        noise: distribution of a part.
        allowance: noise that is added divided by noise that is counted. Above 1 for Skellam noise,
            whose proof goes by Rényi divergences, so that the exact curve of `multiplier` holds.

    Raises:
        AnabranchError: AB-933 when the clipping bit takes the whole budget, or with Skellam noise;
            AB-934 when the modulus is too small; AB-935 when no honest survivor is left.
    """

    dim: int
    cohort: int
    most: int
    fewest: int
    corrupt: int
    clip: ClipRule
    multiplier: float
    bits: int = 20
    noise: Literal["discrete-gaussian", "skellam"] = "discrete-gaussian"
    allowance: float = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.clip, AdaptiveClip) and self.noise == "skellam":
            raise AnabranchError(
                "AB-933",
                "with Skellam noise from the clients the clip norm is fixed: its proof is about "
                "one scale, and the count of unclipped updates would have another.",
                fix="use noise = 'discrete-gaussian', or clip = { kind = 'fixed', norm = … }.",
                kept="Nothing was started.",
            )
        if self.honest < 1:
            raise AnabranchError(
                "AB-935",
                f"of at least {self.fewest} survivors {self.corrupt} may be corrupt, so that no "
                "noise is certain.",
                fix="take a larger cohort, or lower mechanism.corrupt_share or dropout_share.",
                kept="Nothing was started.",
            )
        if self.local_deviation < _LEAST_LOCAL:
            raise self._too_small(f"{self.local_deviation:.2g} steps for the noise of a client")
        if self.counts and self.local_bit < _LEAST_LOCAL:
            raise self._too_small(f"{self.local_bit:.2g} steps for the noise on a clipping bit")

    @property
    def honest(self) -> int:
        """Clients whose noise is certain and unknown to the coordinator."""
        return self.fewest - self.corrupt

    @cached_property
    def scale(self) -> float:
        """s: steps of the clip norm, the most that the modulus holds."""
        part = self.allowance * self.update_multiplier / math.sqrt(self.honest)
        scale = scale_for(
            self.bits, self.most, self.dim, 1.0, part, deviations=_DEVIATIONS, flatness=_FLATNESS
        )
        # The parts are larger than z s / sqrt(honest): they cover what rounding adds to the norm.
        while self._width(scale) > 2.0**self.bits:
            scale *= 0.995
            if scale < 1:
                raise self._too_small("less than one step for an update of full norm")
        return scale

    def _width(self, scale: float) -> float:
        """Twice the largest coordinate of a sum that is provided for, in steps."""
        part = self._local(scale)
        spread = _FLATNESS * (scale * self.most) ** 2 / self.dim + self.most * (0.25 + part**2)
        return 2 * _DEVIATIONS * math.sqrt(spread)

    def _local(self, scale: float) -> float:
        """One client's part in steps: together the honest ones have z D, and r on top."""
        together = self.allowance * self.update_multiplier * rounded_norm(scale, 1.0, self.dim)
        if self.noise == "discrete-gaussian":
            together = math.hypot(together, SMOOTHING)
        return together / math.sqrt(self.honest)

    @property
    def counts(self) -> bool:
        """Whether unclipped updates are counted, as one more coordinate."""
        return isinstance(self.clip, AdaptiveClip)

    @cached_property
    def update_multiplier(self) -> float:
        """z_update: what is left for the update beside the clipping bit.

        Raises:
            AnabranchError: AB-933 the bit takes the whole budget.
        """
        if not isinstance(self.clip, AdaptiveClip):
            return self.multiplier
        return self.clip.update_noise(self.multiplier, self.cohort)

    @cached_property
    def bit_steps(self) -> int:
        """k: steps of a clipping bit, a power of two; half of the modulus holds their noisy sum."""
        room = 2.0 ** (self.bits - 2)
        steps = _BIT_STEPS
        while steps > 1 and self._bit_width(steps) > room:
            steps //= 2
        return steps

    def _bit_width(self, steps: int) -> float:
        return steps * self.most + _DEVIATIONS * math.sqrt(self.most) * self._bit_part(steps)

    def _bit_part(self, steps: int) -> float:
        """One client's part of the noise on the sum of the bits, in steps."""
        if not isinstance(self.clip, AdaptiveClip):
            return 0.0
        together = 2 * self.clip.noise_on_count(self.cohort) * steps
        return math.hypot(together, SMOOTHING) / math.sqrt(self.honest)

    @cached_property
    def local_bit(self) -> float:
        """Standard deviation of one client's part of the noise on the bits, in steps."""
        return self._bit_part(self.bit_steps)

    @cached_property
    def norm(self) -> float:
        """D: the largest norm of a rounded update, in steps."""
        return rounded_norm(self.scale, 1.0, self.dim)

    @cached_property
    def local_deviation(self) -> float:
        """Standard deviation of one client's part, in steps."""
        return self._local(self.scale)

    @property
    def distribution(self) -> DiscreteGaussian | Skellam:
        """One client's part."""
        if self.noise == "skellam":
            return Skellam(self.local_deviation)
        return DiscreteGaussian(self.local_deviation)

    def realised(self, contributors: int, multiplier: float) -> float:
        """The noise in a sum, in clip norms, apart from what corrupt clients know.

        Raises:
            AnabranchError: AB-935 with fewer survivors than were provisioned for.
        """
        if contributors < self.fewest:
            raise AnabranchError(
                "AB-935",
                f"{contributors} updates arrived, {self.fewest} are needed for the promised noise.",
                fix="wait longer, ask more clients, or plan with a larger dropout_share.",
                kept="The round is abandoned; nothing was released.",
            )
        return self.multiplier * math.sqrt((contributors - self.corrupt) / self.honest)

    def sections(self) -> tuple[Section, ...]:
        """Integers, and nothing else."""
        kind = Kind.VECTOR if self.bits <= _FLOAT32_BITS else Kind.COUNT
        bound = 2.0 ** (self.bits - 1)
        length = self.dim + int(self.counts)
        return (Section(DELTA, length, kind, Weighting.UNIFORM, quantum=1.0, bound=bound),)

    def encode(
        self, delta: Vector, clip: float, fraction: float, round_: int, seed: int, own: SecretStream
    ) -> Update:
        """The client half: integers modulo 2^b, centred at zero."""
        values = self.integers(delta, clip, fraction, round_, seed, own).astype(np.float64)
        wide = values.astype(np.float32) if self.bits <= _FLOAT32_BITS else values
        return Update({DELTA: wide}, {})

    def integers(
        self, delta: Vector, clip: float, fraction: float, round_: int, seed: int, own: SecretStream
    ) -> Integers:
        """What is masked, from -2^(b-1) to 2^(b-1) - 1: shape (dim,), with a bit (dim + 1,)."""
        rotated = Rotation(self.dim, seed, round_).forward(_unit(delta, clip, fraction))
        values = conditionally_rounded(rotated, self.scale, own).astype(np.int64)
        values += self.distribution.sample(own, self.dim)
        if self.counts:
            values = np.append(values, self._noisy_bit(delta, clip, own))
        return centred(values, self.bits)

    def _noisy_bit(self, delta: Vector, clip: float, own: SecretStream) -> int:
        """+k if the update is not longer than the clip norm, else -k, with this client's part."""
        short = squared_norm(delta) <= clip**2  # false where it is not finite
        drawn = DiscreteGaussian(self.local_bit).sample(own, 1)
        return (self.bit_steps if short else -self.bit_steps) + int(drawn[0])

    def release(self, total: Total, noise: RoundNoise) -> Released:
        """The sum, turned back. No noise is added: it is in it."""
        self.realised(total.contributors, noise.multiplier)
        steps = centred(np.rint(total.sums[DELTA]).astype(np.int64), self.bits)
        flat = (steps[: self.dim] * (noise.clip / self.scale)).astype(np.float32)
        sums = Rotation(self.dim, noise.seed, noise.round).backward(flat)
        deviation = math.sqrt(total.contributors) * self.local_deviation / self.scale
        return Released(
            total=released_total(self.dim, sums.astype(np.float64), self.cohort),
            deviation=deviation * noise.clip / self.cohort,
            bias=self._bias(total.contributors),
            unclipped=self._unclipped(int(steps[-1])) if self.counts else None,
        )

    def _unclipped(self, steps: int) -> float:
        """The noisy share of unclipped updates in the planned cohort."""
        return 0.5 + steps / (2 * self.bit_steps * self.cohort)

    def _bias(self, clients: int) -> float:
        drawn = self.dim * clients * self.distribution.bias
        if self.noise == "skellam":
            return drawn
        found = drawn + self.dim * sum_bias(clients, self.local_deviation)
        if self.counts:
            bit = DiscreteGaussian(self.local_bit)
            found += clients * bit.bias + sum_bias(clients, self.local_bit)
        return found

    def _too_small(self, left: str) -> AnabranchError:
        part = self.update_multiplier / math.sqrt(self.honest)
        # Fine enough that rounding adds little to the norm, and the parts have two steps.
        scale = max(2 * math.sqrt(self.dim), 2 * _LEAST_LOCAL / part)
        bits = needed_bits(scale, self.most, self.dim, 1.0, 2 * part, _DEVIATIONS)
        return AnabranchError(
            "AB-934",
            f"a modulus of {self.bits} bits leaves {left}.",
            fix=f"set privacy.mechanism.bits to {max(bits, self.bits + 1)} or more, or take fewer "
            "clients or parameters.",
            kept="Nothing was started.",
        )


def centred(values: Integers, bits: int) -> Integers:
    """Integers modulo 2^bits, from -2^(bits-1) to 2^(bits-1) - 1.

    >>> centred(np.array([7, 8, -9]), 4).tolist()
    [7, -8, 7]
    """
    half = 1 << (bits - 1)
    return ((values + half) & ((1 << bits) - 1)) - half


def _unit(delta: Vector, clip: float, fraction: float) -> Vector:
    """The update in clip norms, of norm at most 1; zero where it is not finite."""
    wide: Statistics = delta.astype(np.float64)
    norm = math.sqrt(squared_norm(wide))
    if not math.isfinite(norm):
        return np.zeros(len(delta), np.float32)
    wide *= fraction / max(norm, clip)
    return wide.astype(np.float32)
