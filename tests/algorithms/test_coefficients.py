"""FedNova's coefficients against the local optimizer itself, one gradient at a time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.learners import SGD, Adam, LocalTraining, gradient_coefficient


def by_impulses(optimizer: SGD, rate: float, steps: int, pull: float) -> float:
    """Train a scalar with gradient 1 at one step and 0 at all others; add up how far it goes."""
    total = 0.0
    for hit in range(steps):
        w, velocity = 0.0, 0.0
        for step in range(steps):
            gradient = float(step == hit) + (pull + optimizer.weight_decay) * w
            velocity = optimizer.momentum * velocity + gradient
            direction = velocity
            if optimizer.nesterov:
                direction = gradient + optimizer.momentum * velocity
            w -= rate * direction
        total += abs(w) / rate
    return total


@given(
    rho=st.floats(0, 0.95),
    nesterov=st.booleans(),
    decay=st.floats(0, 0.5),
    pull=st.floats(0, 2),
    rate=st.floats(1e-3, 0.5),
    steps=st.integers(1, 12),
)
def test_coefficients_are_those_of_the_optimizer(
    rho: float, nesterov: bool, decay: float, pull: float, rate: float, steps: int
) -> None:
    optimizer = SGD(momentum=rho, nesterov=nesterov and rho > 0, weight_decay=decay)
    training = LocalTraining(steps=steps, optimizer=optimizer)
    wanted = by_impulses(optimizer, rate, steps, pull)
    got = gradient_coefficient(training, rate, steps, pull)
    assert got == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("steps", [1, 2, 7, 50])
def test_closed_forms_of_the_paper(steps: int) -> None:
    rho, mu, rate = 0.9, 0.3, 0.1
    momentum = LocalTraining(steps=steps, optimizer=SGD(momentum=rho))
    wanted = (steps - rho * (1 - rho**steps) / (1 - rho)) / (1 - rho)
    assert gradient_coefficient(momentum, rate, steps, 0.0) == pytest.approx(wanted)
    plain = LocalTraining(steps=steps)
    proximal = (1 - (1 - rate * mu) ** steps) / (rate * mu)
    assert gradient_coefficient(plain, rate, steps, mu) == pytest.approx(proximal)
    assert gradient_coefficient(plain, rate, steps, 0.0) == steps


def test_unknown_coefficients_are_refused() -> None:
    with pytest.raises(ValueError, match="SGD only"):
        gradient_coefficient(LocalTraining(optimizer=Adam()), 0.1, 3, 0.0)
