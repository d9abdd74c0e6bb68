"""Dominating pairs: the two distributions on a line that are hardest to tell apart.

A pair (P, Q) says all about the privacy of one release: whatever two neighbouring populations
release, they are no easier to tell apart than a draw of P from a draw of Q. The accounting needs of
a pair the distribution of its privacy loss L(x) = log P(x) / Q(x), under P and under Q, by
intervals. All noise has standard deviation 1 here; ``shift`` is the sensitivity in standard
deviations.

Poisson sampling, one unit present or not (add-or-remove, zero-out): ((1-q) N(0) + q N(shift), N(0))
and its reverse (Zhu, Dong and Wang 2022, "Optimal Accounting of Differential Privacy via
Characteristic Function"). Poisson sampling, one unit replaced: ((1-q) N(0) + q
N(shift), (1-q) N(0) + q N(-shift)), where ``shift`` is that of one unit alone, not twice it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Added", "Floats", "Masses", "Mixture", "Pair", "Removed", "Replaced"]

Floats = NDArray[np.float64]

_REACH = 9.7
"""Standard deviations that a grid covers: what lies outside weighs less than 1e-21."""


@dataclass(frozen=True)
class Masses:
    """How a privacy loss is spread over intervals.

    Attributes:
        p: mass under P of the loss in ``(edges[i], edges[i+1]]``; one fewer than edges.
        q: the same under Q.
        below: mass under P at or below the first edge.
        above: mass under P above the last edge.
        at_zero: mass under P of the loss that is exactly zero, outside all intervals.
    """

    p: Floats
    q: Floats
    below: float
    above: float
    at_zero: float = 0.0


class Pair(Protocol):
    """The privacy loss of one release, in one direction."""

    def span(self) -> tuple[float, float]:
        """Lowest and highest loss that a grid has to cover."""

    def masses(self, edges: Floats) -> Masses:
        """Mass of the loss between ascending ``edges``."""


@dataclass(frozen=True)
class Removed:
    """Poisson sampling: (1-q) N(0) + q N(shift) against N(0). The loss rises with x."""

    shift: float
    rate: float

    def span(self) -> tuple[float, float]:
        return self.loss(-_REACH), self.loss(self.shift + _REACH)

    def loss(self, x: float) -> float:
        """The privacy loss at ``x``."""
        exponent = self.shift * x - self.shift**2 / 2
        if self.rate == 1:
            return exponent
        return float(np.logaddexp(np.log1p(-self.rate), np.log(self.rate) + exponent))

    def point(self, losses: Floats) -> Floats:
        """Where the loss takes these values; minus infinity below its infimum log(1-q)."""
        if self.rate == 1:
            exponent = losses
        else:
            # log((e^L - 1 + q) / q) without overflow and without cancellation near L = 0.
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                direct = np.log1p(np.expm1(np.minimum(losses, 30.0)) / self.rate)
                far = losses + np.log1p(-(1 - self.rate) * np.exp(-losses)) - np.log(self.rate)
                exponent = np.where(losses < 30, direct, far)
            exponent = np.where(losses <= np.log1p(-self.rate), -np.inf, exponent)
        return np.asarray(exponent / self.shift + self.shift / 2)

    def masses(self, edges: Floats) -> Masses:
        points = self.point(edges)
        base, moved = normal_masses(points), normal_masses(points - self.shift)
        p = (1 - self.rate) * base + self.rate * moved
        return Masses(p, base, *_outside(p, self._tail(points[-1])))

    def _tail(self, x: float) -> float:
        return float((1 - self.rate) * _ndtr(-x) + self.rate * _ndtr(self.shift - x))


@dataclass(frozen=True)
class Added:
    """The reverse of :class:`Removed`: N(0) against (1-q) N(0) + q N(shift)."""

    shift: float
    rate: float

    def span(self) -> tuple[float, float]:
        low, high = Removed(self.shift, self.rate).span()
        return -high, -low

    def masses(self, edges: Floats) -> Masses:
        reverse = Removed(self.shift, self.rate).masses(-edges[::-1])
        p, q = reverse.q[::-1], reverse.p[::-1]
        first = Removed(self.shift, self.rate).point(-edges[-1:])
        return Masses(p, q, *_outside(p, float(_ndtr(first)[0])))


@dataclass(frozen=True)
class Replaced:
    """Poisson sampling, one unit replaced: it moved the sum by +shift, the other one by -shift."""

    shift: float
    rate: float

    def span(self) -> tuple[float, float]:
        high = self.loss(self.shift + _REACH)
        return -high, high

    def loss(self, x: float) -> float:
        """The privacy loss at ``x``."""
        return Removed(self.shift, self.rate).loss(x) - Removed(self.shift, self.rate).loss(-x)

    def point(self, losses: Floats) -> Floats:
        """Where the loss takes these values, in closed form.

        With w = exp(shift x - L/2) the equation is w - 1/w = 2 (1-q) sinh(L/2) exp(shift^2/2) / q.
        """
        half = np.abs(losses) / 2
        log_scale = np.log1p(-self.rate) + self.shift**2 / 2 - np.log(self.rate)
        with np.errstate(divide="ignore"):
            log_sinh = half + np.log(-np.expm1(-2 * half) / 2)
        # arcsinh(y) is log(2 y) where y is large.
        size = log_scale + log_sinh
        grown = np.where(size > 20, size + np.log(2), np.arcsinh(np.exp(np.minimum(size, 20.0))))
        return np.asarray((losses / 2 + np.sign(losses) * grown) / self.shift)

    def masses(self, edges: Floats) -> Masses:
        points = self.point(edges)
        base = normal_masses(points)
        up, down = normal_masses(points - self.shift), normal_masses(points + self.shift)
        p = (1 - self.rate) * base + self.rate * up
        q = (1 - self.rate) * base + self.rate * down
        last = points[-1]
        tail = float((1 - self.rate) * _ndtr(-last) + self.rate * _ndtr(self.shift - last))
        return Masses(p, q, *_outside(p, tail))


@dataclass(frozen=True)
class Mixture:
    """With probability ``weight`` one pair, else the other one, and the draw tells which."""

    weight: float
    first: Pair
    second: Pair

    def span(self) -> tuple[float, float]:
        (low, high), (other_low, other_high) = self.first.span(), self.second.span()
        return min(low, other_low), max(high, other_high)

    def masses(self, edges: Floats) -> Masses:
        first, second = self.first.masses(edges), self.second.masses(edges)

        def mixed(one: float, two: float) -> float:
            return self.weight * one + (1 - self.weight) * two

        return Masses(
            self.weight * first.p + (1 - self.weight) * second.p,
            self.weight * first.q + (1 - self.weight) * second.q,
            mixed(first.below, second.below),
            mixed(first.above, second.above),
            mixed(first.at_zero, second.at_zero),
        )


def normal_masses(points: Floats) -> Floats:
    """Mass of the standard normal between ascending points, accurate in both tails."""
    from scipy.special import ndtr

    lower, upper = points[:-1], points[1:]
    # Differences are taken in the tail in which the values are small.
    flip = lower > 0
    left, right = np.where(flip, -upper, lower), np.where(flip, -lower, upper)
    return np.asarray(ndtr(right) - ndtr(left))


def _ndtr(x: Floats | float) -> Floats:
    from scipy.special import ndtr

    return np.asarray(ndtr(x))


def _outside(p: Floats, above: float) -> tuple[float, float]:
    """Mass below the first edge (what is left, never negative) and above the last one."""
    return max(0.0, 1 - float(p.sum()) - above), above
