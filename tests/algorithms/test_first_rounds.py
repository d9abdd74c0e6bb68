"""Rounds that can be computed by hand, and what one algorithm becomes of another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from anabranch.algorithms import (
    Algorithm,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedDyn,
    FedExP,
    FedNova,
    FedProx,
    FedYogi,
    LocalWork,
    RoundContext,
    Scaffold,
    ServerState,
)
from anabranch.testing.algorithm import as_update, first_memory, folded, update_sections
from anabranch.updates import Vector


def work(*delta: float, steps: int = 1, rate: float = 1.0) -> LocalWork:
    return LocalWork(np.float32(delta), steps, 10, steps * rate, float(steps))


def one_round(
    algorithm: Algorithm,
    state: ServerState,
    works: Sequence[LocalWork],
    weights: Sequence[float] | None = None,
    enrolled: int | None = None,
    factor: float = 1.0,
) -> ServerState:
    dim = len(state.model)
    broadcast, memory = algorithm.broadcast(state), first_memory(algorithm, dim)
    updates = [
        as_update(algorithm.client_update(broadcast, memory, one)[0], weight)
        for one, weight in zip(works, weights or [1.0] * len(works), strict=True)
    ]
    total = folded(update_sections(algorithm, dim), updates)
    context = RoundContext(1, clients=enrolled or len(works), rate_factor=factor)
    return algorithm.server_update(state, total, context)


def zeros(dim: int = 1) -> Vector:
    return np.zeros(dim, np.float32)


def test_fedavg() -> None:
    """(1 * 4 + 3 * 8) / 4 = 7, halved by the server's step, halved again by the schedule."""
    algorithm = FedAvg(server_learning_rate=0.5)
    state = one_round(algorithm, algorithm.init(zeros()), [work(4), work(8)], [1, 3], factor=0.5)
    assert state.model.tolist() == [1.75]


def test_fedavgm() -> None:
    """Mean 2: m = 2, then 0.5 * 2 + 2 = 3; w = 0.25 * 2, then + 0.25 * 3."""
    algorithm = FedAvgM(beta=0.5, server_learning_rate=0.25)
    state = one_round(algorithm, algorithm.init(zeros()), [work(1), work(3)])
    assert state.arrays()["momentum"].tolist() == [2.0]
    assert state.model.tolist() == [0.5]
    assert one_round(algorithm, state, [work(2)]).model.tolist() == [1.25]


def test_fedadagrad() -> None:
    """tau 3, D = 4: v = 9 + 16 = 25, w = 2 * 4 / (5 + 3) = 1."""
    algorithm = FedAdagrad(tau=3, server_learning_rate=2)
    state = one_round(algorithm, algorithm.init(zeros()), [work(4)])
    assert state.arrays()["variance"].tolist() == [25.0]
    assert state.model.tolist() == [1.0]


def test_fedadam() -> None:
    """tau 1, D = 7, both decays 0.5: m = 3.5, v = 0.5 + 24.5 = 25, w = 12 * 3.5 / (5 + 1) = 7."""
    algorithm = FedAdam(tau=1, beta1=0.5, beta2=0.5, server_learning_rate=12)
    state = one_round(algorithm, algorithm.init(zeros()), [work(7)])
    assert state.arrays()["momentum"].tolist() == [3.5]
    assert state.arrays()["variance"].tolist() == [25.0]
    assert state.model.tolist() == [7.0]


def test_fedyogi() -> None:
    """tau 1, D = 4: v = 1 + 0.5 * 16 = 9, m = 2, w = 2 * 2 / (3 + 1) = 1; then D = 2:
    v = 9 - 0.5 * 4 = 7 (Adam would give 6.5)."""
    algorithm = FedYogi(tau=1, beta1=0.5, beta2=0.5, server_learning_rate=2)
    state = one_round(algorithm, algorithm.init(zeros()), [work(4)])
    assert state.arrays()["variance"].tolist() == [9.0]
    assert state.model.tolist() == [1.0]
    assert one_round(algorithm, state, [work(2)]).arrays()["variance"].tolist() == [7.0]


