"""FedNova's coefficients against brute force: run the real optimizer on single impulses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.learners import SGD, Adam, LocalTraining, gradient_coefficient
from anabranch.learners.optim import Descent, Pull


def impulse_sum(training: LocalTraining, rate: float, steps: int, pull: float) -> float:
    """Sum over k of |a_k|: the delta when only gradient k is 1, in units of -rate.

    Weight decay pulls to 0 and the correction to the anchor; both start there.
    """
    total = 0.0
    for hit in range(steps):
        w, g = np.zeros(1, np.float64), np.zeros(1, np.float64)
        anchor = np.zeros(1, np.float64)
        descent = Descent(training, rate, [w], g, Pull(pull, anchor, None), np.zeros_like)
        for step in range(steps):
            g[0] = 1.0 if step == hit else 0.0
            descent.step()
        total += abs(w[0]) / rate
    return total


@given(
    momentum=st.sampled_from([0.0, 0.5, 0.9]),
    nesterov=st.booleans(),
    decay=st.sampled_from([0.0, 0.1]),
    pull=st.sampled_from([0.0, 0.3, 2.0]),
    steps=st.integers(1, 12),
    rate=st.sampled_from([0.01, 0.3, 0.9]),
)
def test_impulses(
    momentum: float, nesterov: bool, decay: float, pull: float, steps: int, rate: float
) -> None:
    rule = SGD(momentum=momentum, nesterov=nesterov and momentum > 0, weight_decay=decay)
    training = LocalTraining(optimizer=rule)
    expected = impulse_sum(training, rate, steps, pull)
    assert gradient_coefficient(training, rate, steps, pull) == pytest.approx(expected)


@pytest.mark.parametrize("steps", [1, 2, 7, 30])
def test_closed_forms_of_the_paper(steps: int) -> None:
    rho, rate, mu = 0.9, 0.1, 0.5
    heavy = LocalTraining(optimizer=SGD(momentum=rho))
    momentum = (steps - rho * (1 - rho**steps) / (1 - rho)) / (1 - rho)
    assert gradient_coefficient(heavy, rate, steps, 0) == pytest.approx(momentum)
    proximal = (1 - (1 - rate * mu) ** steps) / (rate * mu)
    assert gradient_coefficient(LocalTraining(), rate, steps, mu) == pytest.approx(proximal)
    assert gradient_coefficient(LocalTraining(), rate, steps, 0) == steps


def test_adam_has_no_known_coefficients() -> None:
    with pytest.raises(ValueError, match="SGD only"):
        gradient_coefficient(LocalTraining(optimizer=Adam()), 0.1, 3, 0)
