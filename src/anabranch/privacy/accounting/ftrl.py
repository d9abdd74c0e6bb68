"""DP-FTRL: correlated noise for prefix sums, without any assumption on sampling.

The server releases all prefix sums of the rounds' updates. With the factorisation A = B C of the
lower-triangular matrix of ones it adds B z, z independent Gaussian: the noise of round t is that of
C^-1 z. The whole run is one Gaussian release of C x, so its cost is exact: noise multiplier divided
by the sensitivity of C (Denisov et al. 2022, "Improved Differential Privacy for SGD via Optimal
Private Linear Operators on Adaptive Streams": also when updates depend on earlier releases).

The sensitivity assumes that a unit takes part at most ``participations`` times, at rounds at least
``separation`` apart, and moves one round's sum by at most 1 (under replace-one: 2, see
:attr:`~anabranch.privacy.events.Relation.sensitivity`). Whoever selects has to enforce both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from anabranch.errors import AnabranchError
from anabranch.privacy.accounting.pairs import Floats

__all__ = [
    "PrefixMechanism",
    "banded_toeplitz",
    "binary_tree",
    "independent_noise",
    "optimal_toeplitz",
    "sqrt_coefficients",
]


@dataclass(frozen=True)
class PrefixMechanism:
    """What a factorisation costs and gives, for clipped updates of norm 1.

    Attributes:
        sensitivity: L2 distance that one unit moves C x.
        max_error: largest standard deviation of a noisy prefix sum at noise multiplier 1.
        rms_error: root mean square of these standard deviations over the rounds; NaN if not known.
    """

    sensitivity: float
    max_error: float
    rms_error: float


def sqrt_coefficients(count: int) -> Floats:
    """First column of the square root of the prefix matrix: 1, 1/2, 3/8, 5/16, ...

    Henzinger, Upadhyay and Upadhyay 2023; Fichtenberger, Henzinger and Upadhyay 2023.

    >>> sqrt_coefficients(4).tolist()
    [1.0, 0.5, 0.375, 0.3125]
    """
    index = np.arange(1, count)
    return np.concatenate([[1.0], np.cumprod((2 * index - 1) / (2 * index))])


def optimal_toeplitz(rounds: int, separation: int, participations: int) -> PrefixMechanism:
    """C = A^(1/2), all coefficients kept.

    Raises:
        AnabranchError: AB-911 the participations do not fit.
    """
    _check(rounds, separation, participations)
    return _toeplitz(sqrt_coefficients(rounds), rounds, separation, participations)


def banded_toeplitz(
    rounds: int, separation: int, participations: int, bands: int | None = None
) -> PrefixMechanism:
    """C = A^(1/2) cut to ``bands`` diagonals (default: the separation).

    With no more bands than the separation a unit's contributions do not overlap, and the
    sensitivity is sqrt(participations) times that of one (Choquette-Choo et al. 2023, "(Amplified)
    Banded Matrix Factorization"; McKenna 2024 for the Toeplitz case).

    Raises:
        AnabranchError: AB-911 the participations do not fit.

    >>> round(banded_toeplitz(100, 20, 5).sensitivity, 6)
    3.174815
    """
    _check(rounds, separation, participations)
    kept = min(rounds, separation if bands is None else bands)
    if kept < 1:
        raise _misfit(f"{kept} bands", "use at least one band.")
    coefficients = np.zeros(rounds)
    coefficients[:kept] = sqrt_coefficients(kept)
    return _toeplitz(coefficients, rounds, separation, participations)


def binary_tree(rounds: int, separation: int, participations: int) -> PrefixMechanism:
    """The binary tree without consistency (Dwork et al. 2010; Chan, Shi and Song 2011).

    A unit's participations may share all upper nodes, so sensitivity grows with their number.

    Raises:
        AnabranchError: AB-911 the participations do not fit.
    """
    _check(rounds, separation, participations)
    levels = math.ceil(math.log2(rounds)) + 1
    sensitivity = participations * math.sqrt(levels)
    nodes = np.array([prefix.bit_count() for prefix in range(1, rounds + 1)])
    return PrefixMechanism(
        sensitivity,
        sensitivity * math.sqrt(float(nodes.max())),
        sensitivity * math.sqrt(float(nodes.mean())),
    )


def independent_noise(rounds: int, separation: int, participations: int) -> PrefixMechanism:
    """C = I: fresh noise in every round, as DP-FedAvg adds it.

    Raises:
        AnabranchError: AB-911 the participations do not fit.
    """
    _check(rounds, separation, participations)
    coefficients = np.zeros(rounds)
    coefficients[0] = 1.0
    return _toeplitz(coefficients, rounds, separation, participations)


def _toeplitz(
    coefficients: Floats, rounds: int, separation: int, participations: int
) -> PrefixMechanism:
    sensitivity = _sensitivity(coefficients, separation, participations)
    # Row t of B = A C^-1 holds the first t+1 prefix sums of the coefficients of C^-1, reversed.
    prefix = np.cumsum(_inverse_series(coefficients))
    variances = np.cumsum(prefix**2)
    return PrefixMechanism(
        sensitivity,
        sensitivity * math.sqrt(float(variances[-1])),
        sensitivity * math.sqrt(float(variances.mean())),
    )


def _sensitivity(coefficients: Floats, separation: int, participations: int) -> float:
    """Norm of the sum of the columns of C at 0, b, 2b, ...: the worst case.

    The coefficients are not negative and fall, so the earliest rounds, as close together as allowed
    and all contributions in one direction, are worst.
    """
    total = np.zeros(len(coefficients))
    for number in range(participations):
        start = number * separation
        total[start:] += coefficients[: len(coefficients) - start]
    return float(np.linalg.norm(total))


def _inverse_series(coefficients: Floats) -> Floats:
    """Coefficients of 1 / c(x), by forward substitution; c_0 is 1."""
    count = len(coefficients)
    bands = int(np.flatnonzero(coefficients)[-1]) + 1
    reverse = coefficients[1:bands][::-1]
    inverse = np.zeros(count)
    inverse[0] = 1.0
    for index in range(1, count):
        reach = min(index, bands - 1)
        if reach:
            inverse[index] = -(reverse[-reach:] @ inverse[index - reach : index])
    return inverse


def _check(rounds: int, separation: int, participations: int) -> None:
    if min(rounds, separation, participations) < 1:
        raise _misfit(
            f"{rounds} rounds, separation {separation}, {participations} participations",
            "all three are at least 1.",
        )
    if (participations - 1) * separation >= rounds:
        raise _misfit(
            f"{participations} participations, {separation} rounds apart, in {rounds} rounds",
            "allow fewer participations, a smaller separation or more rounds.",
        )


def _misfit(what: str, fix: str) -> AnabranchError:
    return AnabranchError("AB-911", f"a DP-FTRL run cannot have {what}.", fix=fix)
