"""What a task costs by the model of a device: seconds and joules, before any experience.

    training = flops of the work / flops a second
    transfer = bytes down / rate down + bytes up / rate up + round trips * latency
    joules   = watts * training + bytes * joules a byte + joules of the sessions

Everything is a column over clients, computed from what the coordinator may know.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from anabranch.fleet.view import Column, Flags, FleetView

__all__ = ["Modelled", "TaskCost", "modelled"]


@dataclass(frozen=True, slots=True)
class TaskCost:
    """What one training task asks of a client.

    Attributes:
        bytes_down, bytes_up: of the broadcast and of the update, as encoded; a column where clients
            are sent different frames.
        flops: floating-point operations of one training example: forward, backward and update
            (about six a multiply-add of the forward pass).
        epochs: passes over the client's examples; None when ``steps`` is given.
        steps: optimizer steps; None when ``epochs`` is given.
        batch_size: examples of a step; 0 for all of the client's.
        examples: of a client that did not announce how many it has.
        memory: bytes that training needs.
        frozen: bytes of the part of the model that never changes; a client downloads them once,
            with its first task.
        sessions: radio sessions of the task; messages that are sent together share one.
        round_trips: of the whole exchange.
    """

    bytes_down: float | Column = 0.0
    bytes_up: float | Column = 0.0
    flops: float = 0.0
    epochs: int | None = 1
    steps: int | None = None
    batch_size: int = 32
    examples: float = 100.0
    memory: float = 0.0
    frozen: float = 0.0
    sessions: float = 1.0
    round_trips: float = 4.0

    def held(self, view: FleetView) -> Column:
        """Training examples of each client."""
        known = np.isfinite(view.examples)
        return np.where(known, view.examples, self.examples)

    def down(self, first: Flags | None = None) -> Column | float:
        """Bytes of each download; ``first`` marks clients that do not hold the frozen part."""
        if first is None or not self.frozen:
            return self.bytes_down
        return np.asarray(self.bytes_down + self.frozen * first)

    def planned_steps(self, view: FleetView) -> Column:
        """Optimizer steps of the whole task of each client, at least one."""
        if self.steps is not None:
            return np.full(len(view), float(self.steps))
        held = np.maximum(self.held(view), 1.0)
        size = held if self.batch_size == 0 else float(self.batch_size)
        return np.asarray((self.epochs or 1) * np.ceil(held / size))

    def seen(self, view: FleetView) -> Column:
        """Examples that the whole task computes with, each counted as often as it is used."""
        held = self.held(view)
        if self.steps is None:
            return np.asarray((self.epochs or 1) * held)
        size = held if self.batch_size == 0 else np.minimum(held, self.batch_size)
        return np.asarray(self.steps * size)


@dataclass(frozen=True, slots=True)
class Modelled:
    """The model's columns for the whole task.

    Attributes:
        training: seconds of computing. A device of which nothing is known takes one second, so
            that its factor becomes the logarithm of its time.
        transfer: seconds of downloads, uploads and round trips.
        compute_joules: energy of computing.
        radio_joules: energy of the radio.
        known: whether the device's speed or network is known at all.
    """

    training: Column
    transfer: Column
    compute_joules: Column
    radio_joules: Column
    known: Flags

    def rows(self, clients: NDArray[np.int64]) -> Modelled:
        """The columns of some clients only."""
        return Modelled(*(getattr(self, field.name)[clients] for field in fields(self)))

    @property
    def joules(self) -> Column:
        """Energy of the whole task."""
        return self.compute_joules + self.radio_joules


def modelled(view: FleetView, cost: TaskCost, first: Flags | None = None) -> Modelled:
    """Seconds and joules of the whole task for every client, by the model alone.

    Args:
        view: columns of devices.
        cost: of the whole task.
        first: clients that still have to download the frozen part of the model; None for nobody.

    >>> from anabranch.fleet.view import unknown_fleet
    >>> found = modelled(unknown_fleet(2), TaskCost(bytes_up=1e6, flops=1e9))
    >>> found.training.tolist(), found.joules.tolist(), found.known.tolist()
    ([1.0, 1.0], [0.0, 0.0], [False, False])
    """
    training = cost.flops * cost.seen(view) / view.flops
    bytes_down = cost.down(first)
    transfer = bytes_down / view.down + cost.bytes_up / view.up + cost.round_trips * view.latency
    radio = (
        bytes_down * view.joules_down
        + cost.bytes_up * view.joules_up
        + cost.sessions * view.joules_session
    )
    known = (training > 0) | (transfer > 0)
    compute = view.watts * training
    return Modelled(np.where(known, training, 1.0), transfer, compute, radio, known)
