"""The Gaussian mechanism without sampling: exact, in closed form.

``rounds`` releases, each with noise-to-sensitivity z, cost exactly what one release with z /
sqrt(rounds) costs, and a matrix mechanism (DP-FTRL) is one such release whatever its length. The
epsilon at a given delta is the root of Balle and Wang 2018, "Improving the Gaussian Mechanism for
Differential Privacy", equation 6; dp-accounting solves it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from anabranch.privacy.accounting.library import gaussian_module
from anabranch.privacy.events import FixedSizeSampling, GaussianEvent, PoissonSampling

__all__ = ["exact_epsilon", "exact_noise", "exact_of", "is_plain"]


def exact_epsilon(noise_to_sensitivity: float, delta: float) -> float:
    """Epsilon of one Gaussian release.

    Args:
        noise_to_sensitivity: standard deviation of the noise divided by the L2 sensitivity.
        delta: in (0, 1).

    Raises:
        AnabranchError: AB-901 dp-accounting is not installed.

    >>> round(exact_epsilon(4.0, 1e-5), 4)
    0.9263
    """
    return float(gaussian_module().get_epsilon_gaussian(noise_to_sensitivity, delta))


def exact_noise(epsilon: float, delta: float) -> float:
    """Least noise-to-sensitivity at which one Gaussian release has (epsilon, delta).

    Raises:
        AnabranchError: AB-901 dp-accounting is not installed.

    >>> round(exact_noise(1.0, 1e-5), 4)
    3.7306
    """
    return float(gaussian_module().get_sigma_gaussian(epsilon, delta))


def is_plain(event: GaussianEvent) -> bool:
    """Whether nothing is claimed from sampling, so that the exact formula applies."""
    sampling = event.sampling
    return not isinstance(sampling, PoissonSampling | FixedSizeSampling) or sampling.rate == 1


def exact_of(events: Iterable[GaussianEvent], delta: float) -> float:
    """Epsilon of plain releases together: squares of 1 / noise-to-sensitivity add up."""
    squares = sum(event.rounds / event.noise_to_sensitivity**2 for event in events)
    return exact_epsilon(1 / math.sqrt(squares), delta)
