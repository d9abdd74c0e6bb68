"""A client that may end early: a whole step at least, and it tells how many it took."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from anabranch.algorithms import FedAvg
from anabranch.algorithms.base import Correction
from anabranch.client.execute import execute
from anabranch.client.task import Task, TaskKind
from anabranch.learners.base import TrainingJob, batch_orders
from anabranch.learners.training import LocalTraining
from anabranch.testing.runtime import SmallFleet


def job(ends: float | None) -> TrainingJob:
    training = LocalTraining(epochs=3, batch_size=10, learning_rate=0.1)
    return TrainingJob(training, 0.1, Correction(), np.random.default_rng(0), 0, "a", ends=ends)


def test_no_step_begins_after_the_end_but_the_first() -> None:
    whole = [np.asarray(batch).tolist() for batch in batch_orders(25, job(None))]
    assert len(whole) == 9
    assert [np.asarray(batch).tolist() for batch in batch_orders(25, job(0.0))] == whole[:1]
    later = list(batch_orders(25, job(time.monotonic() + 3600.0)))
    assert len(later) == 9


@pytest.mark.parametrize("may", [True, False])
def test_the_contract_says_whether_a_client_may(may: bool) -> None:
    simulant = SmallFleet(FedAvg()).build()
    program = replace(
        simulant.program,
        stops_early=may,
        training=replace_training(simulant.program.training),
    )
    task = Task(TaskKind.TRAIN, 1, 0, "a", 1, seconds=0.0)
    broadcast = {"model": np.zeros(program.dim, np.float32)}
    reply = execute(program, task, broadcast, None, simulant.federation.train.of(0))
    rows = len(simulant.federation.train.of(0))
    seen = reply.update.scalars["train_examples"]
    assert seen == (min(rows, 2) if may else 2 * rows)


def replace_training(training: LocalTraining) -> LocalTraining:
    return training.model_copy(update={"epochs": 2, "steps": None, "batch_size": 2})
