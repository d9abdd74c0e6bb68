"""A slow federation in float64 that does what the papers say, written without the package's parts.

Only the frozen values of the plan are read. Each client has rows (X, y) and the loss
1/(2 n) sum (X w + b - y)^2 over a batch; ``b`` may be kept local. When the model has a running
statistic, a client replaces it by 0.9 times the old value plus 0.1 times the variance of its y.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from anabranch.plan import Plan

Array = NDArray[np.float64]
Rows = tuple[Array, Array]

FEATURES = 3


@dataclass
class Client:
    """One client's rows and everything that it keeps."""

    X: Array
    y: Array
    kept: dict[str, Array] = field(default_factory=dict)
    local: dict[str, Array] = field(default_factory=dict)


@dataclass
class Sent:
    """What one client answers."""

    delta: Array
    weight: float
    work: float
    control: Array | None = None


def names(plan: Plan) -> list[str]:
    """The tensors of the model."""
    return ["w", "b"] if plan.model.normalisation == "refuse" else ["w", "b", "running"]


def is_local(plan: Plan, name: str) -> bool:
    """Whether the tensor stays at the client."""
    if name == "running":
        return plan.model.normalisation == "local"
    return name in plan.model.keep_local


def averaged(plan: Plan) -> list[str]:
    """The tensors that are shared."""
    return [name for name in names(plan) if not is_local(plan, name)]


def flat(values: dict[str, Array], order: Sequence[str]) -> Array:
    """The tensors of ``order`` back to back."""
    return np.concatenate([values[name] for name in order])


def split(vector: Array, like: dict[str, Array], order: Sequence[str]) -> dict[str, Array]:
    """The inverse of `flat`."""
    found, place = {}, 0
    for name in order:
        found[name] = vector[place : place + len(like[name])]
        place += len(like[name])
    return found


def batches(plan: Plan, n: int) -> list[slice]:
    """The batches of one round, without shuffling."""
    size = plan.local.batch_size or n
    once = [slice(start, min(start + size, n)) for start in range(0, n, size)]
    if plan.local.steps is not None:
        return [once[k % len(once)] for k in range(plan.local.steps)]
    return once * (plan.local.epochs or 1)


def factor(schedule: object, round_: int) -> float:
    """Constant and exponential schedules."""
    gamma = getattr(schedule, "gamma", None)
    return 1.0 if gamma is None else float(gamma) ** (round_ - 1)


def gradient(value: dict[str, Array], X: Array, y: Array) -> dict[str, Array]:
    """The gradient of the loss of one batch."""
    error = X @ value["w"] + value["b"] - y
    return {"w": X.T @ error / len(y), "b": np.array([error.mean()])}


def train(
    plan: Plan, client: Client, model: dict[str, Array], rate: float, pull: float, drift: Array
) -> tuple[dict[str, Array], int]:
    """The model after local training, and the number of steps."""
    local, optimizer = plan.local, plan.local.optimizer
    shared = [name for name in averaged(plan) if name != "running"]
    order = [*shared, *(name for name in ("w", "b") if is_local(plan, name))]
    w = flat(model, order)
    anchor, inside = w.copy(), sum(len(model[name]) for name in shared)
    first, second = np.zeros_like(w), np.zeros_like(w)
    steps = batches(plan, len(client.y))
    for k, batch in enumerate(steps, start=1):
        g = flat(gradient(split(w, model, order), client.X[batch], client.y[batch]), order)
        if local.clip_norm is not None:
            g = g * min(1.0, local.clip_norm / np.linalg.norm(g))
        g[:inside] += pull * (w - anchor)[:inside] + drift[:inside]
        if optimizer.kind == "sgd":
            g = g + optimizer.weight_decay * w
            first = optimizer.momentum * first + g
            w = w - rate * (g + optimizer.momentum * first if optimizer.nesterov else first)
            continue
        g = g if optimizer.decoupled else g + optimizer.weight_decay * w
        shrink = optimizer.weight_decay if optimizer.decoupled else 0.0
        first = optimizer.beta1 * first + (1 - optimizer.beta1) * g
        second = optimizer.beta2 * second + (1 - optimizer.beta2) * g**2
        move = first / (1 - optimizer.beta1**k)
        move = move / (np.sqrt(second / (1 - optimizer.beta2**k)) + optimizer.eps)
        w = w - rate * shrink * w - rate * move
    after = {**model, **split(w, model, order)}
    if "running" in model:
        after["running"] = 0.9 * model["running"] + 0.1 * np.var(client.y)
    return after, len(steps)


def amount_of_work(plan: Plan, rate: float, steps: int, pull: float) -> float:
    """||a||_1 by running the linear recursion once for each gradient, one after the other."""
    optimizer = plan.local.optimizer
    total = 0.0
    for impulse in range(steps):
        x = velocity = 0.0
        for step in range(steps):
            g = (1.0 if step == impulse else 0.0) + (pull + optimizer.weight_decay) * x
            velocity = optimizer.momentum * velocity + g
            x -= rate * (g + optimizer.momentum * velocity if optimizer.nesterov else velocity)
        total += abs(x / rate)
    return total


