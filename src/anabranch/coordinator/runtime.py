"""What a runtime is: it carries work to clients and brings back outcomes and sums.

A runtime is small on purpose. It is given work and the fold as a value, and yields for every
client an `Outcome`, and for those that answered either a `Payload` (one client's update) or a
`Partial` (an exact sum over several). The coordinator only merges. Whether the clients are worker
processes, phones or another framework's fleet does not show here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from anabranch.aggregation.fold import FoldPlan
from anabranch.algorithms.base import Broadcast
from anabranch.client.task import Fate, Task, TaskKind
from anabranch.coordinator.frames import Frames
from anabranch.fleet.timeline import TaskTrace
from anabranch.fleet.view import FleetView
from anabranch.updates.container import Buffer
from anabranch.updates.total import Finest, Total

if TYPE_CHECKING:  # the store needs its database; runtimes do not
    from anabranch.coordinator.store.grouped import TwoPhase

__all__ = [
    "Fate",
    "FollowsRounds",
    "Framed",
    "Outcome",
    "Partial",
    "Payload",
    "RemoteRuntime",
    "Runtime",
    "RuntimeEvent",
    "SeesDevices",
    "VirtualRuntime",
    "Work",
]


@dataclass(frozen=True, slots=True)
class Work:
    """The same question to several clients.

    Attributes:
        kind: what is asked.
        round: the model version being made or evaluated.
        clients: numbers of the clients (or shards) asked.
        broadcast: vectors that every one of them receives.
        fold: sections and capacity of the sum.
        finest: TOTAL lets the runtime fold (`Partial`); INDIVIDUALS asks for every `Payload`.
        task: 32 hexadecimal digits that name this piece of work in the run; (task, client) is one
            client's task. Empty where nothing outlives the call, such as in a test.
        draw: number from which the public generators of these tasks derive: unique for each piece
            of training work of a run, equal to ``round`` in synchronous ones; 0 means the round.
        letters: bytes for single clients, each for its addressee alone (interactive stages).
        fractions: share of the planned local work for clients that are asked less than all of it.
        seconds: that the clients are given, from now to the answer; None without a limit.
        update_bytes: most bytes of the encoded update of single clients, where that hangs on the
            network that they use.
        frames: the broadcast as each client gets it, where the plan has a downlink; they decode to
            the sections of ``broadcast`` that they name.
        sizes: bytes of the download of clients that were asked before a restart; their frames are
            not at hand any more.
    """

    kind: TaskKind
    round: int
    clients: tuple[int, ...]
    broadcast: Broadcast
    fold: FoldPlan
    finest: Finest = Finest.TOTAL
    task: str = ""
    draw: int = 0
    letters: Mapping[int, bytes] = field(default_factory=dict)
    fractions: Mapping[int, float] = field(default_factory=dict)
    update_bytes: Mapping[int, int] = field(default_factory=dict)
    frames: Frames | None = None
    seconds: float | None = None
    sizes: Mapping[int, int] = field(default_factory=dict)

    def bytes_to(self, client: int) -> int:
        """Bytes of the broadcast to one client: of its frame, and of float32 numbers."""
        if client in self.sizes:
            return self.sizes[client]
        framed = self.frames.names if self.frames is not None else ()
        plain = 4 * sum(len(v) for name, v in self.broadcast.items() if name not in framed)
        return plain + (len(self.frames.frame(client)) if self.frames is not None else 0)

    def bytes_whole(self) -> int:
        """Bytes of the broadcast to a client that holds none of the versions it is believed to."""
        return self.bytes_to(-1)

    def task_of(self, client: int, name: str) -> Task:
        """What ``client``, called ``name``, is asked."""
        draw, fraction = self.draw or self.round, self.fractions.get(client, 1.0)
        most = self.update_bytes.get(client)
        return Task(self.kind, self.round, client, name, draw, self.task, fraction, most)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it went for one client.

    Attributes:
        client: number of the client.
        fate: MERGED when its answer is in the payload or partial that came with this outcome.
        detail: error code and text, or empty; never values of the data.
        seconds: time the client worked.
        bytes_up: bytes of its answer.
        task: name of the piece of work.
        trace: what the task did to the device, where that is simulated or reported.
        bytes_down: of the broadcast that it fetched, where that is not what was meant for it.
        coarseness: how coarsely its update is encoded, where the codec chooses that.
    """

    client: int
    fate: Fate
    detail: str = ""
    seconds: float = 0.0
    bytes_up: int = 0
    task: str = ""
    trace: TaskTrace | None = None
    bytes_down: int | None = None
    coarseness: float | None = None


@dataclass(frozen=True, slots=True)
class Payload:
    """One client's encoded update, as bytes of the declared sections, or as a mapped file."""

    client: int
    content: Buffer
    task: str = ""


@dataclass(frozen=True, slots=True)
class Partial:
    """An exact sum over several clients' updates."""

    total: Total
    clients: tuple[int, ...]
    task: str = ""


Framed: TypeAlias = Literal["differences", "whole"]

RuntimeEvent: TypeAlias = Outcome | Payload | Partial


class Runtime(Protocol):
    """Carries work; keeps the two-phase memory of simulated clients."""

    def submit(self, work: Work) -> None:
        """Ask the clients of ``work``; returns at once."""
        ...

    def poll(self, timeout: float | None) -> Sequence[RuntimeEvent]:
        """What happened since the last call; waits at most ``timeout`` seconds for something."""
        ...

    def abandon(self, task: str | None = None) -> Sequence[Outcome]:
        """Give up one piece of work, or all: a TOO_LATE outcome for each client still asked."""
        ...

    def settle(self, task: str, fates: Mapping[int, Fate]) -> None:
        """Tell clients the fate of a training task: what was merged promotes pending memory."""
        ...

    def now(self) -> float:
        """The runtime's clock in seconds: monotonic, and virtual where devices are simulated."""
        ...

    def close(self) -> None:
        """End every process and free every resource; may be called twice."""
        ...


@runtime_checkable
class VirtualRuntime(Runtime, Protocol):
    """A runtime whose clock is simulated, so that a resumed run must set it."""

    def arrays(self) -> Mapping[str, NDArray[np.generic]]:
        """What the devices' state consists of: part of the run's state."""
        ...

    def restore(self, now: float, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Go on at this time of the clock, with the devices' state of that time."""
        ...

    def resubmit(self, work: Work, at: float) -> None:
        """Work that was given out at ``at``, before the restart, and is still open."""
        ...


@runtime_checkable
class FollowsRounds(Protocol):
    """A runtime that must know which model version is being made."""

    def begin_round(self, number: int) -> Mapping[str, tuple[int, ...]]:
        """From now on answers count for this version.

        Returns:
            Clients by training task that a sum of this version was about when the coordinator
            ended: it will be opened again, and the round must know of them.
        """
        ...


@runtime_checkable
class SeesDevices(Protocol):
    """A runtime that knows something of its clients' devices, simulated or reported."""

    def view(self, now: float) -> FleetView:
        """What may be known of the fleet at a time of the runtime's clock."""
        ...


class RemoteRuntime(Runtime, Protocol):
    """A runtime whose clients keep their memory themselves.

    Attributes:
        framed: which encoded broadcasts it carries (`Work.frames`): differences, where clients
            can ask for the whole model when they do not hold the base, or whole models alone.
    """

    @property
    def framed(self) -> Framed: ...

    def two_phase(self) -> TwoPhase:
        """For the journal; from now on clients hear a fate only once its round is durable."""
        ...
