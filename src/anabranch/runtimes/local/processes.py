"""The process runtime: persistent workers, one a core, that fold their own clients.

A round moves two vectors per worker (the broadcast down, the sum up, both in shared memory) and two
small messages, whatever the size of the cohort. Clients are dealt longest first; because the fold
is exact, neither the deal nor a repeated share changes a bit of the result. A worker that dies is
replaced and its share is done again.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkContext, SpawnContext
from multiprocessing.process import BaseProcess
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from anabranch.aggregation.fold import Accumulator
from anabranch.algorithms.base import Broadcast
from anabranch.client.states import SlotFile
from anabranch.coordinator.runtime import Fate, Outcome, Partial, Payload, RuntimeEvent, Work
from anabranch.learners.threads import use_one_thread
from anabranch.runtimes.local.memory import ClientMemories
from anabranch.runtimes.local.shared import SharedArray
from anabranch.runtimes.local.worker import Share, Simulant
from anabranch.updates.sections import Sections
from anabranch.updates.total import Finest

__all__ = ["ProcessRuntime", "deal"]

SimulantFactory: TypeAlias = Callable[[], Simulant]
_ATTEMPTS = 3
"""How often a share is tried before its clients count as lost."""


@dataclass(frozen=True)
class _Answer:
    """What a worker sends back; the sum itself stands in shared memory."""

    events: tuple[Outcome | Payload, ...]
    merged: tuple[int, ...]
    contributors: int


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    buffer: SharedArray[np.float64]
    share: Share | None = None
    attempts: int = 0


def deal(clients: Sequence[int], costs: Sequence[int], workers: int) -> list[list[int]]:
    """Deal clients to workers, longest first to the least loaded.

    >>> deal([0, 1, 2, 3], [8, 1, 4, 5], 2)
    [[0, 1], [3, 2]]
    """
    hands: list[list[int]] = [[] for _ in range(workers)]
    loads = [0] * workers
    for index in sorted(range(len(clients)), key=lambda i: (-costs[i], i)):
        lightest = loads.index(min(loads))
        hands[lightest].append(clients[index])
        loads[lightest] += costs[index] + 1  # every client costs something besides its examples
    return hands


def _work_loop(
    factory: SimulantFactory,
    connection: Connection,
    broadcast: SharedArray[np.float32],
    sections: Sections,
    buffer: SharedArray[np.float64],
    parent: int,
) -> None:
    """A worker's life: wait for a share, do it, answer; end when the coordinator has gone."""
    use_one_thread()
    simulant = factory()
    use_one_thread()  # the factory may have been the first to import PyTorch
    views = _views(broadcast, sections)
    for view in views.values():
        view.flags.writeable = False

    def alive() -> bool:
        return os.getppid() == parent

    while alive():
        if not connection.poll(1.0):
            continue
        try:
            share = connection.recv()
        except (EOFError, ConnectionError):
            return
        if share is None:
            return
        target = buffer.array[: share.work.fold.sections.size]
        events = simulant.run(share, views, target, alive)
        plain = tuple(e for e in events if not isinstance(e, Partial))
        merged = next((e.clients for e in events if isinstance(e, Partial)), ())
        try:
            connection.send(_Answer(plain, merged, len(merged)))
        except ConnectionError:  # killed meanwhile: its store has what counts
            return


def _views(shared: SharedArray[np.float32], sections: Sections) -> dict[str, NDArray[np.float32]]:
    views, position = {}, 0
    for section in sections:
        views[section.name] = shared.array[position : position + section.length]
        position += section.length
    return views