def weight(plan: Plan, examples: int, steps: int) -> float:
    """What a client counts."""
    rule = plan.weighting
    if rule.kind == "examples":
        return float(min(examples, rule.cap or examples))
    return {"uniform": 1.0, "steps": float(steps), "custom": math.hypot(examples, steps)}[rule.kind]


class Federation:
    """The server and its clients."""

    def __init__(self, plan: Plan, rows: Sequence[Rows], start: dict[str, Array]) -> None:
        self.plan, self.algorithm = plan, plan.algorithm
        self.order = averaged(plan)
        self.model = {name: start[name].copy() for name in names(plan)}
        self.clients = [Client(X, y) for X, y in rows]
        size = len(self.vector())
        self.m, self.h, self.c = np.zeros(size), np.zeros(size), np.zeros(size)
        self.v = np.full(size, getattr(self.algorithm, "tau", 0.0) ** 2)
        for client in self.clients:
            client.kept = {"c": np.zeros(size), "h": np.zeros(size)}
            client.local = {n: self.model[n] for n in self.model if n not in self.order}

    def vector(self) -> Array:
        """The shared part of the model."""
        return flat(self.model, self.order)

    def round(self, number: int, cohort: Sequence[int]) -> None:
        """One round."""
        sent = [self.ask(self.clients[k], number) for k in cohort]
        schedule = self.plan.rounds.server_schedule
        step = self.algorithm.server_learning_rate * factor(schedule, number)
        moved = self.vector() + self.server(sent, step)
        self.model.update(split(moved, self.model, self.order))

    def ask(self, client: Client, number: int) -> Sent:
        """Local training and what the client sends."""
        name, plan = self.algorithm.name, self.plan
        rate = plan.local.learning_rate * factor(plan.local.schedule, number)
        pull = getattr(self.algorithm, "mu", getattr(self.algorithm, "alpha", 0.0))
        drift = np.zeros_like(self.c)
        if name == "scaffold":
            drift = self.c - client.kept["c"]
        if name == "feddyn":
            drift = -client.kept["h"]
        before = {**self.model, **client.local}
        after, steps = train(plan, client, before, rate, pull, drift)
        client.local = {n: after[n] for n in client.local}
        delta = flat(after, self.order) - flat(before, self.order)
        control, work = None, float(steps)
        if name == "scaffold":
            control = -self.c - delta / (steps * rate)
            client.kept["c"] = client.kept["c"] + control
        if name == "feddyn":
            client.kept["h"] = client.kept["h"] - self.algorithm.alpha * delta
        if name == "fednova":
            work = amount_of_work(plan, rate, steps, pull)
            delta = delta / work
        for stage in plan.updates.stages:
            delta = delta * min(1.0, stage.max_norm / np.linalg.norm(delta))
        return Sent(delta, weight(plan, len(client.y), steps), work, control)

    def server(self, sent: Sequence[Sent], step: float) -> Array:
        """What is added to the model."""
        a, name = self.algorithm, self.algorithm.name
        moves = np.stack([s.delta for s in sent])
        p = np.array([s.weight for s in sent])
        p = p / p.sum()
        mean, uniform = p @ moves, moves.mean(axis=0)
        if name in ("fedavg", "fedprox"):
            return step * mean
        if name == "fednova":
            return step * (p @ np.array([s.work for s in sent])) * mean
        if name == "fedavgm":
            self.m = a.beta * self.m + mean
            return step * self.m
        if name in ("fedadagrad", "fedadam", "fedyogi"):
            return self.adaptive(mean, step)
        if name == "scaffold":
            self.c = self.c + np.sum([s.control for s in sent], axis=0) / len(self.clients)
            return step * uniform
        if name == "feddyn":
            self.h = self.h - a.alpha * moves.sum(axis=0) / len(self.clients)
            return step * (uniform - self.h / a.alpha)
        assert name == "fedexp"
        ratio = (p @ (moves**2).sum(axis=1)) / (2 * (mean @ mean + a.epsilon))
        return step * max(1.0, ratio) * mean

    def adaptive(self, mean: Array, step: float) -> Array:
        """Adagrad, Adam and Yogi at the server."""
        a, square = self.algorithm, mean**2
        self.m = a.beta1 * self.m + (1 - a.beta1) * mean
        if a.name == "fedadagrad":
            self.v = self.v + square
        elif a.name == "fedadam":
            self.v = a.beta2 * self.v + (1 - a.beta2) * square
        else:
            self.v = self.v - (1 - a.beta2) * square * np.sign(self.v - square)
        return step * self.m / (np.sqrt(self.v) + a.tau)
