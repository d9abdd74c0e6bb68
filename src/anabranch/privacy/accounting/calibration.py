"""The noise that a budget needs: least noise multiplier whose claim stays within epsilon."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from anabranch.errors import AnabranchError
from anabranch.privacy.accounting.claims import check_delta, check_epsilon, claim
from anabranch.privacy.accounting.gaussian import exact_noise, is_plain
from anabranch.privacy.accounting.pld import upper_bound
from anabranch.privacy.events import GaussianEvent, NoSampling

__all__ = ["calibrate"]

_SMALLEST = 0.05
_COARSE = 2e-2
_PRECISION = 2e-4
_STEPS = 40


def calibrate(event: GaussianEvent, epsilon: float, delta: float) -> GaussianEvent:
    """``event`` with the least noise at which its claim is at most ``epsilon``.

    Without sampling the answer is exact. Otherwise the noise is bracketed on coarse grids and then
    refined to a relative 2e-4 with the claim itself; what is returned always satisfies the budget.

    Args:
        event: rounds, sampling and relation; its noise is ignored.
        epsilon: budget of all rounds together.
        delta: in (0, 1).

    Raises:
        AnabranchError: AB-901 dp-accounting is not installed, AB-902 or AB-905 delta or epsilon out
            of range, AB-912 no noise reaches the budget.
    """
    check_epsilon(epsilon)
    check_delta(delta)
    plain = exact_noise(epsilon, delta) * math.sqrt(event.rounds) * event.relation.sensitivity
    # A hair more than the root, so that the claim that is computed from it is not above epsilon.
    most = _with_noise(event, plain * (1 + 1e-9))
    if is_plain(event):
        return most

    def coarse(log_noise: float) -> float:
        noisy = _with_noise(event, math.exp(log_noise))
        return math.log(max(upper_bound([noisy], delta, _COARSE).epsilon, 1e-300) / epsilon)

    def fine(log_noise: float) -> float:
        noisy = _with_noise(event, math.exp(log_noise))
        return math.log(max(claim([noisy], delta).epsilon, 1e-300) / epsilon)

    low, high = _around(coarse, math.log(max(plain * _rate(event), 0.5)))
    if high <= math.log(_SMALLEST):
        return _with_noise(event, _SMALLEST)
    low, high = _bracket(coarse, low, high, 0.02)
    low, high = _widened(fine, low, high)
    _, high = _bracket(fine, low, high, _PRECISION)
    return _with_noise(event, math.exp(high))


def _with_noise(event: GaussianEvent, noise: float) -> GaussianEvent:
    return replace(event, noise_multiplier=noise, realised_noise=None)


def _rate(event: GaussianEvent) -> float:
    sampling = event.sampling
    return 1.0 if isinstance(sampling, NoSampling) else sampling.rate


def _around(excess: Callable[[float], float], guess: float) -> tuple[float, float]:
    """A bracket of a factor 2 that holds the root, or ends at the smallest noise allowed."""
    smallest, octave = math.log(_SMALLEST), math.log(2)
    if excess(guess) > 0:
        low, high = guess, guess + octave
        while excess(high) > 0:
            low, high = high, high + octave
        return low, high
    low, high = guess - octave, guess
    while low > smallest and excess(low) <= 0:
        low, high = low - octave, low
    if low <= smallest and excess(smallest) <= 0:
        return smallest, smallest
    return max(low, smallest), high


def _widened(excess: Callable[[float], float], low: float, high: float) -> tuple[float, float]:
    """The bracket moved until ``excess`` changes its sign inside."""
    for _ in range(_STEPS):
        if excess(high) <= 0:
            break
        low, high = high, high + 2 * (high - low) + 1e-3
    else:
        raise AnabranchError(
            "AB-912",
            "no amount of noise reaches the budget.",
            fix="allow a larger epsilon or delta, or fewer rounds.",
        )
    while excess(low) <= 0:
        low, high = low - 2 * (high - low) - 1e-3, low
    return low, high


def _bracket(
    excess: Callable[[float], float], low: float, high: float, width: float
) -> tuple[float, float]:
    """A bracket no wider than ``width``, by the Illinois variant of false position.

    ``excess`` falls, is positive at ``low`` and not positive at ``high``.
    """
    at_low, at_high = excess(low), excess(high)
    for _ in range(_STEPS):
        if high - low <= width:
            break
        middle = _between(low, high, at_low, at_high, width)
        value = excess(middle)
        if value > 0:
            low, at_low, at_high = middle, value, at_high / 2
        else:
            high, at_high, at_low = middle, value, at_low / 2
    return low, high


def _between(low: float, high: float, at_low: float, at_high: float, width: float) -> float:
    """Where a line through both ends is zero, at least a third of the width inside."""
    if not math.isfinite(at_low) or at_low == at_high:
        return (low + high) / 2
    guess = low + (high - low) * at_low / (at_low - at_high)
    return min(max(guess, low + width / 3), high - width / 3)
