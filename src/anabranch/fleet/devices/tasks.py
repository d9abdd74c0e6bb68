"""What becomes of tasks on devices: download, training, upload, going away and coming back.

All columns, one row for each task. A phase that is broken off goes on when the device is back, as
over the network: a download from the last byte that arrived; an upload from the last byte that the
coordinator has, unless it is small enough to be one request, which is then repeated; training from
its last checkpoint. Where nothing is resumable the task is lost with the connection.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anabranch.fleet.devices.availability import Presence
from anabranch.fleet.devices.draws import Draws
from anabranch.fleet.view import Column

__all__ = ["IN_FLIGHT", "Phase", "Stop", "sent_again", "work_through"]

Rows = NDArray[np.int64]
IN_FLIGHT = 65_536.0
"""Bytes of a download that a lost connection takes with it."""
_ONE_REQUEST, _PIECE = float(1 << 20), float(1 << 18)
_INTERRUPTIONS = 200
"""Interruptions of one phase after which a task counts as lost."""


@dataclass(frozen=True)
class Phase:
    """How one phase went, for each task.

    Attributes:
        active: seconds of work, repeated work included.
        idle: seconds away.
        left: seconds that the device still stays after the phase.
        done: share of the needed work that was done; below 1 where it was stopped early.
        interruptions: how often it went away.
        broken: whether the task was lost in this phase.
    """

    active: Column
    idle: Column
    left: Column
    done: Column
    interruptions: NDArray[np.int64]
    broken: NDArray[np.bool_]

    @property
    def seconds(self) -> Column:
        """From the begin of the phase to its end, or to where it was lost."""
        return self.active + self.idle


@dataclass(frozen=True)
class Stop:
    """When devices end a phase although work is left, for each task.

    Attributes:
        at: time of the virtual clock; a device that is away then ends when it comes back.
        most: seconds of work, repeated work included.
        each: seconds of work that an interruption costs of these, since the radio wakes up again.
        least: share of the work that is done all the same.
    """

    at: Column
    most: Column
    each: Column
    least: Column

    def room(self, rows: Rows, now: Column, used: Column, missing: Column) -> Column:
        """Seconds for which each of ``rows`` still works; ``missing`` ones towards the least."""
        room = np.minimum(self.at[rows] - now, self.most[rows] - used)
        return np.maximum(np.maximum(room, missing), 0.0)


def sent_again(size: Column) -> Column:
    """Bytes of an upload between points from which it goes on: itself up to 1 MiB, then 256 KiB.

    >>> sent_again(np.array([3e5, 5e6])).tolist()
    [300000.0, 262144.0]
    """
    return np.where(size <= _ONE_REQUEST, np.maximum(size, 1.0), _PIECE)


def work_through(
    needed: Column,
    keep: Column,
    left: Column,
    rows: Rows,
    times: Column,
    presence: Presence,
    draws: Draws,
    lane: int,
    stop: Stop | None = None,
) -> Phase:
    """Work ``needed`` seconds on each device, through its absences.

    Args:
        needed: seconds of work, undisturbed.
        keep: seconds between points from which work goes on; 0 when it is lost instead.
        left: seconds for which each device still stays.
        rows: client numbers.
        times: when each begins, on the virtual clock.
        presence: how long devices stay and are away.
        draws: of the task.
        lane: first of a thousand lanes of ``draws`` for this phase.
        stop: when devices are content with less; None for never.
    """
    count = len(rows)
    todo, stay = needed.copy(), left.copy()

    def wanted(some: Rows) -> Column:
        """Seconds of work that these would still do, undisturbed."""
        if stop is None:
            return todo[some]
        missing = stop.least[some] * needed[some] - (needed[some] - todo[some])
        now = times[some] + active[some] + idle[some]
        used = active[some] + stop.each[some] * interruptions[some]
        return np.minimum(todo[some], stop.room(some, now, used, missing))

    active, idle = np.zeros(count), np.zeros(count)
    interruptions = np.zeros(count, np.int64)
    broken = np.zeros(count, np.bool_)
    every = np.arange(count)
    off = np.flatnonzero(wanted(every) > stay)
    for turn in range(_INTERRUPTIONS):
        if not len(off):
            break
        interruptions[off] += 1
        active[off] += stay[off]
        safe = np.where(keep[off] > 0, keep[off], 1.0)
        todo[off] -= np.floor(stay[off] / safe) * safe * (keep[off] > 0)
        stay[off] = 0.0
        broken[off[keep[off] <= 0]] = True
        off = off[keep[off] > 0]
        now = times[off] + active[off] + idle[off]
        idle[off] += presence.away(rows[off], now, draws, lane + 2 * turn)
        now = times[off] + active[off] + idle[off]
        stay[off] = presence.session(rows[off], now, draws, lane + 2 * turn + 1)
        off = off[wanted(off) > stay[off]]
    broken[off] = True
    last = np.where(broken, 0.0, wanted(every))
    active, stay, todo = active + last, stay - last, todo - last
    return Phase(active, idle, stay, _done(todo, needed), interruptions, broken)


def _done(todo: Column, needed: Column) -> Column:
    """Share of the work that is done; all of it where none was needed."""
    return np.where(needed > 0, 1.0 - todo / np.where(needed > 0, needed, 1.0), 1.0)
