"""What one simulator worker does with its share of a cohort: execute, fold, answer once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from anabranch.aggregation.fold import Accumulator
from anabranch.algorithms.base import Broadcast
from anabranch.client.execute import execute
from anabranch.client.program import ClientProgram
from anabranch.client.task import TaskKind
from anabranch.coordinator.runtime import Fate, Outcome, Partial, Payload, RuntimeEvent, Work
from anabranch.data.federation import Examples, Federation
from anabranch.errors import AnabranchError
from anabranch.updates.packed import REFUSED
from anabranch.updates.sections import Statistics, Vector
from anabranch.updates.total import Finest
from anabranch.updates.wire import pack

__all__ = ["HOLDOUT_SHARD", "MemoryAccess", "Share", "Simulant", "holdout_shards"]

HOLDOUT_SHARD = 1000
"""Examples in a shard of the global hold-out: fixed, so that sums do not depend on workers."""


class MemoryAccess(Protocol):
    """Read and write access to client memory by (client, slot)."""

    def read(self, client: int, slot: int) -> Vector | None: ...

    def write(self, client: int, slot: int, vector: Vector) -> None: ...


@dataclass(frozen=True)
class Share:
    """The clients of one piece of work that one worker does.

    Attributes:
        work: without its broadcast, which travels apart; its clients in the order to be done.
        slots: for each client the slot to read and the slot to write, when clients keep memory.
    """

    work: Work
    slots: Mapping[int, tuple[int, int]]

    @classmethod
    def of(cls, work: Work, clients: Sequence[int], slots: Mapping[int, tuple[int, int]]) -> Share:
        """The part of ``work`` that these clients do."""
        return cls(replace(work, clients=tuple(clients), broadcast={}, frames=None), slots)


def holdout_shards(federation: Federation) -> int:
    """Number of shards of the global hold-out."""
    held = federation.holdout
    return 0 if held is None else -(-len(held) // HOLDOUT_SHARD)


@dataclass
class Simulant:
    """A worker's equipment, alike inline, forked and spawned.

    Attributes:
        program: what the clients run.
        federation: their data.
        memory: their memory, or None when they keep nothing.
    """

    program: ClientProgram
    federation: Federation
    memory: MemoryAccess | None = None

    def run(
        self,
        share: Share,
        broadcast: Broadcast,
        buffer: Statistics | None = None,
        alive: Callable[[], bool] = lambda: True,
    ) -> Sequence[RuntimeEvent]:
        """Answer every client of ``share``; sums go into ``buffer`` when one is given.

        ``alive`` is asked between clients: a worker whose coordinator has gone stops.
        """
        work = share.work
        accumulator = Accumulator(work.fold, buffer)
        accumulator.reset()
        events: list[RuntimeEvent] = []
        merged: list[int] = []
        with np.errstate(over="ignore", invalid="ignore"):  # the fold names such updates
            for client in work.clients:
                if not alive():
                    break
                event = self._one(share, client, broadcast, accumulator, events)
                events.append(event)
                if event.fate is Fate.MERGED:
                    merged.append(client)
        if work.finest is not Finest.INDIVIDUALS:
            total = accumulator.total(copy=buffer is None)
            events.append(Partial(total, tuple(merged), work.task))
        return events

    def _one(
        self,
        share: Share,
        client: int,
        broadcast: Broadcast,
        accumulator: Accumulator,
        events: list[RuntimeEvent],
    ) -> Outcome:
        started = time.perf_counter()
        work = share.work
        name = self.federation.names[client] if work.kind is not TaskKind.HOLDOUT else "holdout"
        task = work.task_of(client, name)
        read, write = share.slots.get(client, (-1, -1))
        memory = self.memory.read(client, read) if self.memory and read >= 0 else None
        try:
            reply = execute(self.program, task, broadcast, memory, self._data(work.kind, client))
            # Pending memory first: if the disk refuses it, nothing has been folded yet.
            if reply.memory is not None and self.memory is not None:
                self.memory.write(client, write, reply.memory)
            if work.finest is Finest.INDIVIDUALS:
                events.append(Payload(client, pack(reply.update, work.fold.sections), work.task))
            else:
                accumulator.add(self.program.pipeline.decode_to_add(reply.update), name)
        except AnabranchError as error:
            refused = error.code in ("AB-501", "AB-502", "AB-503") or error.code in REFUSED
            fate = Fate.REFUSED if refused else Fate.FAILED
            return Outcome(client, fate, str(error), time.perf_counter() - started, task=work.task)
        except Exception as error:
            # A user's module may raise anything; the run names it and goes on without the client.
            detail = f"{type(error).__name__}: {error}"
            seconds = time.perf_counter() - started
            return Outcome(client, Fate.FAILED, detail, seconds, task=work.task)
        seconds = time.perf_counter() - started
        coarseness = self.program.pipeline.coarseness_of(reply.update)
        return Outcome(
            client,
            Fate.MERGED,
            seconds=seconds,
            bytes_up=reply.update.nbytes,
            task=work.task,
            coarseness=coarseness,
        )

    def _data(self, kind: TaskKind, client: int) -> Examples:
        if kind is TaskKind.TRAIN:
            return self.federation.train.of(client)
        if kind is TaskKind.EVALUATE:
            test = self.federation.test
            return (test if test is not None else self.federation.train).of(client)
        held = self.federation.holdout
        assert held is not None  # the coordinator asks for shards only when there is a hold-out
        rows = slice(client * HOLDOUT_SHARD, (client + 1) * HOLDOUT_SHARD)
        return Examples(held.x[rows], held.y[rows])
