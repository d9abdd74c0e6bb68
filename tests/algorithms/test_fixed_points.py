"""Where each algorithm converges, exactly: against linear systems solved by NumPy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from quadratics import Array, Driver, Quadratic, balance, fixed_point, optimum, quadratics, shares

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
    Scaffold,
)

START = np.float32([2.0, -1.0, 0.5])
CLIENTS = quadratics()
P = shares(CLIENTS)
UNIFORM = np.full(len(CLIENTS), 1 / len(CLIENTS))


def fedavg_limit(clients: list[Quadratic], mu: float = 0.0) -> Array:
    """sum_i p_i S_i A_i (w - b_i) = 0; without pull S_i A_i is I - (I - eta A_i)^K."""
    p = shares(clients)
    return balance((s * c.accumulated(mu) @ c.A for s, c in zip(p, clients, strict=True)), clients)


def fednova_limit(clients: list[Quadratic], coefficients: list[float], mu: float = 0.0) -> Array:
    """sum_i p_i S_i A_i / a_i (w - b_i) = 0."""
    p = shares(clients)
    return balance(
        (s * c.accumulated(mu) @ c.A / a for s, c, a in zip(p, clients, coefficients, strict=True)),
        clients,
    )


def deltas(w: Array, drifts: list[Array], mu: float = 0.0) -> list[Array]:
    return [
        -c.accumulated(mu) @ (c.A @ (w - c.b) + r) for c, r in zip(CLIENTS, drifts, strict=True)
    ]


def averaging_round(w: Array, mu: float = 0.0) -> Array:
    """FedAvg's and FedProx's state is the model alone."""
    moves = deltas(w, [np.zeros(3)] * 4, mu)
    return w + sum(p * d for p, d in zip(P, moves, strict=True))


def fednova_round(w: Array) -> Array:
    """tau_eff = sum p_i K_i times the mean of Delta_i / K_i."""
    moves = deltas(w, [np.zeros(3)] * 4)
    tau = sum(p * c.steps for p, c in zip(P, CLIENTS, strict=True))
    return w + tau * sum(p * d / c.steps for p, d, c in zip(P, moves, CLIENTS, strict=True))


def fedavgm_round(z: Array) -> Array:
    """State (w, m)."""
    w, m = z[:3], z[3:]
    moves = deltas(w, [np.zeros(3)] * 4)
    m = 0.9 * m + sum(p * d for p, d in zip(P, moves, strict=True))
    return np.concatenate([w + 0.1 * m, m])


def scaffold_round(z: Array) -> Array:
    """State (w, c_1 .. c_4); c is their mean."""
    w, own = z[:3], z[3:].reshape(4, 3)
    c = own.mean(axis=0)
    moves = deltas(w, [c - mine for mine in own])
    own = np.stack(
        [mine - c - d / (q.steps * q.rate) for mine, d, q in zip(own, moves, CLIENTS, strict=True)]
    )
    return np.concatenate([w + np.mean(moves, axis=0), own.ravel()])


def feddyn_round(z: Array, alpha: float = 1.0) -> Array:
    """State (w, h_1 .. h_4); h is their mean."""
    w, own = z[:3], z[3:].reshape(4, 3)
    moves = np.stack(deltas(w, [-mine for mine in own], mu=alpha))
    own = own - alpha * moves
    return np.concatenate([w + moves.mean(axis=0) - own.mean(axis=0) / alpha, own.ravel()])


def test_closed_form_of_local_training() -> None:
    """S A = I - (I - eta A)^K without pull: the oracle itself, checked another way."""
    for client in CLIENTS:
        power = np.linalg.matrix_power(np.eye(3) - client.rate * client.A, client.steps)
        assert np.allclose(client.accumulated() @ client.A, np.eye(3) - power)


def test_fedavg_rests_at_its_biased_point() -> None:
    model = Driver(FedAvg(), CLIENTS, START).run(120)
    assert np.allclose(model, fedavg_limit(CLIENTS), atol=1e-6)
    assert np.linalg.norm(model - optimum(CLIENTS, P)) > 0.05


def test_fedavg_with_one_equal_step_is_gradient_descent() -> None:
    one = [Quadratic(c.A, c.b, 1, 0.2, c.weight) for c in CLIENTS]
    assert np.allclose(Driver(FedAvg(), one, START).run(200), optimum(one, P), atol=1e-6)


@pytest.mark.parametrize("mu", [0.01, 0.1, 1.0])
def test_fedprox_rests_at_its_biased_point(mu: float) -> None:
    model = Driver(FedProx(mu=mu), CLIENTS, START).run(200)
    assert np.allclose(model, fedavg_limit(CLIENTS, mu), atol=1e-6)


@pytest.mark.parametrize(
    ("algorithm", "round_map", "size"),
    [
        (FedAvg(), averaging_round, 3),
        (FedProx(mu=0.5), lambda w: averaging_round(w, 0.5), 3),
        (FedNova(), fednova_round, 3),
        (FedAvgM(), fedavgm_round, 6),
        (Scaffold(), scaffold_round, 15),
        (FedDyn(alpha=1.0), feddyn_round, 15),
    ],
    ids=["fedavg", "fedprox", "fednova", "fedavgm", "scaffold", "feddyn"],
)
def test_rounds_follow_the_textbook(
    algorithm: Algorithm, round_map: Callable[[Array], Array], size: int
) -> None:
    """Not only the limit: each of thirty rounds is the affine map of the theory."""
    driver, z = Driver(algorithm, CLIENTS, START), np.zeros(size)
    z[:3] = START
    for _ in range(30):
        z = round_map(z)
        assert np.allclose(driver.round(), z[:3], atol=1e-5)
    rest, radius = fixed_point(round_map, size)
    assert radius < 1
    assert np.allclose(driver.run(400), rest[:3], atol=1e-5)


def test_scaffold_and_feddyn_reach_the_true_optimum_of_the_uniform_mean() -> None:
    wanted = optimum(CLIENTS, UNIFORM)
    for round_map in (scaffold_round, feddyn_round):
        assert np.allclose(fixed_point(round_map, 15)[0][:3], wanted)
    assert np.linalg.norm(wanted - fedavg_limit(CLIENTS)) > 0.05


def test_fedavgm_rests_where_fedavg_does() -> None:
    assert np.allclose(fixed_point(fedavgm_round, 6)[0][:3], fedavg_limit(CLIENTS))


def test_fednova_rests_at_the_normalised_balance() -> None:
    model = Driver(FedNova(), CLIENTS, START).run(200)
    assert np.allclose(model, fednova_limit(CLIENTS, [c.steps for c in CLIENTS]), atol=1e-6)


def test_fednova_with_momentum_uses_the_coefficients_of_the_paper() -> None:
    rho, clients = 0.5, quadratics(momentum=0.5)
    closed = [(c.steps - rho * (1 - rho**c.steps) / (1 - rho)) / (1 - rho) for c in clients]
    model = Driver(FedNova(), clients, START).run(300)
    assert np.allclose(model, fednova_limit(clients, closed), atol=1e-6)


def test_fednova_with_a_proximal_term_uses_the_coefficients_of_the_paper() -> None:
    mu = 0.5
    closed = [(1 - (1 - c.rate * mu) ** c.steps) / (c.rate * mu) for c in CLIENTS]
    model = Driver(FedNova(mu=mu), CLIENTS, START).run(300)
    assert np.allclose(model, fednova_limit(CLIENTS, closed, mu), atol=1e-6)


def test_fednova_tends_to_the_weighted_optimum_as_steps_shrink() -> None:
    """Its bias is of first order in the step size; FedAvg's stays, from the unequal steps."""
    biases = {}
    for rate in (1e-2, 1e-3, 1e-4):
        small = [Quadratic(c.A, c.b, c.steps, rate, c.weight) for c in CLIENTS]
        wanted = optimum(small, P)
        nova = fednova_limit(small, [c.steps for c in small])
        biases[rate] = float(np.linalg.norm(nova - wanted))
        assert np.linalg.norm(fedavg_limit(small) - wanted) > 0.05
    assert biases[1e-3] / biases[1e-2] == pytest.approx(0.1, rel=0.1)
    assert biases[1e-4] / biases[1e-3] == pytest.approx(0.1, rel=0.01)


