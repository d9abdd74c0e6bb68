r"""Formulas of distributed noise: scale, sensitivity after rounding, divergence.

n clients send integers modulo 2^b: their update (norm at most C) times s, rounded at random, plus
integer noise. Notation as in Kairouz, Liu and Steinke 2021, "The Distributed Discrete Gaussian
Mechanism for Federated Learning with Secure Aggregation", and Agarwal, Kairouz and Liu 2021, "The
Skellam Mechanism for Differentially Private Federated Learning".
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from anabranch.errors import AnabranchError

__all__ = [
    "BETA",
    "discrete_gaussian_rdp",
    "needed_bits",
    "rounded_norm",
    "scale_for",
    "skellam_rdp",
    "sum_bias",
]

BETA = math.exp(-0.5)
"""Of conditional rounding: the rounded norm is bounded so that a try succeeds with this
probability or more."""


def rounded_norm(scale: float, clip: float, dim: int) -> float:
    """D_2: bound on the norm of a rounded update, in steps (Kairouz et al. 2021, theorem 1).

    min{ sqrt(s^2 C^2 + d/4 + sqrt(2 ln(1/beta)) (s C + sqrt(d)/2)), s C + sqrt(d) }
    """
    length, root = scale * clip, math.sqrt(dim)
    likely = length**2 + dim / 4 + math.sqrt(2 * math.log(1 / BETA)) * (length + root / 2)
    return min(math.sqrt(likely), length + root)


def scale_for(
    bits: int,
    clients: int,
    dim: int,
    clip: float,
    local_noise: float,
    *,
    deviations: float = 4.0,
    flatness: float = 1.0,
) -> float:
    """The largest scale s at which the sum fits the modulus.

    Solves 2^b = 2 k sqrt(rho s^2 C^2 n^2 / d + (1/4 + s^2 sigma^2) n) for s: a coordinate of the
    sum of n rotated updates, their rounding and their noise stays within k standard deviations.

    Args:
        bits: b.
        clients: n, the most updates in a sum.
        dim: d.
        clip: C.
        local_noise: sigma, one client's noise in the units of the update.
        deviations: k.
        flatness: rho; 1 when the rotated updates are like normal vectors.

    Raises:
        AnabranchError: AB-934 when no scale does.
    """
    room = 4.0**bits - clients * deviations**2
    spread = flatness * (clip * clients) ** 2 / dim + clients * local_noise**2
    if room <= 0:
        raise AnabranchError(
            "AB-934",
            f"a modulus of {bits} bits does not hold the sum of {clients} rounded updates.",
            fix="use more bits (privacy.mechanism.bits); 20 suit a million parameters.",
            kept="Nothing was started.",
        )
    return math.sqrt(room) / (2 * deviations * math.sqrt(spread))


def needed_bits(
    scale: float, clients: int, dim: int, clip: float, local_noise: float, deviations: float
) -> int:
    """The smallest b of the modulus for this scale."""
    inside = (scale * clip * clients) ** 2 / dim + clients * (0.25 + (scale * local_noise) ** 2)
    return math.ceil(math.log2(2 * deviations * math.sqrt(inside)))


def sum_bias(clients: int, local_deviation: float) -> float:
    """tau: how far n discrete Gaussians are from one, a coordinate (Kairouz et al., theorem 1).

    10 sum_{k<n} exp(-2 pi^2 sigma^2 k / (k+1)), sigma in steps.
    """
    order = np.arange(1, clients)
    return float(10 * np.exp(-2 * math.pi**2 * local_deviation**2 * order / (order + 1)).sum())


def discrete_gaussian_rdp(
    norm: float, clients: int, dim: int, local_deviation: float
) -> Callable[[float], float]:
    """Renyi divergence by order of the sum with n discrete Gaussians (Kairouz et al., theorem 1).

    Order times half of min{ D^2/(n sigma^2) + tau d/2, (D/(sqrt(n) sigma) + tau sqrt(d))^2 }.

    Args:
        norm: D_2, the largest norm of an update in steps.
        clients: n, whose noise counts.
        dim: d.
        local_deviation: one client's noise, in steps.
    """
    deviation = math.sqrt(clients) * local_deviation
    tau = sum_bias(clients, local_deviation)
    squared = (norm / deviation) ** 2
    half = min(squared + tau * dim / 2, (norm / deviation + tau * math.sqrt(dim)) ** 2) / 2
    return lambda order: order * half


def skellam_rdp(norm: float, dim: int, variance: float) -> Callable[[float], float]:
    """Renyi divergence by order of the sum with Skellam noise (Agarwal et al. 2021, theorem 3.5).

    Args:
        norm: D_2, the largest norm of an update in steps.
        dim: d.
        variance: mu, of the whole noise in a coordinate, in steps^2.
    """
    one = norm * min(math.sqrt(dim), norm)

    def divergence(order: float) -> float:
        correction = ((2 * order - 1) * norm**2 + 6 * one) / (4 * variance**2)
        return order * norm**2 / (2 * variance) + min(correction, 3 * one / (2 * variance))

    return divergence
