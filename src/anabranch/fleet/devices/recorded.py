"""A run as a trace: what was seen of its clients' devices, for a replay in simulation.

Each task becomes rows of a trace (`fleet.devices.traces`): its client was there from being asked to
its answer, with the speed, power and rates that were measured. Between two tasks nothing was seen;
such a gap counts as available while it is shorter than ``seen_within``, else as away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from anabranch.fleet.devices.energy import radio_joules
from anabranch.fleet.devices.network import NETWORK_NAMES
from anabranch.fleet.devices.tables import Cell
from anabranch.fleet.devices.traces import TRACE_COLUMNS
from anabranch.fleet.timeline import TaskTrace

__all__ = ["SeenTask", "trace_table"]

_MEGABIT = 8e-6
_SHORTEST = 1e-3


@dataclass(frozen=True)
class SeenTask:
    """One task of a stored run.

    Attributes:
        client: its name.
        answered: whether its answer arrived, so that its times are its own.
        trace: its timeline.
    """

    client: str
    answered: bool
    trace: TaskTrace


def trace_table(
    tasks: Sequence[SeenTask], clients: Sequence[str] = (), seen_within: float = 600.0
) -> Mapping[str, Sequence[Cell]]:
    """Columns of a trace; every client from time 0 to the end of the last task.

    Args:
        tasks: of the whole run, in any order.
        clients: names in the order wanted; who had no task was never seen.
        seen_within: seconds between two tasks of a client up to which it counts as available.
    """
    by_client: dict[str, list[SeenTask]] = {name: [] for name in clients}
    for task in sorted(tasks, key=lambda task: task.trace.asked):
        by_client.setdefault(task.client, []).append(task)
    every = {name: _rows(of_one, seen_within) for name, of_one in by_client.items()}
    last = max((float(str(rows[-1]["end"])) for rows in every.values() if rows), default=1.0)
    rows = [row for name, of_one in every.items() for row in _to_the_end(name, of_one, last)]
    return {name: [row.get(name) for row in rows] for name in TRACE_COLUMNS}


def _to_the_end(name: str, rows: list[dict[str, Cell]], last: float) -> list[dict[str, Cell]]:
    """The rows of one client, and that it was not seen after them."""
    end = float(str(rows[-1]["end"])) if rows else 0.0
    if end < last:
        return [*rows, {"client": name, "start": end, "end": last, "available": "no"}]
    return rows


def _rows(tasks: Sequence[SeenTask], seen_within: float) -> list[dict[str, Cell]]:
    """The rows of one client: from time 0, without gaps."""
    rows: list[dict[str, Cell]] = []
    end = 0.0
    for task in tasks:
        start = max(task.trace.asked, end)
        if start > end:
            there = start - end <= seen_within
            rows.append(_row(task, end, start, "yes" if there else "no", measured=there))
        end = start + max(task.trace.seconds, _SHORTEST)
        rows.append(_row(task, start, end, "yes", measured=task.answered))
    if tasks and not tasks[-1].answered:  # it was not heard of again
        rows[-1]["available"] = "no"
    return rows


def _row(
    task: SeenTask, start: float, end: float, available: str, *, measured: bool
) -> dict[str, Cell]:
    row: dict[str, Cell] = {
        "client": task.client,
        "start": start,
        "end": end,
        "available": available,
        "charging": "yes" if task.trace.charging else "no",
        "network": task.trace.network or None,
    }
    return row | (_measured(task.trace) if measured and task.answered else {})


def _measured(trace: TaskTrace) -> dict[str, Cell]:
    """Speeds, from amounts and times; None where one of them is not known or nothing."""
    return {
        "battery": trace.level if 0 <= trace.level <= 1 else None,
        "gflops": _rate(trace.flops * 1e-9, trace.train),
        "watts": _rate(trace.reported - _radio(trace), trace.train),
        "down_mbps": _rate(trace.bytes_down * _MEGABIT, trace.download),
        "up_mbps": _rate(trace.bytes_up * _MEGABIT, trace.upload),
    }


def _radio(trace: TaskTrace) -> float:
    """Joules of the radio by the model; a client measures all of its energy in one number."""
    if trace.network not in NETWORK_NAMES:
        return 0.0
    code = np.array([NETWORK_NAMES.index(trace.network)], np.int16)
    down, up = np.array([float(trace.bytes_down)]), np.array([float(trace.bytes_up)])
    return float(radio_joules(code, down, up, 1.0 + trace.interruptions)[0])


def _rate(amount: float, seconds: float) -> float | None:
    if not amount > 0 or not seconds > 0:
        return None
    return amount / seconds
