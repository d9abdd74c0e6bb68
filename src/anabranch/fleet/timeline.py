"""What one task did to one device: times, bytes, joules. The round record keeps it as columns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TypeAlias

__all__ = ["TRACE_PREFIX", "TaskTrace", "trace_columns", "traces_of"]

Cell: TypeAlias = str | int | float | None

TRACE_PREFIX = "device."
"""Columns of a round record that hold timelines carry this prefix."""


@dataclass(frozen=True, slots=True)
class TaskTrace:
    """The timeline of one client's task. Seconds are of the runtime's clock (virtual or real).

    Attributes:
        asked: when the client was asked.
        download, train, upload: seconds of work in each phase, repeated work included.
        idle: seconds in between, in which the device was away.
        bytes_down, bytes_up: carried over the network, repeated bytes included.
        modelled: joules by the energy model, from what the coordinator knew beforehand.
        reported: joules that the client says it used; NaN when it cannot measure.
        spent: joules really used. Only a simulation knows them (its hidden truth); else NaN.
        share: part of the device's full battery that the task used: of ``spent`` where known, else
            of ``reported``, else of ``modelled``; NaN on the mains.
        level: battery level when the task ended, from 0 to 1; NaN on the mains or unknown.
        work: fraction of the planned local work that was asked.
        flops: floating-point operations of that work; NaN where not known.
        interruptions: how often the device went away and came back.
        device: class of the device.
        network: network in use.
        charging: whether the device was on a charger when it was asked.
    """

    asked: float
    download: float = 0.0
    train: float = 0.0
    upload: float = 0.0
    idle: float = 0.0
    bytes_down: int = 0
    bytes_up: int = 0
    modelled: float = math.nan
    reported: float = math.nan
    spent: float = math.nan
    share: float = math.nan
    level: float = math.nan
    work: float = 1.0
    flops: float = math.nan
    interruptions: int = 0
    device: str = ""
    network: str = ""
    charging: bool = False

    @property
    def seconds(self) -> float:
        """From being asked to the end.

        >>> TaskTrace(asked=0.0, download=1.0, train=5.0, upload=2.0, idle=4.0).seconds
        12.0
        """
        return self.download + self.train + self.upload + self.idle


_NAMES = tuple(field.name for field in fields(TaskTrace))
_DIGITS = 6


def trace_columns(traces: Sequence[TaskTrace | None]) -> dict[str, list[Cell]]:
    """Columns for a round record, one row for each client; missing values are None.

    >>> trace_columns([None, None])
    {}
    """
    if not any(trace is not None for trace in traces):
        return {}
    return {TRACE_PREFIX + name: [_cell(trace, name) for trace in traces] for name in _NAMES}


def _cell(trace: TaskTrace | None, name: str) -> Cell:
    if trace is None:
        return None
    value = getattr(trace, name)
    if isinstance(value, float):
        return round(value, _DIGITS) if math.isfinite(value) else None
    return int(value) if isinstance(value, bool) else value


def traces_of(columns: Mapping[str, Sequence[Cell]]) -> list[TaskTrace | None]:
    """The inverse of `trace_columns`, up to its rounding; an empty list without such columns."""
    held = {name: columns[TRACE_PREFIX + name] for name in _NAMES if TRACE_PREFIX + name in columns}
    if "asked" not in held:
        return []
    rows = [{name: cells[row] for name, cells in held.items()} for row in range(len(held["asked"]))]
    return [_trace(row) for row in rows]


def _trace(row: Mapping[str, Cell]) -> TaskTrace | None:
    if row.get("asked") is None:
        return None
    values = {name: math.nan if cell is None else cell for name, cell in row.items()}
    values["charging"] = bool(row.get("charging"))
    return TaskTrace(**values)  # type: ignore[arg-type]  # cells as they were written