def test_adaptive_servers_do_not_correct_bias() -> None:
    """beta1 0, beta2 0.99: the first step is eta_s / sqrt(0.01) = 10 eta_s; corrected, eta_s."""
    algorithm = FedAdam(tau=1e-6, beta1=0, beta2=0.99, server_learning_rate=0.01)
    state = one_round(algorithm, algorithm.init(zeros()), [work(5)])
    assert state.model[0] == pytest.approx(0.1, rel=1e-5)


def test_fednova() -> None:
    """Deltas 2 in 1 step and 12 in 3, weights 1 and 3: mean of 2 and 4 is 3.5, tau is 2.5."""
    algorithm = FedNova()
    works = [work(2, steps=1), work(12, steps=3)]
    state = one_round(algorithm, algorithm.init(zeros()), works, [1, 3])
    assert state.model.tolist() == [8.75]


def test_scaffold() -> None:
    """Two of four clients, K = 2 steps of 0.5 (s = 1): changes are -Delta; c gets a quarter."""
    algorithm = Scaffold()
    works = [work(-4, steps=2, rate=0.5), work(2, steps=2, rate=0.5)]
    state = one_round(algorithm, algorithm.init(zeros()), works, [1, 9], enrolled=4)
    assert state.model.tolist() == [-1.0]  # uniform, whatever the weights
    assert state.arrays()["control"].tolist() == [0.5]
    broadcast = algorithm.broadcast(state)
    correction = algorithm.client_correction(broadcast, {"control": np.float32([4.0])})
    assert correction.drift is not None
    assert correction.drift.tolist() == [-3.5]
    again, kept = algorithm.client_update(
        broadcast, {"control": np.float32([4.0])}, work(1, steps=4, rate=0.5)
    )
    assert kept["control"].tolist() == [4.0 - 0.5 - 1 / 2]
    assert np.asarray(again["control"]).tolist() == [-1.0]


def test_feddyn() -> None:
    """alpha 0.5, deltas 2 and 4 of two among four: h = -0.5 * 6 / 4, w = 3 + 1.5."""
    algorithm = FedDyn(alpha=0.5)
    state = one_round(algorithm, algorithm.init(zeros()), [work(2), work(4)], enrolled=4)
    assert state.arrays()["gradient"].tolist() == [-0.75]
    assert state.model.tolist() == [4.5]
    _, kept = algorithm.client_update({}, {"gradient": np.float32([1.0])}, work(2))
    assert kept["gradient"].tolist() == [0.0]


def test_fedexp() -> None:
    """Four unit deltas at right angles: D = 1/4 each, ||D||^2 = 1/4, eta = 1 / (2 * 0.3125)."""
    algorithm = FedExP(epsilon=0.0625)
    works = [work(*row) for row in np.eye(4)]
    state = one_round(algorithm, algorithm.init(zeros(4)), works)
    assert np.allclose(state.model, 1.6 / 4)
    assert np.allclose(algorithm.evaluated_model(state), 0.8 / 4)


def test_fedexp_never_steps_below_one() -> None:
    algorithm = FedExP(epsilon=100)
    state = one_round(algorithm, algorithm.init(zeros()), [work(1), work(3)])
    assert state.model.tolist() == [2.0]


@pytest.mark.parametrize(
    "algorithm",
    [
        FedProx(mu=0.3),
        FedAvgM(beta=0, server_learning_rate=1),
        FedExP(epsilon=1e6),
        FedNova(),
        Scaffold(),
    ],
    ids=lambda algorithm: algorithm.name,
)
def test_with_equal_work_the_first_round_is_fedavg(algorithm: Algorithm) -> None:
    works = [work(1, -2, steps=4), work(5, 0.5, steps=4), work(-3, 1.5, steps=4)]
    model = np.float32([0.25, -4])
    wanted = one_round(FedAvg(), FedAvg().init(model), works).model
    assert np.array_equal(one_round(algorithm, algorithm.init(model), works).model, wanted)


def test_a_state_of_another_algorithm_is_refused() -> None:
    with pytest.raises(TypeError, match="ScaffoldState"):
        Scaffold().broadcast(FedAvg().init(zeros()))