def test_fednova_is_exact_when_every_curvature_is_the_same_and_steps_are_equal() -> None:
    alike = [Quadratic(1.5 * np.eye(3), c.b, 4, 0.1, c.weight) for c in CLIENTS]
    assert np.allclose(Driver(FedNova(), alike, START).run(100), optimum(alike, P), atol=1e-6)


@pytest.mark.parametrize(
    "algorithm",
    [
        FedAdagrad(server_learning_rate=0.3),
        FedAdam(server_learning_rate=0.05, tau=0.1),
        FedYogi(server_learning_rate=0.05, tau=0.1),
    ],
    ids=["fedadagrad", "fedadam", "fedyogi"],
)
def test_adaptive_servers_rest_where_fedavg_does(algorithm: Algorithm) -> None:
    """A zero mean update is the only rest; eta_s < tau keeps Adam and Yogi from swinging."""
    model = Driver(algorithm, CLIENTS, START).run(1500)
    assert np.allclose(model, fedavg_limit(CLIENTS), atol=2e-5)


def test_fedexp_rests_where_fedavg_does_when_its_step_stays_stable() -> None:
    driver = Driver(FedExP(epsilon=0.35), CLIENTS, START)
    plain = Driver(FedAvg(), CLIENTS, START)
    apart = [not np.array_equal(driver.round(), plain.round()) for _ in range(200)]
    assert any(apart)  # it did extrapolate
    evaluated = driver.algorithm.evaluated_model(driver.state)
    assert np.allclose(evaluated, fedavg_limit(CLIENTS), atol=1e-5)


