"""Inline, forked and spawned workers keep one contract and give the same bits."""

from __future__ import annotations

import os
from multiprocessing import Pipe
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from anabranch.algorithms import FedAvg
from anabranch.client.states import SlotFile
from anabranch.coordinator.runtime import Runtime
from anabranch.plan.runtime import RuntimePlan
from anabranch.runtimes.local import InlineRuntime, LocalSetup, local_runtime
from anabranch.runtimes.local.processes import _work_loop, deal
from anabranch.runtimes.local.shared import SharedArray
from anabranch.runtimes.local.worker import Simulant
from anabranch.testing.runtime import CLIENTS, RuntimeContract, SmallFleet
from anabranch.updates.sections import Sections


def local(fleet: SmallFleet, slots: SlotFile | None, kind: str, workers: int) -> Runtime:
    setup = LocalSetup(fleet.build(), slots, asked=CLIENTS, factory=fleet.build)
    return local_runtime(setup, RuntimePlan(kind=kind, workers=workers))


class TestInline(RuntimeContract):
    def make(self, fleet: SmallFleet, slots: SlotFile | None) -> Runtime:
        return InlineRuntime(fleet.build(), slots)


class TestForkOne(RuntimeContract):
    def make(self, fleet: SmallFleet, slots: SlotFile | None) -> Runtime:
        return local(fleet, slots, "fork", 1)


class TestForkThree(RuntimeContract):
    def make(self, fleet: SmallFleet, slots: SlotFile | None) -> Runtime:
        return local(fleet, slots, "fork", 3)


@pytest.mark.slow
class TestSpawn(RuntimeContract):
    def make(self, fleet: SmallFleet, slots: SlotFile | None) -> Runtime:
        return local(fleet, slots, "spawn", 2)


@pytest.mark.parametrize("when", ["waiting", "working"])
def test_a_worker_whose_coordinator_was_killed_ends_in_silence(when: str) -> None:
    """A broken pipe is how a worker learns it; a traceback would only frighten."""
    ours, theirs = Pipe()

    class Busy:
        def run(self, *given: object) -> tuple[object, ...]:
            ours.close()
            return ()

    if when == "waiting":
        ours.close()
    else:
        fold = SimpleNamespace(sections=SimpleNamespace(size=0))
        ours.send(SimpleNamespace(work=SimpleNamespace(fold=fold)))
    broadcast, buffer = SharedArray(0, np.float32), SharedArray(0, np.float64)
    _work_loop(
        lambda: cast(Simulant, Busy()), theirs, broadcast, Sections(()), buffer, os.getppid()
    )
    theirs.close()


def test_the_deal_is_complete_and_even() -> None:
    draw = np.random.default_rng(0)
    costs = draw.integers(0, 500, 100).tolist()
    hands = deal(range(100), costs, 3)
    assert sorted(client for hand in hands for client in hand) == list(range(100))
    loads = [sum(costs[client] for client in hand) for hand in hands]
    assert max(loads) - min(loads) <= max(costs)


def test_small_work_stays_inline_and_large_work_does_not() -> None:
    setup = LocalSetup(SmallFleet(FedAvg()).build(), None, asked=CLIENTS)
    assert isinstance(local_runtime(setup, RuntimePlan()), InlineRuntime)
