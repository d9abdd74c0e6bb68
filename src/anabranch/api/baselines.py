"""Baselines: the same model and local training without the federation, for comparison.

*Local only*: each client trains alone, for as many rounds as the run has. *Pooled*: one client owns
everybody's training examples, which only a simulation can do. Both are plain training runs of the
learner; nothing is aggregated.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from anabranch.aggregation.fold import Accumulator, FoldPlan
from anabranch.algorithms.base import Correction
from anabranch.client.program import ClientProgram
from anabranch.coordinator.events import EvaluationDone
from anabranch.data.federation import Examples, Federation, Ragged
from anabranch.learners.base import TrainingJob
from anabranch.learners.threads import one_thread
from anabranch.randomness import derived_seed, generator
from anabranch.updates.sections import Update, Vector

__all__ = ["local_only", "pooled"]


def local_only(program: ClientProgram, federation: Federation) -> EvaluationDone:
    """Every client's own model, measured on the client's own test examples."""
    with one_thread():
        parts = {
            name: _measured(
                program,
                _trained(program, federation.train.of(client), name),
                _test(federation).of(client),
            )
            for client, name in enumerate(federation.names)
            if len(federation.train.of(client))
        }
    return _done("local_only", program, parts)


def pooled(program: ClientProgram, federation: Federation) -> EvaluationDone:
    """One model on all training examples, measured on each client's test examples."""
    everything = Examples(federation.train.x, federation.train.y)
    with one_thread():
        vector = _trained(program, everything, "pooled")
        parts = {
            name: _measured(program, vector, _test(federation).of(client))
            for client, name in enumerate(federation.names)
        }
    return _done("pooled", program, parts)


def _test(federation: Federation) -> Ragged:
    return federation.test if federation.test is not None else federation.train


def _trained(program: ClientProgram, data: Examples, name: str) -> Vector:
    vector, training = program.base, program.training
    for number in range(1, program.rounds + 1):
        job = TrainingJob(
            training=training,
            learning_rate=training.learning_rate * training.schedule.factor(number, program.rounds),
            correction=Correction(),
            batches=generator(program.seed, "batches", number, name) if training.shuffle else None,
            draws=derived_seed(program.seed, "draws", number, name),
            client=name,
        )
        vector = program.learner.train(vector, data, job).end
    return vector


def _measured(program: ClientProgram, vector: Vector, data: Examples) -> Update | None:
    if not len(data):
        return None
    return program.metrics.measure(program.learner.predict(vector, data.x), data.y)


def _done(what: str, program: ClientProgram, parts: Mapping[str, Update | None]) -> EvaluationDone:
    measured = {name: update for name, update in parts.items() if update is not None}
    clients = {name: _summary(program, {name: update}) for name, update in measured.items()}
    return EvaluationDone(what, _summary(program, measured), clients)


def _summary(program: ClientProgram, updates: Mapping[str, Update]) -> dict[str, float]:
    sums = Accumulator(FoldPlan(program.metrics.sections(), capacity=max(len(updates), 1)))
    for name, update in updates.items():
        sums.add(update, name)
    if not sums.contributors:
        return {}
    summary = program.metrics.summary(sums.total())
    return {name: value for name, value in summary.items() if not np.isnan(value)}
