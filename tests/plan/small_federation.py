"""Four clients with a linear model that go through the package's own client code and exact fold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import oracle
from numpy.typing import NDArray

from anabranch.aggregation import Accumulator, FoldPlan
from anabranch.algorithms import RoundContext
from anabranch.client import ClientProgram, Task, TaskKind, execute
from anabranch.data import Examples
from anabranch.learners import LocalResult, TrainingJob, batch_orders
from anabranch.learners.metrics import MetricSet
from anabranch.learners.optim import Descent, Pull
from anabranch.plan import Plan
from anabranch.updates import Layout, Parameter, Policy, Vector, compile_stages

SIZES = (6, 10, 14, 20)

START = {
    "w": np.array([0.5, -0.25, 0.125]),
    "b": np.array([0.75]),
    "running": np.array([1.0]),
}


def rows() -> list[oracle.Rows]:
    """Clients that differ in size, in direction and in noise; float32 values, exactly."""
    rng = np.random.default_rng(7)
    made = []
    for number, n in enumerate(SIZES):
        X = rng.normal(size=(n, oracle.FEATURES))
        truth = rng.normal(size=oracle.FEATURES) + number
        y = X @ truth + 0.5 * number + 0.1 * rng.normal(size=n)
        made.append((X.astype(np.float32).astype(float), y.astype(np.float32).astype(float)))
    return made


@dataclass(frozen=True)
class LinearLearner:
    """w and b by squared error, with a running statistic when the plan's model has one."""

    plan: Plan

    @property
    def layout(self) -> Layout:
        def policy(name: str) -> Policy:
            return Policy.LOCAL if oracle.is_local(self.plan, name) else Policy.AVERAGE

        return Layout.of(
            Parameter(name, START[name].shape, policy(name), trained=name != "running")
            for name in oracle.names(self.plan)
        )

    def initial(self, seed: int) -> Vector:
        return self.layout.flatten({n: START[n].astype(np.float32) for n in self.layout.offsets})

    def train(self, start: Vector, data: Examples, job: TrainingJob) -> LocalResult:
        layout, end = self.layout, start.copy()
        views = layout.views(end)
        trained = [p for p in layout.parameters if p.trained]
        shared = [p.name for p in trained if p.policy is Policy.AVERAGE]
        own = [p.name for p in trained if p.policy is Policy.LOCAL]
        inside = sum(views[name].size for name in shared)
        gradient = np.zeros(inside + sum(views[name].size for name in own), np.float32)
        drift = job.correction.drift
        pull = Pull(
            job.correction.pull, start[:inside].copy(), None if drift is None else drift[:inside]
        )
        parts = [end[:inside], *(views[name] for name in own)]
        descent = Descent(job.training, job.learning_rate, parts, gradient, pull, np.zeros_like)
        steps = 0
        for batch in batch_orders(len(data), job):
            x, y = data.x[batch], data.y[batch]
            error = x @ views["w"] + views["b"] - y
            by_name = {"w": x.T @ error / len(y), "b": error.mean(keepdims=True)}
            gradient[:] = np.concatenate([by_name[name] for name in (*shared, *own)])
            descent.step()
            steps += 1
        if "running" in views:
            views["running"][...] = 0.9 * views["running"] + 0.1 * np.var(data.y)
        return LocalResult(end, steps, steps * job.learning_rate, 0.0, len(data))

    def predict(self, vector: Vector, x: NDArray[np.generic]) -> NDArray[np.float32]:
        views = self.layout.views(vector)
        return np.asarray(x @ views["w"] + views["b"])[:, None]


def program_of(plan: Plan) -> ClientProgram:
    """The client program of the plan, around the linear learner."""
    learner = LinearLearner(plan)
    return ClientProgram(
        algorithm=plan.algorithm,
        learner=learner,
        training=plan.local,
        weight=plan.weighting,
        pipeline=compile_stages(plan.updates.stages),
        metrics=cast(MetricSet, None),  # nothing is evaluated here
        seed=plan.seed,
        rounds=plan.rounds.count,
        base=learner.initial(plan.seed),
    )


def run_package(plan: Plan, cohorts: Sequence[Sequence[int]]) -> Vector:
    """The averaged prefix after one round for each cohort."""
    program = program_of(plan)
    data = [Examples(X.astype(np.float32), y.astype(np.float32)) for X, y in rows()]
    memories: list[Vector | None] = [None] * len(data)
    state = plan.algorithm.init(program.base[: program.dim].copy())
    for number, cohort in enumerate(cohorts, start=1):
        fold = Accumulator(FoldPlan(program.sections, capacity=len(data)))
        broadcast = plan.algorithm.broadcast(state)
        for client in cohort:
            task = Task(TaskKind.TRAIN, number, client, f"c{client}", number)
            reply = execute(program, task, broadcast, memories[client], data[client])
            fold.add(program.pipeline.decode_one(reply.update), task.name)
            memories[client] = reply.memory
        if not plan.clients.memory:
            assert memories == [None] * len(data), "the plan says that clients keep nothing"
        total = program.pipeline.decode_sum(fold.total())
        context = RoundContext(
            number,
            clients=len(data),
            rate_factor=plan.rounds.server_schedule.factor(number, plan.rounds.count),
        )
        state = plan.algorithm.server_update(state, total, context)
    return state.model


def run_oracle(plan: Plan, cohorts: Sequence[Sequence[int]]) -> oracle.Array:
    """The same by the slow float64 federation."""
    federation = oracle.Federation(plan, rows(), START)
    for number, cohort in enumerate(cohorts, start=1):
        federation.round(number, cohort)
    return federation.vector()
