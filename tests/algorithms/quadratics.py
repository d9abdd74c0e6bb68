"""Quadratic clients, a round loop over the public functions, and closed-form oracles.

Client i has f_i(w) = 1/2 (w - b_i)^T A_i (w - b_i) and takes K_i full-gradient steps of size eta_i.
From the broadcast model w its local iterates obey, for a pull mu, a drift r and momentum rho,

    v <- rho v + A (w + x - b) + mu x + r,     x <- x - eta v,          x = v = 0 at first

which is linear in g = A (w - b) + r. So Delta_i = -S_i g with the matrix S_i of `accumulated`, one
round of an algorithm is an affine map of its state, and its fixed point is one linear system.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from anabranch.algorithms import Algorithm, Correction, LocalWork, RoundContext, ServerState
from anabranch.learners import SGD, LocalTraining, gradient_coefficient
from anabranch.testing.algorithm import as_update, first_memory, folded, update_sections
from anabranch.updates import Vector

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Quadratic:
    """One client: curvature A, optimum b, K steps of size eta, weight, local momentum."""

    A: Array
    b: Array
    steps: int
    rate: float
    weight: float
    momentum: float = 0.0

    def train(self, start: Vector, correction: Correction) -> LocalWork:
        """Local training as every learner does it: g + pull (w - anchor) + drift."""
        begin = start.astype(np.float64)
        anchor = begin if correction.anchor is None else correction.anchor
        drift = 0.0 if correction.drift is None else correction.drift
        w, velocity = begin.copy(), np.zeros_like(begin)
        for _ in range(self.steps):
            gradient = self.A @ (w - self.b) + correction.pull * (w - anchor) + drift
            velocity = self.momentum * velocity + gradient
            w = w - self.rate * velocity
        training = LocalTraining(steps=self.steps, optimizer=SGD(momentum=self.momentum))
        return LocalWork(
            delta=(w - begin).astype(np.float32),
            steps=self.steps,
            examples=int(self.weight),
            step_size_sum=self.steps * self.rate,
            coefficient=gradient_coefficient(training, self.rate, self.steps, correction.pull),
        )

    def accumulated(self, pull: float = 0.0) -> Array:
        """S with Delta = -S (A (w - b) + drift)."""
        identity = np.eye(len(self.b))
        S, R = np.zeros_like(identity), np.zeros_like(identity)
        for _ in range(self.steps):
            R = self.momentum * R + identity - (self.A + pull * identity) @ S
            S = S + self.rate * R
        return S


def quadratics(
    *, clients: int = 4, dim: int = 3, seed: int = 0, rate: float = 0.08, momentum: float = 0.0
) -> list[Quadratic]:
    """Clients that differ in curvature, optimum, steps, rate and weight."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(clients):
        basis, _ = np.linalg.qr(rng.normal(size=(dim, dim)))
        A = basis @ np.diag(rng.uniform(0.5, 3.0, size=dim)) @ basis.T
        made.append(
            Quadratic(
                A=A,
                b=rng.normal(size=dim),
                steps=2 + 3 * (number % 4),
                rate=rate * (1 + 0.25 * (number % 2)),
                weight=float(10 * (1 + number % 3)),
                momentum=momentum,
            )
        )
    return made


@dataclass
class Driver:
    """The round loop of a coordinator, cut down to the algorithm's public functions."""

    algorithm: Algorithm
    clients: Sequence[Quadratic]
    start: Vector
    state: ServerState = field(init=False)
    memories: list[dict[str, Vector]] = field(init=False)
    rounds: int = 0

    def __post_init__(self) -> None:
        self.state = self.algorithm.init(self.start)
        empty = first_memory(self.algorithm, len(self.start))
        self.memories = [dict(empty) for _ in self.clients]

    def round(self, cohort: Iterable[int] | None = None, enrolled: int | None = None) -> Vector:
        """One round with a cohort (everybody by default); returns the new model."""
        algorithm, updates = self.algorithm, []
        broadcast = algorithm.broadcast(self.state)
        for number in range(len(self.clients)) if cohort is None else cohort:
            client, memory = self.clients[number], self.memories[number]
            work = client.train(broadcast["model"], algorithm.client_correction(broadcast, memory))
            values, after = algorithm.client_update(broadcast, memory, work)
            self.memories[number] = dict(after)
            updates.append(as_update(values, client.weight))
        total = folded(update_sections(algorithm, len(self.start)), updates)
        self.rounds += 1
        context = RoundContext(self.rounds, clients=enrolled or len(self.clients))
        self.state = algorithm.server_update(self.state, total, context)
        return self.state.model

    def run(self, rounds: int) -> Vector:
        """That many rounds with everybody."""
        for _ in range(rounds):
            self.round()
        return self.state.model


def shares(clients: Sequence[Quadratic]) -> Array:
    """p_i: weights that add up to one."""
    weights = np.array([client.weight for client in clients])
    return weights / weights.sum()


def balance(matrices: Iterable[Array], clients: Sequence[Quadratic]) -> Array:
    """The w at which sum_i M_i (w - b_i) = 0."""
    stack = np.stack(list(matrices))
    right = sum(M @ client.b for M, client in zip(stack, clients, strict=True))
    return np.asarray(np.linalg.solve(stack.sum(axis=0), right))


def optimum(clients: Sequence[Quadratic], p: Array) -> Array:
    """The minimiser of sum_i p_i f_i."""
    return balance((share * c.A for share, c in zip(p, clients, strict=True)), clients)


def fixed_point(round_map: Callable[[Array], Array], size: int) -> tuple[Array, float]:
    """Where an affine map rests, and the spectral radius of its linear part."""
    offset = round_map(np.zeros(size))
    linear = np.stack([round_map(row) - offset for row in np.eye(size)], axis=1)
    radius = float(np.abs(np.linalg.eigvals(linear)).max())
    return np.asarray(np.linalg.solve(np.eye(size) - linear, offset)), radius
