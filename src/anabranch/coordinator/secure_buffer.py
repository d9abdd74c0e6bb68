"""Updates that wait at their clients until enough are ready for a sum (asynchronous rounds).

A client that has trained holds its update and shows a commitment to it. When K are ready, a sum is
formed of them: keys are exchanged, each client damps its update by the staleness that the list of
bases makes public, and sends it behind masks. So masks never outlive a sum, however old the models
are that the updates were made from. FedBuff: Nguyen et al. 2022; a cohort formed at upload: So et
al. 2021, "Secure Aggregation for Buffered Asynchronous Federated Learning".
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from anabranch.client.secure import broadcast_digest
from anabranch.coordinator.collect import TaskKey
from anabranch.coordinator.runtime import Fate, Outcome, Partial, Payload, RuntimeEvent, Work
from anabranch.privacy.secure_aggregation.bases import Base, Bases

__all__ = ["HeldUpdates"]


@dataclass
class HeldUpdates:
    """Who trains, and who is ready; the coordinator sees no update here.

    Attributes:
        run: identifier of the run.
        names: client identifiers by number.
        buffer: updates that make a sum (K).
        version: the model version being made.
        forming: whether a sum may be formed now: once a version, and not while it is evaluated.
    """

    run: str
    names: tuple[str, ...]
    buffer: int
    version: int = 0
    forming: bool = False
    _training: dict[str, Work] = field(default_factory=dict)
    _digests: dict[str, bytes] = field(default_factory=dict)
    _open: dict[str, set[int]] = field(default_factory=dict)
    _ready: dict[TaskKey, Outcome] = field(default_factory=dict)
    _summed: dict[int, tuple[TaskKey, Outcome]] = field(default_factory=dict)
    _recalled: dict[TaskKey, tuple[int, float]] = field(default_factory=dict)

    # Training ------------------------------------------------------------------------------

    def begin(self, work: Work) -> None:
        """Training was given out."""
        self._training[work.task] = work
        self._digests[work.task] = broadcast_digest(work.broadcast)
        self._open[work.task] = set(work.clients)

    def knows(self, task: str) -> bool:
        """Whether it is training that was given out, and some of it is open."""
        return task in self._training

    def take(self, event: RuntimeEvent) -> list[RuntimeEvent]:
        """An answer to training: what the loop hears of it now."""
        if isinstance(event, Partial) or event.client not in self._open[event.task]:
            return []
        key = TaskKey(event.task, event.client)
        if event.client in self._summed and self._summed[event.client][0] == key:
            return []  # told once more after a restart
        if isinstance(event, Payload):
            size = len(event.content)
            self._ready[key] = Outcome(event.client, Fate.MERGED, bytes_up=size, task=event.task)
            return []
        if not event.fate.counts:
            self._close(key)
            return [event]
        if key in self._ready:
            _, seconds = self._recalled.get(key, (0, event.seconds))
            self._ready[key] = replace(event, seconds=seconds)
        return []

    def give_up(self, task: str | None) -> list[Outcome]:
        """The updates of a piece of work, or all, that are ready and wait: too late for them."""
        gone = [key for key in self._ready if task in (None, key.task)]
        late = [replace(self._ready[key], fate=Fate.TOO_LATE) for key in gone]
        for key in gone:
            self._close(key)
        return late

    def forget(self, task: str, clients: Iterable[int]) -> None:
        """The loop has settled a piece of work, or a part of it."""
        for client in clients:
            self._close(TaskKey(task, client))

    # Sums ----------------------------------------------------------------------------------

    @property
    def complete(self) -> bool:
        """Whether a sum can be formed now."""
        return self.forming and not self._summed and len(self._ready) >= self.buffer

    def form(self, number: int) -> tuple[Work, Bases]:
        """A sum of those who have been ready longest.

        Args:
            number: of the sum; each has its own.
        """
        last = len(self._recalled)
        first = sorted(self._ready, key=lambda key: self._recalled.get(key, (last, 0.0))[0])
        chosen = first[: self.buffer]
        self._summed = {key.client: (key, self._ready.pop(key)) for key in chosen}
        bases = {self.names[key.client]: self._base(key) for key in chosen}
        return self._work(number), Bases(self.version, bases)

    def resume(self, number: int, bases: Bases) -> Work | None:
        """A sum that was being opened when the coordinator ended; None if its tasks are unknown.

        Args:
            number: of the sum.
            bases: of its members.
        """
        members = self.members(bases)
        if not all(self.knows(task) for task in members):
            return None
        for task, clients in members.items():
            for client in clients:
                ready = Outcome(client, Fate.MERGED, task=task)
                key = TaskKey(task, client)
                self._summed[client] = (key, self._ready.pop(key, ready))
        return self._work(number)

    def members(self, bases: Bases) -> dict[str, tuple[int, ...]]:
        """Clients by training task."""
        numbers = {name: number for number, name in enumerate(self.names)}
        found: dict[str, tuple[int, ...]] = {}
        for name, base in bases.of.items():
            if name in numbers:
                found[base.task] = (*found.get(base.task, ()), numbers[name])
        return found

    def _work(self, number: int) -> Work:
        """What is asked of those in the sum."""
        first = next(iter(self._summed.values()))[0]
        return replace(
            self._training[first.task],
            round=number,
            clients=tuple(self._summed),
            broadcast={},
            task=sha256(f"{self.run}/sum/{number}".encode()).hexdigest()[:32],
            draw=self.version,
            fractions={},
            frames=None,
        )

    def ended(
        self, events: Iterable[RuntimeEvent], again: Container[int] = ()
    ) -> list[RuntimeEvent]:
        """How a sum ended, told of the training tasks that it was about.

        Args:
            events: of the sum; one partial if it was opened.
            again: clients whose updates were not masked, and are ready still.
        """
        told: list[RuntimeEvent] = []
        for event in events:
            if isinstance(event, Partial):
                self.forming = False
                first = self._summed[event.clients[0]][0].task
                told.append(replace(event, task=first))
            elif isinstance(event, Outcome):
                key, trained = self._summed[event.client]
                if event.client in again:
                    self._ready[key] = trained
                else:
                    self._close(key)
                    told.append(_together(trained, event))
        self._summed = {}
        return told

    def in_sum(self, task: str | None) -> bool:
        """Whether the open sum holds an update of this piece of work, or of any (None)."""
        return any(task in (None, key.task) for key, _ in self._summed.values())

    # Restarts ------------------------------------------------------------------------------

    def array(self) -> NDArray[np.float64]:
        """Who is ready, (updates, 3): number of the draw, client, seconds of training."""
        rows = [
            (self._training[key.task].draw, key.client, outcome.seconds)
            for key, outcome in self._ready.items()
        ]
        return np.array(rows, np.float64).reshape(len(rows), 3)

    def recall(
        self, work: Work, before: Mapping[tuple[int, int], tuple[int, float]]
    ) -> tuple[int, ...]:
        """The clients of a piece of work that had trained before a restart.

        Args:
            before: place among those who were ready, and seconds of training, by draw and client.
        """
        known = {c: before[work.draw, c] for c in work.clients if (work.draw, c) in before}
        self._recalled |= {TaskKey(work.task, client): found for client, found in known.items()}
        return tuple(known)

    def _base(self, key: TaskKey) -> Base:
        return Base(key.task, self._training[key.task].round, self._digests[key.task])

    def _close(self, key: TaskKey) -> None:
        self._ready.pop(key, None)
        self._recalled.pop(key, None)
        left = self._open.get(key.task, set())
        left.discard(key.client)
        if not left:
            for known in (self._training, self._digests, self._open):
                known.pop(key.task, None)


def _together(trained: Outcome, summed: Outcome) -> Outcome:
    """One outcome of the training and of the sum that followed."""
    return replace(
        trained,
        fate=summed.fate,
        detail=summed.detail,
        seconds=trained.seconds + summed.seconds,
        bytes_up=trained.bytes_up + summed.bytes_up,
    )
