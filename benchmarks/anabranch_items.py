"""Anabranch as a contestant: the round loop of `anabranch simulate` with the durable store on.

``run`` goes through `anabranch.api.simulate`: plan, algebra, worker processes, fold, release door,
store. With ``engine_only`` the same workers get the same work from a bare loop without the store.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping
from contextlib import closing
from importlib.metadata import version
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from anabranch.aggregation.fold import FoldPlan
from anabranch.algorithms.base import RoundContext
from anabranch.api.prepare import Prepared, prepare
from anabranch.api.simulate import run_plan
from anabranch.client.task import TaskKind
from anabranch.coordinator.collect import collect
from anabranch.coordinator.events import Event, RoundCommitted, RunStarted
from anabranch.coordinator.policies import Synchronous
from anabranch.coordinator.runtime import Work as CohortWork
from anabranch.data.federation import Examples, Federation, Ragged
from anabranch.data.plan import DataPlan
from anabranch.fleet.selection import select_uniform
from anabranch.learners.plan import ModelPlan
from anabranch.learners.training import LocalTraining
from anabranch.plan import Plan
from anabranch.plan.evaluation import EvaluationPlan
from anabranch.plan.rounds import RoundsPlan
from anabranch.plan.runtime import RuntimePlan
from anabranch.randomness import generator
from anabranch.runtimes.local import InlineRuntime, LocalSetup, ProcessRuntime, local_runtime
from benchmarks import models
from benchmarks.items import BATCH, ITEMS, LEARNING_RATE, SEED, Item, Work, load_initial
from benchmarks.outcome import Outcome

__all__ = ["net", "run"]

Marks: TypeAlias = list[float]
Parameters: TypeAlias = Mapping[str, NDArray[np.float32]]

RUNTIMES = {
    "generic": RuntimePlan(kind="fork", engine="traced"),
    "closed_form": RuntimePlan(kind="fork", engine="closed-form"),
    "bf16": RuntimePlan(kind="fork", engine="traced"),
}
LOCAL = LocalTraining(batch_size=BATCH, learning_rate=LEARNING_RATE, shuffle=False)


def net(item: str) -> nn.Module:
    """The model of an item with the benchmark's initial parameters (named in the plan)."""
    return models.load(models.build(ITEMS[item].model), load_initial(ITEMS[item]))


def run(item: Item, work: Work, rounds: int, engine: str, engine_only: bool) -> Outcome:
    """Train ``rounds`` rounds of ``item`` with an engine: generic, closed_form or bf16."""
    started = time.perf_counter()
    plan, federation = _plan(item, rounds, engine), _federation(item, work)
    marks, parameters = (_bare if engine_only else _whole)(plan, federation)
    names = [name for name, _ in net(item.name).named_parameters()]
    return Outcome(
        np.diff(marks),
        np.concatenate([np.asarray(parameters[name]).reshape(-1) for name in names]),
        marks[0] - started,
        len(os.sched_getaffinity(0)),
        f"anabranch {version('anabranch')}, torch {torch.__version__}",
    )


def _plan(item: Item, rounds: int, engine: str) -> Plan:
    return Plan(
        name=f"bench-{item.name.lower()}",
        seed=SEED,
        data=DataPlan(source="arrays"),
        model=ModelPlan(name="benchmarks.anabranch_items:net", parameters={"item": item.name}),
        local=LOCAL.replace(precision="bfloat16") if engine == "bf16" else LOCAL,
        rounds=RoundsPlan(count=rounds, cohort=item.cohort),
        evaluation=EvaluationPlan(every=0, on="holdout"),
        runtime=RUNTIMES[engine],
    )


def _federation(item: Item, work: Work) -> Federation:
    shape = models.input_shape(item.model)
    x = work.x.reshape(-1, *shape)
    return Federation(
        names=tuple(str(client) for client in range(item.clients)),
        train=Ragged(x, work.y, work.offsets),
        holdout=Examples(work.test_x.reshape(-1, *shape), work.test_y),
        classes=10,
    )


def _whole(plan: Plan, federation: Federation) -> tuple[Marks, Parameters]:
    """Through the round loop with the store on; the listener keeps the time.

    The model is measured once, in the last round, which no other contestant does in its rounds:
    that time is taken off.
    """
    marks: Marks = []
    measuring = 0.0

    def listener(event: Event) -> None:
        nonlocal measuring
        if isinstance(event, RoundCommitted):
            measuring += event.phases.get("evaluate", 0.0)
        if isinstance(event, RunStarted | RoundCommitted):
            marks.append(time.perf_counter() - measuring)

    with tempfile.TemporaryDirectory(prefix="bench-store-") as folder:
        done = run_plan(plan, federation=federation, store=folder, listener=listener)
        return marks, done.parameters()


def _bare(plan: Plan, federation: Federation) -> tuple[Marks, Parameters]:
    """The same workers, fold and server rule from a bare loop: no store, no door, no events."""
    prepared = prepare(plan, federation)
    program = prepared.program
    count, clients = plan.rounds.asked(len(federation)), len(federation)
    with closing(_workers(prepared, count)) as runtime:
        state = program.algorithm.init(program.base[: program.dim].copy())
        marks = [time.perf_counter()]
        for number in range(1, plan.rounds.count + 1):
            cohort = select_uniform(clients, count, generator(plan.seed, "cohort", number))
            fold = FoldPlan(program.sections, capacity=count)
            broadcast = program.algorithm.broadcast(state)
            asked = CohortWork(TaskKind.TRAIN, number, cohort, broadcast, fold)
            collected = collect(asked, runtime, Synchronous(), str)
            context = RoundContext(number, clients, 1.0)
            state = program.algorithm.server_update(state, collected.total(), context)
            marks.append(time.perf_counter())
        whole = program.whole_vector(state.model, None)
        views = program.learner.layout.views(whole)
        return marks, {name: np.array(view) for name, view in views.items()}


def _workers(prepared: Prepared, asked: int) -> InlineRuntime | ProcessRuntime:
    setup = LocalSetup(simulant=prepared.simulant(None), slots=None, asked=asked)
    return local_runtime(setup, prepared.plan.runtime)
