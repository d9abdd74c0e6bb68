"""What a mechanism is: a client half that bounds an update, a server half that makes a sum private.

A mechanism is a frozen value, equal at every client and at the coordinator. Inside it updates are
measured in clip norms: a client divides by the round's clip norm C, the server multiplies by it
after the noise is in. What the algorithm gets is a mean over the *planned* cohort, whoever
answered: a denominator that depended on the replies would be one more release.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from anabranch.privacy.mechanisms.clipping import ClipRule
from anabranch.privacy.noise import SecretStream
from anabranch.updates.sections import Section, Sections, Statistics, Update, Vector, Weighting
from anabranch.updates.total import Total

__all__ = ["DELTA", "UNCLIPPED", "Mechanism", "Released", "RoundNoise", "released_total"]

DELTA = "delta"
"""The section of the update."""

UNCLIPPED = "unclipped"
"""The section of the clipping bit: +1 if the update was not longer than C, else -1."""


@dataclass(frozen=True)
class RoundNoise:
    """What the server half needs for one release.

    Attributes:
        clip: the clip norm C that clients were told.
        multiplier: standard deviation of the noise in clip norms that the round is planned with.
        round: the round, from 1.
        keys: noise keys of the run's releases so far by round, the one of this round included.
        seed: the plan's public seed.
    """

    clip: float
    multiplier: float
    round: int
    keys: Mapping[int, bytes]
    seed: int


@dataclass(frozen=True)
class Released:
    """A private sum, and what it cost.

    Attributes:
        total: what the algorithm sees: the section ``delta`` in units of the update, to be divided
            by the planned cohort.
        deviation: standard deviation of the noise on a coordinate of the mean. Public.
        bias: bound on the total variation distance of the noise to its formula, over the release;
            (1 + exp(epsilon)) times it belongs to delta.
        unclipped: noisy share of the updates that were not clipped; None when it was not asked.
    """

    total: Total
    deviation: float
    bias: float
    unclipped: float | None = None


@runtime_checkable
class Mechanism(Protocol):
    """Bounds what one client can change, and adds the noise that hides it."""

    @property
    def dim(self) -> int:
        """Coordinates of an update."""
        ...

    @property
    def clip(self) -> ClipRule:
        """The bound on an update."""
        ...

    def sections(self) -> tuple[Section, ...]:
        """All that a client sends in a round of training; nothing else may leave it."""
        ...

    def encode(
        self, delta: Vector, clip: float, fraction: float, round_: int, seed: int, own: SecretStream
    ) -> Update:
        """The client half.

        Args:
            delta: the update, shape (dim,), whatever it contains.
            clip: the clip norm of the round.
            fraction: the client's weight divided by the largest weight, in (0, 1].
            round_: the round; public randomness derives from it, equal for all clients.
            seed: the plan's public seed.
            own: the client's secret randomness.
        """
        ...

    def realised(self, contributors: int, multiplier: float) -> float:
        """The noise that a sum of so many updates will have, in clip norms.

        Args:
            contributors: updates in the sum.
            multiplier: the noise that the round is planned with.

        Raises:
            AnabranchError: AB-935 with less noise than was promised: the round is abandoned.
        """
        ...

    def release(self, total: Total, noise: RoundNoise) -> Released:
        """The server half: from the exact sum of a round to something that may leave.

        Raises:
            AnabranchError: AB-935 when the sum holds less noise than was promised.
        """
        ...


def released_total(dim: int, sums: Statistics, cohort: int) -> Total:
    """A sum for the algorithm, whose mean is over the planned cohort."""
    section = Section.vector(DELTA, dim, Weighting.UNIFORM)
    return Total(Sections((section,)), {DELTA: np.asarray(sums, np.float64)}, cohort)
