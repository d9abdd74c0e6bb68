"""The contract of a runtime, as a suite that every implementation passes.

Subclass `RuntimeContract`, implement `make`, and let pytest collect it::

    class TestMine(RuntimeContract):
        def make(self, fleet, slots):
            return MyRuntime(fleet.build(), slots)
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from anabranch.aggregation.fold import Accumulator, FoldPlan
from anabranch.aggregation.weighting import Examples as ByExamples
from anabranch.algorithms import FedAvg, Scaffold
from anabranch.algorithms.base import Algorithm
from anabranch.client.execute import execute
from anabranch.client.program import ClientProgram
from anabranch.client.states import SlotFile, SlotMap
from anabranch.client.task import TaskKind
from anabranch.coordinator.collect import Collected, collect
from anabranch.coordinator.runtime import Fate, Runtime, Work
from anabranch.data.federation import Examples, Federation, Ragged
from anabranch.learners.build import build_learner
from anabranch.learners.metrics import MetricSet
from anabranch.learners.plan import ModelPlan
from anabranch.learners.training import LocalTraining
from anabranch.runtimes.local.worker import Simulant
from anabranch.updates.sections import Vector
from anabranch.updates.stages import Pipeline
from anabranch.updates.total import Finest, Total

__all__ = ["CLIENTS", "RuntimeContract", "SmallFleet"]

CLIENTS = 5


@dataclass(frozen=True)
class SmallFleet:
    """Five clients with logistic regression in NumPy; picklable, so workers can build it too.

    Attributes:
        algorithm: what the clients run.
        poisoned: number of a client whose data make its update not finite.
        empty: number of a client without examples.
        columns: input columns that the data have; the model wants four.
        states: path of the clients' memory for a worker that opens it itself.
    """

    algorithm: Algorithm
    poisoned: int | None = None
    empty: int | None = None
    columns: int = 4
    states: Path | None = None

    def build(self) -> Simulant:
        """Program, data and, with ``states``, memory."""
        simulant = _without_memory(self)
        if self.states is not None:
            simulant.memory = SlotMap(self.states, CLIENTS, simulant.program.memory.size)
        return simulant


def _without_memory(fleet: SmallFleet) -> Simulant:
    draw = np.random.default_rng(7)
    parts = []
    for client in range(CLIENTS):
        n = 0 if client == fleet.empty else 8 + 3 * client
        x = draw.normal(size=(n, fleet.columns)).astype(np.float32)
        if client == fleet.poisoned:
            x[0, 0] = np.inf
        parts.append(Examples(x, (np.arange(n) % 3).astype(np.int64)))
    names = tuple(f"client-{client}" for client in range(CLIENTS))
    federation = Federation(names, Ragged.stack(parts), test=Ragged.stack(parts), classes=3)
    plan = ModelPlan(name="logistic")
    learner = build_learner(plan, "numpy", input_shape=(4,), classes=3)
    program = ClientProgram(
        algorithm=fleet.algorithm,
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

    def make(self, fleet: SmallFleet, slots: SlotFile | None) -> Runtime:
        """A fresh runtime with the clients of ``fleet``."""
        raise NotImplementedError("subclass RuntimeContract and build your runtime here")

    @contextmanager
    def opened(self, fleet: SmallFleet, slots: SlotFile | None = None) -> Iterator[Runtime]:
        """A runtime that is closed at the end."""
        runtime = self.make(fleet, slots)
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
        return collect(work, runtime, "client-{}".format, 60.0)

    def memory(self, runtime: Runtime, slots: SlotFile, client: int) -> Vector | None:
        """What ``client`` remembers; a runtime whose clients keep it themselves overrides this."""
        return slots.read(client)

    @staticmethod
    def expected(simulant: Simulant, work: Work) -> Total:
        """The oracle: every client executed here, one after another, and folded."""
        sums = Accumulator(work.fold)
        for client in work.clients:
            name = simulant.federation.names[client]
            task = work.task_of(client, name)
            data = simulant.federation.train.of(client)
            sums.add(execute(simulant.program, task, work.broadcast, None, data).update, name)
        return sums.total()

    def test_the_sum_is_the_oracles_bit_for_bit(self) -> None:
        fleet = SmallFleet(FedAvg())
        simulant = fleet.build()
        work = self.work(simulant)
        with self.opened(fleet) as runtime:
            collected = self.ask(runtime, work)
            wanted, got = self.expected(simulant, work), collected.total()
            assert got.contributors == CLIENTS
            for name, value in wanted.sums.items():
                np.testing.assert_array_equal(got.sums[name], value)

    def test_individual_payloads_fold_to_the_same_sum(self) -> None:
        fleet = SmallFleet(FedAvg())
        simulant = fleet.build()
        work = self.work(simulant, Finest.INDIVIDUALS)
        with self.opened(fleet) as runtime:
            collected = self.ask(runtime, work)
            assert sorted(collected.individuals) == list(range(CLIENTS))
            wanted, got = self.expected(simulant, work), collected.total()
            for name, value in wanted.sums.items():
                np.testing.assert_array_equal(got.sums[name], value)

    def test_every_client_has_exactly_one_outcome(self) -> None:
        fleet = SmallFleet(FedAvg(), empty=2)
        simulant = fleet.build()
        with self.opened(fleet) as runtime:
            collected = self.ask(runtime, self.work(simulant))
            assert sorted(collected.by_client) == list(range(CLIENTS))
            assert collected.by_client[2].fate is Fate.FAILED
            assert collected.by_client[2].detail
            assert collected.contributors == CLIENTS - 1

    def test_an_update_that_is_not_finite_is_refused_and_named(self) -> None:
        fleet = SmallFleet(FedAvg(), poisoned=1)
        simulant = fleet.build()
        with self.opened(fleet) as runtime:
            collected = self.ask(runtime, self.work(simulant))
            assert collected.by_client[1].fate is Fate.REFUSED
            assert "client-1" in collected.by_client[1].detail
            assert collected.contributors == CLIENTS - 1
            assert np.isfinite(collected.total().sums["delta"]).all()

    def test_memory_counts_only_once_the_update_is_merged(self, tmp_path: Path) -> None:
        fleet = SmallFleet(Scaffold())
        simulant = fleet.build()
        length = simulant.program.memory.size
        with SlotFile(tmp_path / "slots", CLIENTS, length) as slots:
            fleet = replace(fleet, states=slots.map.path)
            with self.opened(fleet, slots) as runtime:
                work = self.work(simulant)
                self.ask(runtime, work)
                fates = dict.fromkeys(range(CLIENTS), Fate.MERGED) | {3: Fate.TOO_LATE}
                runtime.settle(work.task, fates)
                memories = [self.memory(runtime, slots, client) for client in range(CLIENTS)]
                kept = [memory is not None for memory in memories]
                assert kept == [True, True, True, False, True]
                assert np.any(memories[0])

    def test_rounds_follow_one_another(self) -> None:
        fleet = SmallFleet(FedAvg())
        simulant = fleet.build()
        with self.opened(fleet) as runtime:
            first = self.ask(runtime, self.work(simulant, round_=1)).total().sums["delta"].copy()
            again = self.ask(runtime, self.work(simulant, round_=1)).total().sums["delta"].copy()
            other = self.ask(runtime, self.work(simulant, round_=2)).total().sums["delta"].copy()
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)  # another round draws other batches

    def test_open_work_can_be_given_up(self) -> None:
        fleet = SmallFleet(FedAvg())
        simulant = fleet.build()
        with self.opened(fleet) as runtime:
            runtime.submit(self.work(simulant))
            late = runtime.abandon()
            assert {o.fate for o in late} <= {Fate.TOO_LATE}
            collected = self.ask(runtime, self.work(simulant))
            assert collected.contributors == CLIENTS

    def test_closing_twice_is_harmless_and_quick(self) -> None:
        fleet = SmallFleet(FedAvg())
        runtime = self.make(fleet, None)
        started = time.monotonic()
        runtime.close()
        runtime.close()
        assert time.monotonic() - started < 10

    def test_data_that_do_not_fit_fail_with_a_reason(self) -> None:
        fleet = SmallFleet(FedAvg(), columns=3)
        with self.opened(fleet) as runtime:
            collected = self.ask(runtime, self.work(fleet.build()))
        assert collected.contributors == 0
        assert all(o.fate is Fate.FAILED and o.detail for o in collected.by_client.values())