class ProcessRuntime:
    """Simulated clients in worker processes.

    Args:
        factory: builds a worker's `Simulant`; must be picklable for ``spawn``.
        workers: number of processes.
        kind: ``fork`` (Linux command line: shares the data's pages) or ``spawn``.
        broadcast: sections of what goes down.
        fold_size: coordinates of the largest fold that will be asked for.
        costs: training examples by client number, for the deal.
        slots: the clients' two-phase memory, or None.
    """

    def __init__(
        self,
        factory: SimulantFactory,
        *,
        workers: int,
        kind: Literal["fork", "spawn"],
        broadcast: Sections,
        fold_size: int,
        costs: NDArray[np.int64],
        slots: SlotFile | None = None,
    ) -> None:
        self._factory = factory
        self._context: ForkContext | SpawnContext = (
            multiprocessing.get_context("fork")
            if kind == "fork"
            else multiprocessing.get_context("spawn")
        )
        self._sections = broadcast
        self._fold_size = fold_size
        self._costs = costs
        self._memories = ClientMemories(slots)
        self._broadcast = SharedArray(broadcast.size, np.float32)
        self._down = _views(self._broadcast, broadcast)
        self._workers: list[_Worker] = []
        try:
            for _ in range(workers):
                self._workers.append(self._start(SharedArray(fold_size, np.float64)))
        except BaseException:
            self.close()
            raise

    def _start(self, buffer: SharedArray[np.float64]) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_work_loop,
            args=(self._factory, theirs, self._broadcast, self._sections, buffer, os.getpid()),
            daemon=True,
            name="anabranch-worker",
        )
        process.start()
        theirs.close()
        return _Worker(process, ours, buffer)

    def submit(self, work: Work) -> None:
        if any(worker.share for worker in self._workers):
            raise RuntimeError("the local runtime takes one piece of work at a time")
        self._send_down(work.broadcast)
        costs = [int(self._costs[c]) if c < len(self._costs) else 1 for c in work.clients]
        hands = deal(work.clients, costs, len(self._workers))
        for worker, hand in zip(self._workers, hands, strict=True):
            if hand:
                slots = self._memories.slots(work.kind, hand)
                worker.share, worker.attempts = Share.of(work, hand, slots), 0
                self._send(worker)

    def _send_down(self, broadcast: Broadcast) -> None:
        for name, value in broadcast.items():
            self._down[name][:] = value

    def _send(self, worker: _Worker) -> None:
        worker.attempts += 1
        # A dead worker cannot be told; poll sees its sentinel and replaces it.
        with suppress(BrokenPipeError, ConnectionResetError):
            worker.connection.send(worker.share)

    def poll(self, timeout: float | None) -> Sequence[RuntimeEvent]:
        busy = [worker for worker in self._workers if worker.share is not None]
        by_handle: dict[object, _Worker] = {}
        for worker in busy:
            by_handle[worker.connection] = worker
            by_handle[worker.process.sentinel] = worker
        ready = wait(list(by_handle), timeout) if by_handle else []  # type: ignore[arg-type]
        events: list[RuntimeEvent] = []
        for worker in {id(w): w for w in (by_handle[handle] for handle in ready)}.values():
            events += self._receive(worker)
        return events

    def _receive(self, worker: _Worker) -> Sequence[RuntimeEvent]:
        try:
            if not worker.connection.poll():
                raise EOFError
            answer: _Answer = worker.connection.recv()
        except (EOFError, OSError):
            return self._replace(worker)
        share, worker.share = worker.share, None
        assert share is not None
        events: list[RuntimeEvent] = list(answer.events)
        work = share.work
        if work.finest is not Finest.INDIVIDUALS:
            sums = Accumulator(work.fold, worker.buffer.array[: work.fold.sections.size])
            sums.contributors = answer.contributors
            events.append(Partial(sums.total(copy=False), answer.merged, work.task))
        return events

    def _replace(self, worker: _Worker) -> Sequence[RuntimeEvent]:
        """Start another process in the place of a dead one and give it the same share again."""
        self._end(worker)
        fresh = self._start(worker.buffer)
        worker.process, worker.connection = fresh.process, fresh.connection
        share = worker.share
        if share is None:
            return []
        if worker.attempts < _ATTEMPTS:
            self._send(worker)
            return []
        worker.share = None
        reason = f"its worker process died {worker.attempts} times"
        work = share.work
        return [Outcome(client, Fate.LOST, reason, task=work.task) for client in work.clients]

    def abandon(self, task: str | None = None) -> Sequence[Outcome]:
        late: list[Outcome] = []
        for worker in self._workers:
            if worker.share is not None and task in (None, worker.share.work.task):
                work = worker.share.work
                late += [Outcome(c, Fate.TOO_LATE, task=work.task) for c in work.clients]
                worker.share = None
                worker.process.kill()
                self._replace(worker)
        return late

    def settle(self, task: str, fates: Mapping[int, Fate]) -> None:
        self._memories.settle(fates)

    def now(self) -> float:
        return time.monotonic()

    def close(self) -> None:
        for worker in self._workers:
            if worker.process.is_alive() and worker.share is None:
                with suppress(OSError):  # a broken one is ended below
                    worker.connection.send(None)
            else:
                worker.process.kill()
        for worker in self._workers:
            self._end(worker)
            worker.buffer.close()
        self._workers.clear()
        self._broadcast.close()

    @staticmethod
    def _end(worker: _Worker) -> None:
        worker.process.join(2.0)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
        worker.connection.close()
        worker.process.close()
