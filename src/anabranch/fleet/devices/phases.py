"""What is known of simulated tasks from one phase to the next: columns, a row for each task."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from anabranch.fleet.devices.draws import Draws
from anabranch.fleet.devices.truth import Performance
from anabranch.fleet.view import Codes, Column, Flags

__all__ = ["Begun", "Content", "Ended"]

Rows: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class Content:
    """With how much less than the asked work devices are content, one row for each task.

    Attributes:
        seconds: that the task may take, from being asked to the answer; inf without a limit.
        joules: that it may cost; inf without a limit.
        bytes_up: of the answer, as expected.
        least: share of the work below which nothing is sent: one step.
    """

    seconds: Column
    joules: Column
    bytes_up: Column
    least: Column


@dataclass(frozen=True)
class Begun:
    """Tasks whose training is decided: one row for each client that was asked.

    Attributes:
        rows: client numbers.
        draws: random numbers of the piece of work.
        asked: when it was given out, on the virtual clock.
        network: in use, a code into `NETWORK_NAMES`.
        real: what the devices really do.
        charging: on a charger when asked.
        flops: of the work that was asked.
        bytes_down: needed.
        download, train, idle: seconds.
        downloaded: when the last byte came down, on the virtual clock; inf when it never did.
        carried: bytes that came down, repeated ones included.
        interruptions: so far.
        left: seconds that the device stays after its training.
        trained: when training ends, on the virtual clock; inf when it never does.
        done: share of the asked work that was done; below 1 where the device stopped early.
        modelled: joules of computing and download by the model.
    """

    rows: Rows
    draws: Draws
    asked: Column
    network: Codes
    real: Performance
    charging: Flags
    flops: Column
    bytes_down: Column
    download: Column
    train: Column
    idle: Column
    downloaded: Column
    carried: Column
    interruptions: NDArray[np.int64]
    left: Column
    trained: Column
    done: Column
    modelled: Column

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, index: Rows) -> Begun:
        """Some of the rows."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        real = {f.name: getattr(self.real, f.name)[index] for f in fields(self.real)}
        columns = {k: v[index] for k, v in values.items() if isinstance(v, np.ndarray)}
        return replace(self, real=Performance(**real), **columns)  # type: ignore[arg-type]  # arrays only


@dataclass(frozen=True)
class Ended:
    """How tasks went on from the end of their training; rows as in the `Begun` they come from.

    Attributes:
        upload: seconds of sending.
        idle: seconds away, of the whole task.
        carried: bytes that went up, repeated ones included.
        interruptions: of the whole task.
        ended: when the last byte arrived, on the virtual clock; inf when it never does.
        modelled, reported, spent: joules by the model, by the client (NaN where it cannot
            measure), and really.
    """

    upload: Column
    idle: Column
    carried: Column
    interruptions: NDArray[np.int64]
    ended: Column
    modelled: Column
    reported: Column
    spent: Column

    def take(self, index: Rows) -> Ended:
        """Some of the rows."""
        return Ended(**{f.name: getattr(self, f.name)[index] for f in fields(self)})
