"""The contract of a runtime, as a suite that every implementation passes.

Subclass `RuntimeContract`, implement `make`, and let pytest collect it::

    class TestMine(RuntimeContract):
        def make(self, simulant, slots):
            return MyRuntime(simulant, slots)
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from anabranch.aggregation.fold import Accumulator, FoldPlan
from anabranch.aggregation.weighting import Examples as ByExamples
from anabranch.algorithms import FedAvg, Scaffold
from anabranch.algorithms.base import Algorithm
from anabranch.client.execute import execute
from anabranch.client.program import ClientProgram
from anabranch.client.states import SlotFile
from anabranch.client.task import Task, TaskKind
from anabranch.coordinator.collect import Collected, collect
from anabranch.coordinator.policies import Synchronous
from anabranch.coordinator.runtime import Fate, Runtime, Work
from anabranch.data.federation import Examples, Federation, Ragged
from anabranch.learners.metrics import MetricSet
from anabranch.learners.numpy_learner import NumpyLearner
from anabranch.learners.training import LocalTraining
from anabranch.runtimes.local.worker import Simulant
from anabranch.updates.stages import Pipeline
from anabranch.updates.total import Finest, Total

__all__ = ["RuntimeContract", "small_simulant"]

CLIENTS = 5


def small_simulant(
    algorithm: Algorithm, *, poisoned: int | None = None, empty: int | None = None
) -> Simulant:
    """Five clients with logistic regression in NumPy.

    Args:
        algorithm: what the clients run.
        poisoned: number of a client whose data make its update not finite.
        empty: number of a client without examples.
    """
    draw = np.random.default_rng(7)
    parts = []
    for client in range(CLIENTS):
        n = 0 if client == empty else 8 + 3 * client
        x = draw.normal(size=(n, 4)).astype(np.float32)
        if client == poisoned:
            x[0, 0] = np.inf
        parts.append(Examples(x, (np.arange(n) % 3).astype(np.int64)))
    names = tuple(f"client-{client}" for client in range(CLIENTS))
    federation = Federation(names, Ragged.stack(parts), test=Ragged.stack(parts), classes=3)
    learner = NumpyLearner.logistic(inputs=4, classes=3)
    program = ClientProgram(
        algorithm=algorithm,
        learner=learner,
        training=LocalTraining(batch_size=4, epochs=2),
        weight=ByExamples(),
        pipeline=Pipeline(),
        metrics=MetricSet.of(3),
        seed=1,
        rounds=3,
        base=learner.initial(1),
    )
    return Simulant(program, federation)


class RuntimeContract:
    """What the coordinator may rely on."""

    def make(self, simulant: Simulant, slots: SlotFile | None) -> Runtime:
        """A fresh runtime whose clients are those of ``simulant``."""
        raise NotImplementedError("subclass RuntimeContract and build your runtime here")

    @contextmanager
    def opened(self, simulant: Simulant, slots: SlotFile | None = None) -> Iterator[Runtime]:
        """A runtime that is closed at the end."""
        runtime = self.make(simulant, slots)
        try:
            yield runtime
        finally:
            runtime.close()

    def work(self, simulant: Simulant, finest: Finest = Finest.TOTAL, round_: int = 1) -> Work:
        """All clients train once."""
        program = simulant.program
        server = program.algorithm.init(program.base)
        fold = FoldPlan(program.sections, CLIENTS)
        clients = tuple(range(CLIENTS))
        broadcast = program.algorithm.broadcast(server)
        return Work(TaskKind.TRAIN, round_, clients, broadcast, fold, finest)

    def ask(self, runtime: Runtime, work: Work) -> Collected:
        """The collected answers, within a minute."""
        return collect(work, runtime, Synchronous(60.0), str)

    @staticmethod
    def expected(simulant: Simulant, work: Work) -> Total:
        """The oracle: every client executed here, one after another, and folded."""
        sums = Accumulator(work.fold)
        for client in work.clients:
            name = simulant.federation.names[client]
            task = Task(work.kind, work.round, client, name)
            data = simulant.federation.train.of(client)
            sums.add(execute(simulant.program, task, work.broadcast, None, data).update, name)
        return sums.total()

    def test_the_sum_is_the_oracles_bit_for_bit(self) -> None:
        simulant = small_simulant(FedAvg())
        work = self.work(simulant)
        with self.opened(simulant) as runtime:
            collected = self.ask(runtime, work)
            wanted, got = self.expected(simulant, work), collected.total()
            assert got.contributors == CLIENTS
            for name, value in wanted.sums.items():
                np.testing.assert_array_equal(got.sums[name], value)

    def test_individual_payloads_fold_to_the_same_sum(self) -> None:
        simulant = small_simulant(FedAvg())
        work = self.work(simulant, Finest.INDIVIDUALS)
        with self.opened(simulant) as runtime:
            collected = self.ask(runtime, work)
            assert sorted(collected.individuals) == list(range(CLIENTS))
            wanted, got = self.expected(simulant, work), collected.total()
            for name, value in wanted.sums.items():
                np.testing.assert_array_equal(got.sums[name], value)

    def test_every_client_has_exactly_one_outcome(self) -> None:
        simulant = small_simulant(FedAvg(), empty=2)
        with self.opened(simulant) as runtime:
            collected = self.ask(runtime, self.work(simulant))
            assert sorted(collected.outcomes) == list(range(CLIENTS))
            assert collected.outcomes[2].fate is Fate.FAILED
            assert collected.outcomes[2].detail
            assert collected.contributors == CLIENTS - 1

    def test_an_update_that_is_not_finite_is_refused_and_named(self) -> None:
        simulant = small_simulant(FedAvg(), poisoned=1)
        with self.opened(simulant) as runtime:
            collected = self.ask(runtime, self.work(simulant))
            assert collected.outcomes[1].fate is Fate.REFUSED
            assert "client-1" in collected.outcomes[1].detail
            assert collected.contributors == CLIENTS - 1
            assert np.isfinite(collected.total().sums["delta"]).all()

    def test_memory_counts_only_once_the_update_is_merged(self, tmp_path: Path) -> None:
        simulant = small_simulant(Scaffold())
        length = simulant.program.memory.size
        with SlotFile(tmp_path / "slots", CLIENTS, length) as slots:
            simulant.memory = slots.map
            with self.opened(simulant, slots) as runtime:
                self.ask(runtime, self.work(simulant))
                fates = dict.fromkeys(range(CLIENTS), Fate.MERGED) | {3: Fate.TOO_LATE}
                runtime.settle(fates)
                kept = [slots.read(client) is not None for client in range(CLIENTS)]
                assert kept == [True, True, True, False, True]
                assert np.any(slots.read(0))

    def test_rounds_follow_one_another(self) -> None:
        simulant = small_simulant(FedAvg())
        with self.opened(simulant) as runtime:
            first = self.ask(runtime, self.work(simulant, round_=1)).total().sums["delta"].copy()
            again = self.ask(runtime, self.work(simulant, round_=1)).total().sums["delta"].copy()
            other = self.ask(runtime, self.work(simulant, round_=2)).total().sums["delta"].copy()
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)  # another round draws other batches

    def test_open_work_can_be_given_up(self) -> None:
        simulant = small_simulant(FedAvg())
        with self.opened(simulant) as runtime:
            runtime.submit(self.work(simulant))
            late = runtime.abandon()
            assert {o.fate for o in late} <= {Fate.TOO_LATE}
            collected = self.ask(runtime, self.work(simulant))
            assert collected.contributors == CLIENTS

    def test_closing_twice_is_harmless_and_quick(self) -> None:
        simulant = small_simulant(FedAvg())
        runtime = self.make(simulant, None)
        started = time.monotonic()
        runtime.close()
        runtime.close()
        assert time.monotonic() - started < 10

    def test_unknown_failures_are_told_with_their_class(self) -> None:
        simulant = small_simulant(FedAvg())
        wrong = Ragged(
            simulant.federation.train.x[:, :3],
            simulant.federation.train.y,
            simulant.federation.train.offsets,
        )
        object.__setattr__(simulant.federation, "train", wrong)
        with self.opened(simulant) as runtime:
            collected = self.ask(runtime, self.work(simulant))
        assert collected.contributors == 0
        assert all(o.fate is Fate.FAILED and o.detail for o in collected.outcomes.values())


assert pytest  # the suite is for pytest; the import makes its absence a clear error