def test_fedexp_is_faster_where_all_clients_agree() -> None:
    """One optimum for all, curvature in different directions: the case of the paper."""
    b, axes = np.array([1.0, -2.0, 0.5]), np.eye(3)
    clients = [Quadratic(2 * np.outer(e, e), b, 5, 0.2, 1.0) for e in axes]
    distances = {}
    for algorithm in (FedAvg(), FedExP(epsilon=1e-6)):
        driver = Driver(algorithm, clients, np.zeros(3, np.float32))
        driver.run(12)
        evaluated = algorithm.evaluated_model(driver.state)
        distances[algorithm.name] = float(np.linalg.norm(evaluated - b))
    assert distances["fedexp"] < 0.5 * distances["fedavg"]


@pytest.mark.parametrize(
    ("algorithm", "kept", "memory"),
    [(Scaffold(), "control", "control"), (FedDyn(alpha=1.0), "gradient", "gradient")],
    ids=["scaffold", "feddyn"],
)
def test_partial_participation(algorithm: Algorithm, kept: str, memory: str) -> None:
    """Three of eight a round: the server's vector stays the mean over all eight, and the model
    comes to the true optimum, which FedAvg does not even come to rest near."""
    clients = quadratics(clients=8, seed=1, rate=0.02)
    uniform = np.full(8, 1 / 8)
    rng, driver = np.random.default_rng(5), Driver(algorithm, clients, START)
    for _ in range(1500):
        driver.round(rng.choice(8, size=3, replace=False).tolist())
        mean = np.mean([m[memory].astype(np.float64) for m in driver.memories], axis=0)
        assert np.allclose(getattr(driver.state, kept), mean, atol=1e-5)
    assert np.allclose(driver.state.model, optimum(clients, uniform), atol=1e-4)


def test_scaffold_with_the_cohort_in_place_of_n_loses_the_mean() -> None:
    """The common mistake, so that the test above is known to see it."""
    clients = quadratics(clients=8, seed=1, rate=0.02)
    driver, rng = Driver(Scaffold(), clients, START), np.random.default_rng(5)
    for _ in range(10):
        driver.round(rng.choice(8, size=3, replace=False).tolist(), enrolled=3)
    mean = np.mean([m["control"] for m in driver.memories], axis=0)
    assert np.abs(driver.state.arrays()["control"] - mean).max() > 0.1


def test_weights_move_the_limit_of_averaging_only() -> None:
    """SCAFFOLD and FedDyn take uniform means, whatever the clients' weights."""
    heavy = [Quadratic(c.A, c.b, c.steps, c.rate, c.weight**2) for c in CLIENTS]
    assert np.linalg.norm(fedavg_limit(heavy) - fedavg_limit(CLIENTS)) > 0.05
    assert np.allclose(Driver(FedAvg(), heavy, START).run(150), fedavg_limit(heavy), atol=1e-6)
    same = [Driver(Scaffold(), clients, START).run(20) for clients in (CLIENTS, heavy)]
    assert np.array_equal(same[0], same[1])
