r"""DP-FTRL: a trusted coordinator adds noise that is correlated over the rounds, on integers.

Kairouz et al. 2021, "Practical and Private (Deep) Learning without Sampling or Shuffling"; Denisov
et al. 2022; banded Toeplitz matrices as in `anabranch.privacy.accounting.ftrl`. With x_t the sums
of the rounds and C lower triangular, the mechanism publishes C x + z, and everything else is
computed from that. Here all of it is integer, so the proof for exact numbers applies:

    c_j = m_j / 2^p,    m_j = floor(2^p c_j), m_0 = 2^p               coefficients of C
    W_t = sum_j m_j X_{t-j} + Z_t                                     private: noise on a lattice
    Y_t = floor((W_t - sum_{j>0} m_j Y_{t-j} + 2^(p-1)) / 2^p)        released: a function of W

Since floor commutes with adding integers, Y_t = X_t + E_t with

    E_t = floor((Z_t - sum_{j>0} m_j E_{t-j} + 2^(p-1)) / 2^p)

which depends on the noise alone: the coordinator keeps the last E, or draws them again from the
noise keys of earlier releases, and never an earlier sum.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from anabranch.errors import AnabranchError
from anabranch.privacy.accounting.ftrl import sqrt_coefficients
from anabranch.privacy.mechanisms.base import Released, RoundNoise
from anabranch.privacy.mechanisms.central import LatticeClient
from anabranch.privacy.mechanisms.clipping import AdaptiveClip
from anabranch.privacy.noise import DiscreteGaussian, SecretStream
from anabranch.privacy.noise.table import Integers
from anabranch.updates.total import Total

__all__ = ["CorrelatedNoise", "MatrixNoise", "integer_coefficients"]

_BITS = 12


def integer_coefficients(bands: int) -> tuple[int, ...]:
    """m_0, m_1, ...: the coefficients of C in units of 2^-12, rounded down.

    Rounded down, so that C moves no unit further than the coefficients that are accounted for.

    >>> integer_coefficients(4)
    (4096, 2048, 1536, 1280)
    """
    return tuple(int(c) for c in np.floor(sqrt_coefficients(bands) * 2.0**_BITS))


@dataclass
class CorrelatedNoise:
    """E_1, E_2, ...: the noise of a run's rounds, one after another.

    Rows of C are rounds, as the participations of clients are counted. A round that released
    nothing has a row too; its Z is drawn from the key of the next release.

    Attributes:
        bands: diagonals of C.
        dim: coordinates.
        drawn: distribution of Z, in units of 2^-12 lattice steps.
    """

    bands: int
    dim: int
    drawn: DiscreteGaussian
    _recent: list[Integers] = field(default_factory=list)
    _keys: list[tuple[int, bytes]] = field(default_factory=list)

    def at(self, round_: int, keys: Mapping[int, bytes]) -> Integers:
        """The noise of a round; that of earlier ones is drawn again where needed."""
        wanted = sorted((number, key) for number, key in keys.items() if number <= round_)
        known = len(self._keys)
        if known >= len(wanted) or wanted[:known] != self._keys:
            self._recent.clear()
            self._keys.clear()
        for number, key in wanted[len(self._keys) :]:
            for row in range(self._row + 1, number + 1):
                self._advance(SecretStream.keyed(key, "matrix", str(row)))
            self._keys.append((number, key))
        return self._recent[-1]

    @property
    def _row(self) -> int:
        return self._keys[-1][0] if self._keys else 0

    def _advance(self, stream: SecretStream) -> None:
        value = self.drawn.sample(stream, self.dim)
        coefficients = integer_coefficients(self.bands)
        for coefficient, before in zip(coefficients[1:], reversed(self._recent), strict=False):
            value -= coefficient * before
        value += 1 << (_BITS - 1)
        value >>= _BITS
        self._recent = [*self._recent, value][-max(1, self.bands - 1) :]


@dataclass(frozen=True)
class MatrixNoise(LatticeClient):
    """Banded Toeplitz noise.

    Attributes:
        bands: diagonals of C, at most the separation of two participations of a client.

    Raises:
        AnabranchError: AB-933 with an adaptive clip norm: the sensitivity of a sum over rounds is
            that of one norm.
    """

    bands: int = 1
    _noise: dict[float, CorrelatedNoise] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if isinstance(self.clip, AdaptiveClip):
            raise AnabranchError(
                "AB-933",
                "DP-FTRL correlates the noise of many rounds, which all need one clip norm; this "
                "plan lets it change from round to round.",
                fix="use clip = { kind = 'fixed', norm = … }, found on public data, or the "
                "mechanism 'gaussian' with the adaptive norm.",
                kept="Nothing was started.",
            )

    def distribution(self, multiplier: float) -> DiscreteGaussian:
        """Z for a noise multiplier (standard deviation of z in clip norms)."""
        return DiscreteGaussian.worth(multiplier * self.lattice.steps * 2**_BITS)

    def release(self, total: Total, noise: RoundNoise) -> Released:
        """Sum plus correlated noise."""
        drawn = self.distribution(noise.multiplier)
        run = self._noise.setdefault(noise.multiplier, CorrelatedNoise(self.bands, self.dim, drawn))
        steps = self.steps_of(total) + run.at(noise.round, noise.keys)
        scale = self.lattice.steps * 2**_BITS
        return Released(
            total=self.mean_total(steps, noise.clip),
            deviation=drawn.sigma / scale * noise.clip / self.cohort,
            bias=self.dim * drawn.bias,
        )
