"""`execute`: the only client code. Simulator workers and networked clients call it alike."""

from __future__ import annotations

import time

import numpy as np

from anabranch.algorithms.base import Broadcast, LocalWork, SectionValues
from anabranch.client.inside import refused_metrics
from anabranch.client.program import CLIP_NORM, LOCAL_PARAMETERS, ClientProgram
from anabranch.client.task import Reply, Task, TaskKind
from anabranch.data.federation import Examples
from anabranch.learners.base import LocalResult, TrainingJob, gradient_coefficient
from anabranch.learners.training import SGD
from anabranch.privacy.mechanisms import Mechanism
from anabranch.privacy.noise import SecretStream
from anabranch.randomness import derived_seed, generator
from anabranch.updates.sections import WEIGHT, Update, Vector
from anabranch.updates.stages import EncodeContext

__all__ = ["execute"]

_TO_TRAIN = 0.9
"""Share of the time of a task after which a client that may end early begins no further step."""


def execute(
    program: ClientProgram,
    task: Task,
    broadcast: Broadcast,
    memory: Vector | None,
    data: Examples,
) -> Reply:
    """Answer one task.

    Args:
        program: built from the contract.
        task: what is asked.
        broadcast: the vectors of this round; ``model`` has the averaged length.
        memory: the client's committed memory, flat; None before its first merged round.
        data: the client's training or test examples, as the task's kind asks.

    Returns:
        The encoded update and the pending memory.

    Raises:
        AnabranchError: the data do not fit the model, or the client has none; AB-984 metrics of a
            private run that nothing pays for.
    """
    if task.kind is TaskKind.TRAIN:
        return _train(program, task, broadcast, memory, data)
    if task.kind is TaskKind.EVALUATE and program.private and not program.tells_scores:
        raise refused_metrics()
    outputs = program.learner.predict(program.whole_vector(broadcast["model"], memory), data.x)
    if task.kind is TaskKind.EVALUATE and program.inside is not None:
        stream, kind = _secrets(program, task), program.metrics.task
        return Reply(program.inside.scored(outputs, data, kind, task.name, stream))
    measured = program.metrics.measure(outputs, data.y)
    if program.scores is not None and task.kind is TaskKind.EVALUATE:
        counts = measured.scalars
        measured = program.scores.encode(counts["correct"], counts["examples"])
    return Reply(measured)


def _train(
    program: ClientProgram,
    task: Task,
    broadcast: Broadcast,
    memory: Vector | None,
    data: Examples,
) -> Reply:
    kept = program.memory.split(memory) if program.memory.size else {}
    job = _job(program, task, broadcast, kept, data)
    start = program.whole_vector(broadcast["model"], memory)
    result = program.learner.train(start, data, job)
    work = _work(program, start, result, job, len(data))
    values, after = program.algorithm.client_update(broadcast, kept, work)
    if program.mechanism is not None:
        update = _bounded(program, program.mechanism, task, broadcast, values, work)
        return Reply(update, _own_parameters(program, result))
    update = _declared(program, values, work, result)
    if not program.pipeline.stages and not program.memory.size:
        return Reply(update)
    context = EncodeContext(
        task.name,
        task.round,
        generator(program.seed, "encode", task.draw, task.name),
        max_bytes=task.max_bytes or program.pipeline.limit_for(task.name),
    )
    update, stage_memory = program.pipeline.encode(update, kept, context)
    new_memory = {**after, **stage_memory}
    if program.learner.layout.local:
        new_memory[LOCAL_PARAMETERS] = _local_part(program, result)
    return Reply(update, program.memory.join(new_memory) if program.memory.size else None)


def _local_part(program: ClientProgram, result: LocalResult) -> Vector:
    return result.end[program.dim : program.dim + program.learner.layout.local]


def _own_parameters(program: ClientProgram, result: LocalResult) -> Vector | None:
    """What a client of a private run keeps: parameters that never leave it, or nothing."""
    if not program.learner.layout.local:
        return None
    return program.memory.join({LOCAL_PARAMETERS: _local_part(program, result)})


def _bounded(
    program: ClientProgram,
    mechanism: Mechanism,
    task: Task,
    broadcast: Broadcast,
    values: SectionValues,
    work: LocalWork,
) -> Update:
    """What leaves a client of a private run: the bounded update, and nothing else."""
    weight = program.weight.weight(work.examples, work.steps)
    return mechanism.encode(
        np.asarray(values["delta"], np.float32),
        float(broadcast[CLIP_NORM.name][0]),
        min(1.0, weight / program.weight.bound),
        task.round,
        program.seed,
        _secrets(program, task),
    )


def _job(
    program: ClientProgram,
    task: Task,
    broadcast: Broadcast,
    kept: dict[str, Vector],
    data: Examples,
) -> TrainingJob:
    training = program.training
    return TrainingJob(
        training=training,
        learning_rate=training.learning_rate * training.schedule.factor(task.round, program.rounds),
        correction=program.algorithm.client_correction(broadcast, kept),
        batches=generator(program.seed, "batches", task.draw, task.name)
        if training.shuffle
        else None,
        draws=derived_seed(program.seed, "draws", task.draw, task.name),
        client=task.name,
        fraction=task.fraction,
        ends=time.monotonic() + _TO_TRAIN * task.seconds
        if program.stops_early and task.seconds is not None
        else None,
        private=program.inside.steps(data, task.name, lambda: _secrets(program, task))
        if program.inside is not None
        else None,
    )


def _secrets(program: ClientProgram, task: Task) -> SecretStream:
    """A client's own randomness: of its operating system, or of the run in a simulation."""
    if program.secret is None:
        return SecretStream.system()
    purpose = "client" if task.kind is TaskKind.TRAIN else task.kind.value
    return SecretStream.keyed(program.secret, purpose, task.name, str(task.round), task.task)


def _work(
    program: ClientProgram, start: Vector, result: LocalResult, job: TrainingJob, examples: int
) -> LocalWork:
    optimizer = program.training.optimizer
    if isinstance(optimizer, SGD):
        coefficient = gradient_coefficient(
            program.training, job.learning_rate, result.steps, job.correction.pull
        )
    else:  # unknown; the algebra refuses algorithms that would read it
        coefficient = float(result.steps)
    return LocalWork(
        delta=result.end[: program.dim] - start[: program.dim],
        steps=result.steps,
        examples=examples,
        step_size_sum=result.step_size_sum,
        coefficient=coefficient,
        loss_sum=result.loss_sum,
    )


def _declared(
    program: ClientProgram,
    values: SectionValues,
    work: LocalWork,
    result: LocalResult,
) -> Update:
    """The algorithm's values and the diagnostics, split into arrays and plain numbers."""
    vectors = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
    scalars = {name: float(v) for name, v in values.items() if not isinstance(v, np.ndarray)}
    scalars[WEIGHT] = program.weight.weight(work.examples, work.steps)
    if program.inside is not None:
        return Update(vectors, scalars)  # counts and losses would tell of the data
    scalars["examples"] = float(work.examples)
    scalars["steps"] = float(work.steps)
    scalars["train_examples"] = float(result.examples_seen)
    scalars["train_loss_sum"] = float(result.loss_sum)
    scalars["delta_sq_norm"] = float(np.dot(work.delta, work.delta))
    return Update(vectors, scalars)
