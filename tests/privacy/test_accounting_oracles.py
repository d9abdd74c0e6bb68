"""Slow, obvious oracles: integrals, sums over outcomes, brute force; and what must be monotone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import norm

from anabranch.privacy.accounting import account, banded_toeplitz, claim, exact_epsilon
from anabranch.privacy.accounting.ftrl import sqrt_coefficients
from anabranch.privacy.accounting.pairs import Added, Pair, Removed, Replaced
from anabranch.privacy.accounting.pld import (
    epsilon_on_grid,
    lower_bound,
    upper_bound,
    weighty_losses,
)
from anabranch.privacy.accounting.without_replacement import FixedSize
from anabranch.privacy.events import (
    FixedSizeSampling,
    GaussianEvent,
    NoSampling,
    PoissonSampling,
    Relation,
    Sampling,
)

DELTA = 1e-5
Density = Callable[[np.ndarray], np.ndarray]


def mixture(rate: float, shift: float) -> Density:
    return lambda x: (1 - rate) * norm.pdf(x) + rate * norm.pdf(x - shift)


def hockey_stick(p: Density, q: Density, epsilon: float, reach: float) -> float:
    """The integral of max(0, p - e^epsilon q), as its definition says."""
    x = np.linspace(-reach, reach, 100_001)
    return float(np.trapezoid(np.maximum(0.0, p(x) - math.exp(epsilon) * q(x)), x))


def epsilon_by_integration(p: Density, q: Density, delta: float, reach: float) -> float:
    return float(brentq(lambda e: hockey_stick(p, q, e, reach) - delta, 0, 30, xtol=1e-7))


@pytest.mark.parametrize(("rate", "noise"), [(0.1, 1.0), (0.3, 2.0), (0.01, 0.7)])
def test_one_poisson_round_by_integration(rate: float, noise: float) -> None:
    p, q = mixture(rate, 1 / noise), mixture(0.0, 0.0)
    truth = max(epsilon_by_integration(*both, DELTA, 14.0) for both in ((p, q), (q, p)))
    for relation in (Relation.ADD_OR_REMOVE, Relation.ZERO_OUT):
        priced = account([GaussianEvent(noise, 1, PoissonSampling(rate), relation)], DELTA)
        assert truth * (1 - 1e-6) <= priced.claim <= truth * (1 + 1e-3)
        assert priced.lower_bound <= truth * (1 + 1e-6)


@pytest.mark.parametrize(("rate", "noise"), [(0.1, 1.0), (0.5, 3.0)])
def test_one_poisson_round_under_replace_one_by_integration(rate: float, noise: float) -> None:
    truth = epsilon_by_integration(mixture(rate, 1 / noise), mixture(rate, -1 / noise), DELTA, 14.0)
    event = GaussianEvent(noise, 1, PoissonSampling(rate), Relation.REPLACE_ONE)
    priced = account([event], DELTA)
    assert truth * (1 - 1e-6) <= priced.claim <= truth * (1 + 1e-3)
    assert priced.lower_bound <= truth * (1 + 1e-6) <= priced.rdp


def test_two_poisson_rounds_by_double_integration() -> None:
    """Composition: the divergence of the product, the inner integral in closed form."""
    rate, shift = 0.2, 1.0

    def delta_of(epsilon: float) -> float:
        x = np.linspace(-9, 10, 40_001)
        loss = np.log((1 - rate) + rate * np.exp(shift * x - shift**2 / 2))
        # For a first loss l the second one has to bridge epsilon - l.
        inner = np.array([one_round(epsilon - value) for value in loss[::20]])
        filled = np.interp(x, x[::20], inner)
        density = (1 - rate) * norm.pdf(x) + rate * norm.pdf(x - shift)
        return float(np.trapezoid(density * filled, x))

    def one_round(epsilon: float) -> float:
        """The divergence of P from Q at epsilon, for epsilon of either sign."""
        scaled = (math.expm1(epsilon) + rate) / rate
        if scaled <= 0:
            return -math.expm1(epsilon)
        cut = math.log(scaled) / shift
        return float(rate * (norm.sf(cut - shift / 2) - scaled * norm.sf(cut + shift / 2)))

    event = GaussianEvent(1 / shift, 2, PoissonSampling(rate))
    truth = float(brentq(lambda e: delta_of(e) - DELTA, 0.1, 20, xtol=1e-6))
    assert claim([event], DELTA).epsilon == pytest.approx(truth, rel=1e-3)


def balle_wang_delta(epsilon: float, noise: float) -> mpmath.mpf:
    """Balle and Wang 2018, equation 6, with 50 digits."""
    with mpmath.workdps(50):
        e, s = mpmath.mpf(epsilon), mpmath.mpf(noise)
        near, far = mpmath.ncdf(1 / (2 * s) - e * s), mpmath.ncdf(-1 / (2 * s) - e * s)
        return near - mpmath.exp(e) * far


@pytest.mark.parametrize("noise", [0.3, 1.0, 4.0, 30.0])
@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-10])
def test_exact_gaussian_with_fifty_digits(noise: float, delta: float) -> None:
    epsilon = exact_epsilon(noise, delta)
    assert float(balle_wang_delta(epsilon, noise)) == pytest.approx(delta, rel=1e-6)


def test_the_grid_agrees_with_the_closed_form() -> None:
    """Without sampling both ways exist: they share nothing but the mechanism."""
    for relation in Relation:
        event = GaussianEvent(5.0, 30, relation=relation)
        exact = claim([event], DELTA)
        assert exact.step == 0
        bound = upper_bound([event], DELTA)
        assert exact.epsilon * (1 - 1e-9) <= bound.epsilon <= exact.epsilon * (1 + 1e-3)
        assert lower_bound([event], DELTA, bound).epsilon <= exact.epsilon


def test_fixed_cohort_brute_force() -> None:
    """Every subset of a small population, every other client at -1: attained, so not above."""
    people, cohort, noise = 6, 2, 1.5

    def density(victim: float) -> Density:
        values = [victim, *[-1.0] * (people - 1)]
        sums = [sum(chosen) for chosen in itertools.combinations(values, cohort)]
        return lambda x: np.mean([norm.pdf(x, loc=total, scale=noise) for total in sums], axis=0)

    p, q = density(1.0), density(-1.0)
    truth = max(epsilon_by_integration(*both, DELTA, 20.0) for both in ((p, q), (q, p)))
    event = GaussianEvent(noise, 1, FixedSizeSampling(cohort / people), Relation.REPLACE_ONE)
    priced = account([event], DELTA)
    assert priced.lower_bound <= truth * (1 + 1e-6)
    assert truth * (1 - 1e-6) <= priced.claim <= truth * (1 + 1e-3)


def test_fixed_cohort_lies_between_its_brackets() -> None:
    event = GaussianEvent(2.0, 50, FixedSizeSampling(0.05), Relation.REPLACE_ONE)
    attained = GaussianEvent(1.0, 50, PoissonSampling(0.05))
    found = claim([event], DELTA).epsilon
    assert claim([attained], DELTA).epsilon * (1 - 1e-3) <= found
    assert found <= claim([GaussianEvent(2.0, 50, relation=Relation.REPLACE_ONE)], DELTA).epsilon
    zero_out = GaussianEvent(2.0, 50, FixedSizeSampling(0.05), Relation.ZERO_OUT)
    assert claim([zero_out], DELTA).epsilon == pytest.approx(found, rel=1e-9)


@pytest.mark.parametrize(
    "pair",
    [
        Removed(1.0, 0.1),
        Added(1.0, 0.1),
        Replaced(1.0, 0.1),
        Replaced(20.0, 0.1),
        FixedSize(2.0, 0.1),
    ],
    ids=lambda pair: type(pair).__name__,
)
def test_masses_are_two_distributions_with_the_losses_of_their_cells(pair: Pair) -> None:
    reach = max(abs(end) for end in pair.span())
    edges = np.linspace(-reach - 0.1, reach + 0.1, 4001)
    edges[2000] = 0.0
    masses = pair.masses(edges)
    assert masses.p.sum() + masses.below + masses.above + masses.at_zero == pytest.approx(1)
    assert masses.q.sum() + masses.at_zero == pytest.approx(1, abs=1e-9)
    heavy = (masses.p > 1e-12) & (masses.q > 1e-12)
    ratio = np.log(masses.p[heavy] / masses.q[heavy])
    assert np.all(ratio >= edges[:-1][heavy] - 1e-6)
    assert np.all(ratio <= edges[1:][heavy] + 1e-6)


def test_any_grid_is_valid_and_finer_ones_are_smaller() -> None:
    event = [GaussianEvent(1.0, 100, PoissonSampling(0.01))]
    found = [epsilon_on_grid(event, DELTA, step, upper=True) for step in (8e-3, 4e-3, 2e-3, 1e-3)]
    assert found == sorted(found, reverse=True)
    lower = [epsilon_on_grid(event, DELTA, step, upper=False) for step in (4e-3, 2e-3, 1e-3)]
    assert lower == sorted(lower)
    assert lower[-1] <= found[-1]


@pytest.mark.parametrize(
    "pair", [Removed(1.0, 0.1), Added(1.0, 0.1), Replaced(1.0, 0.1), FixedSize(2.0, 0.1)]
)
def test_no_more_is_cut_off_than_was_allowed(pair: Pair) -> None:
    low, high = weighty_losses(pair, 1e-9)
    masses = pair.masses(np.linspace(low, high, 4001))
    assert masses.above <= 1e-9
    assert masses.below <= 1.1e-9  # a difference to one
    assert pair.span()[0] <= low <= 0 <= high <= pair.span()[1]
    assert high - low < 0.95 * (pair.span()[1] - pair.span()[0])


def test_rare_sampling_needs_a_small_part_of_the_span_and_says_the_same() -> None:
    event = GaussianEvent(0.7, rounds=1000, sampling=PoissonSampling(1e-4))
    pair = Removed(1 / 0.7, 1e-4)
    assert weighty_losses(pair, 1e-14)[1] < pair.span()[1] / 4
    # 0.03830170 was computed on the same grid over the whole span.
    found = epsilon_on_grid([event], 1e-5, 2.45059397861862e-05, upper=True)
    assert found == pytest.approx(0.03830170383, rel=1e-5)


def test_different_releases_add_up_to_no_more_than_their_sum() -> None:
    first = GaussianEvent(1.0, 50, PoissonSampling(0.01))
    second = GaussianEvent(2.0, 20, PoissonSampling(0.05))
    plain = GaussianEvent(8.0, 3)
    together = account([first, second, plain], DELTA)
    alone = [claim([event], DELTA / 3).epsilon for event in (first, second, plain)]
    assert max(alone) * 0.9 < together.claim < sum(alone)
    assert together.lower_bound <= together.claim <= together.rdp
    halves = [GaussianEvent(1.0, 25, PoissonSampling(0.01))] * 2
    assert claim(halves, DELTA).epsilon == pytest.approx(claim([first], DELTA).epsilon, rel=1e-3)


def test_banded_sensitivity_by_trying_every_pattern() -> None:
    """All sets of participations and all signs, on the matrix itself."""
    rounds, separation, participations = 10, 3, 3
    coefficients = np.zeros(rounds)
    coefficients[:separation] = sqrt_coefficients(separation)
    matrix = np.array(
        [[coefficients[i - j] if i >= j else 0.0 for j in range(rounds)] for i in range(rounds)]
    )
    worst = 0.0
    for count in range(1, participations + 1):
        for chosen in itertools.combinations(range(rounds), count):
            if all(b - a >= separation for a, b in itertools.pairwise(chosen)):
                for signs in itertools.product((1, -1), repeat=count):
                    moved = matrix[:, chosen] @ np.array(signs)
                    worst = max(worst, float(np.linalg.norm(moved)))
    found = banded_toeplitz(rounds, separation, participations)
    assert found.sensitivity == pytest.approx(worst, rel=1e-12)
    factor = np.tril(np.ones((rounds, rounds))) @ np.linalg.inv(matrix)
    error = np.linalg.norm(factor, axis=1).max() * worst
    assert found.max_error == pytest.approx(error, rel=1e-12)


SAMPLINGS: list[tuple[Callable[[float], Sampling], Relation]] = [
    (PoissonSampling, Relation.ADD_OR_REMOVE),
    (PoissonSampling, Relation.REPLACE_ONE),
    (FixedSizeSampling, Relation.REPLACE_ONE),
    (lambda _: NoSampling(), Relation.ZERO_OUT),
]


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(SAMPLINGS),
    st.floats(0.6, 6.0),
    st.floats(0.005, 0.5),
    st.integers(1, 200),
    st.floats(-8, -3),
)
def test_monotone(
    scheme: tuple[Callable[[float], Sampling], Relation],
    noise: float,
    rate: float,
    rounds: int,
    exponent: float,
) -> None:
    """More noise costs less; more rounds, a higher rate, a smaller delta cost more."""
    sampling, relation = scheme
    delta = 10**exponent

    def cost(noise: float, rate: float, rounds: int, delta: float) -> float:
        event = GaussianEvent(noise, rounds, sampling(rate), relation)
        return claim([event], delta).epsilon

    base, slack = cost(noise, rate, rounds, delta), 1 + 5e-4
    assert cost(noise * 1.2, rate, rounds, delta) <= base * slack
    assert cost(noise, rate, rounds * 2, delta) * slack >= base
    assert cost(noise, min(1.0, rate * 1.5), rounds, delta) * slack >= base
    assert cost(noise, rate, rounds, delta / 10) * slack >= base
