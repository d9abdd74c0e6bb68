"""Traces: what was seen of devices over time, read from a table, replayed, written from a run.

A row says what held at one client from ``start`` to ``end`` (seconds): whether it was available and
on a charger, on which network, and, where measured, its battery level (0 to 1), speed, power and
rates. The rows of a client follow each other without gaps. A replay starts again when it has ended,
and what was not measured is drawn as for any other device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from anabranch.errors import AnabranchError
from anabranch.fleet.devices.draws import Draws
from anabranch.fleet.devices.network import NETWORK_NAMES
from anabranch.fleet.devices.tables import Bounds, DeviceTable, read_device_table
from anabranch.fleet.devices.truth import Performance, Truth
from anabranch.fleet.view import Codes, Column, Flags

__all__ = ["TRACE_COLUMNS", "Trace", "TracePresence", "TraceTruth", "read_trace"]

Rows: TypeAlias = NDArray[np.int64]

TRACE_COLUMNS: tuple[str, ...] = (
    "client",
    "start",
    "end",
    "available",
    "charging",
    "network",
    "battery",
    "gflops",
    "watts",
    "down_mbps",
    "up_mbps",
)
"""Columns of a trace; the first three it must have."""


@dataclass(frozen=True)
class Trace:
    """Intervals of all clients back to back: client i owns rows offsets[i]:offsets[i + 1].

    Attributes:
        offsets: shape (clients + 1,).
        start, end: seconds; within a client each starts where the one before ends.
        available, charging: flags.
        network: codes into `NETWORK_NAMES`; -1 where not said.
        battery: level from 0 to 1; NaN where not measured.
        flops, watts, down, up: FLOP/s, watts, bytes a second; NaN where not measured.
    """

    offsets: Rows
    start: Column
    end: Column
    available: Flags
    charging: Flags
    network: Codes
    battery: Column
    flops: Column
    watts: Column
    down: Column
    up: Column

    @cached_property
    def first(self) -> Column:
        """When each client's rows begin."""
        return self.start[self.offsets[:-1]]

    @cached_property
    def period(self) -> Column:
        """Seconds that each client's rows last; then they begin again."""
        return self.end[self.offsets[1:] - 1] - self.first

    @cached_property
    def _span(self) -> float:
        return float(self.period.max()) + 1.0

    @cached_property
    def _keys(self) -> Column:
        """Starts of all intervals on one line, a client after the other, for one search."""
        client = np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))
        return np.asarray(client * self._span + (self.start - self.first[client]))

    @cached_property
    def _until(self) -> Column:
        """When what an interval says of availability changes next, for each interval."""
        last = np.ones(len(self.end), np.bool_)  # of a stretch of equal availability
        last[:-1] = self.available[1:] != self.available[:-1]
        last[self.offsets[1:] - 1] = True
        stretch: Rows = np.cumsum(last, dtype=np.int64) - last
        return np.asarray(self.end[last][stretch])

    def place(self, rows: Rows, times: Column | float) -> tuple[Rows, Column]:
        """The interval of each client at its time, and the time within the client's trace."""
        within = np.mod(times, self.period[rows])
        found = np.searchsorted(self._keys, rows * self._span + within, side="right") - 1
        return found.astype(np.int64), within + self.first[rows]

    def change_after(self, rows: Rows, times: Column) -> tuple[Flags, Column]:
        """Whether each client is available at its time, and seconds until that changes."""
        found, at = self.place(rows, times)
        return self.available[found], self._until[found] - at


@dataclass(frozen=True)
class TracePresence:
    """Availability and charging as the trace has them.

    Attributes:
        trace: what was seen.
    """

    trace: Trace

    def available(self, rows: Rows, now: float) -> Flags:
        return self.trace.available[self.trace.place(rows, now)[0]]

    def charging(self, rows: Rows, now: float) -> Flags:
        return self.trace.charging[self.trace.place(rows, now)[0]]

    def session(self, rows: Rows, times: Column, draws: Draws, lane: int) -> Column:
        there, seconds = self.trace.change_after(rows, times)
        return np.where(there, seconds, 0.0)

    def away(self, rows: Rows, times: Column, draws: Draws, lane: int) -> Column:
        # A hair later: at the very end of a session the client is on the other side of the border.
        there, seconds = self.trace.change_after(rows, times + 1e-6)
        return np.where(there, 0.0, seconds + 1e-6)


@dataclass(frozen=True)
class TraceTruth:
    """Measured speeds, power and rates from the trace; what was not measured is drawn.

    Attributes:
        trace: what was seen.
        drawn: for the rest.
    """

    trace: Trace
    drawn: Truth

    def perform(self, rows: Rows, network: Codes, now: float, draws: Draws) -> Performance:
        usual, (found, _) = (
            self.drawn.perform(rows, network, now, draws),
            self.trace.place(rows, now),
        )
        trace = self.trace
        return Performance(
            flops=_or(trace.flops[found], usual.flops),
            watts=_or(trace.watts[found], usual.watts),
            radio=usual.radio,
            down=_or(trace.down[found], usual.down),
            up=_or(trace.up[found], usual.up),
        )


def _or(values: Column, otherwise: Column) -> Column:
    return np.where(np.isnan(values), otherwise, values)


def read_trace(path: Path, names: Sequence[str]) -> Trace:
    """A trace from a table.

    Args:
        path: CSV or Parquet with the columns of `TRACE_COLUMNS`.
        names: client identifiers in the order of client numbers; other clients are ignored.

    Raises:
        AnabranchError: AB-530 to AB-532 the table, AB-533 a client has no row, AB-534 rows of a
            client are unsorted, overlap, or leave a gap.
    """
    table = read_device_table(path)
    table.require(TRACE_COLUMNS[:3], TRACE_COLUMNS)
    rows, offsets = _rows_of(table, names)
    whole = _whole(table)
    _contiguous(table, whole, rows, offsets)
    columns = {f.name: getattr(whole, f.name)[rows] for f in fields(Trace) if f.name != "offsets"}
    return Trace(offsets, **columns)


def _rows_of(table: DeviceTable, names: Sequence[str]) -> tuple[Rows, Rows]:
    """The table's rows client after client, each in the order of the file."""
    number = {name: client for client, name in enumerate(names)}
    owner = np.array([number.get(name, -1) for name in table.texts("client")], np.int64)
    counts = np.bincount(owner[owner >= 0], minlength=len(names))
    if not counts.all():
        raise AnabranchError(
            "AB-533",
            f"{table.name} has no row for client {names[int(np.argmin(counts))]!r}.",
            fix="give every client of the federation at least one row; others are ignored.",
            kept="Nothing was read.",
        )
    order = np.argsort(owner, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return order[int((owner < 0).sum()) :], offsets


def _whole(table: DeviceTable) -> Trace:
    """All rows of the file, in its order."""

    def numbers(column: str, unit: str) -> Column:
        return table.numbers(column, Bounds(positive=True, unit=unit))

    words = table.texts("network", (*NETWORK_NAMES, "unknown"), default="unknown")
    codes = {name: code for code, name in enumerate(NETWORK_NAMES)}
    return Trace(
        offsets=np.empty(0, np.int64),
        start=table.numbers("start", Bounds(0, unit="s"), required=True),
        end=table.numbers("end", Bounds(0, unit="s"), required=True),
        available=table.flags("available", default=True),
        charging=table.flags("charging", default=False),
        network=np.array([codes.get(word, -1) for word in words], np.int16),
        battery=table.numbers("battery", Bounds(0, 1)),
        flops=numbers("gflops", "GFLOP/s") * 1e9,
        watts=numbers("watts", "W"),
        down=numbers("down_mbps", "Mbit/s") * 1e6 / 8,
        up=numbers("up_mbps", "Mbit/s") * 1e6 / 8,
    )


def _contiguous(table: DeviceTable, whole: Trace, rows: Rows, offsets: Rows) -> None:
    """Every interval has a length, and each starts where the one before it ended."""
    start, end = whole.start[rows], whole.end[rows]
    inner = np.ones(len(rows), np.bool_)
    inner[offsets[:-1]] = False
    before = np.roll(end, 1)
    troubles = (
        (end <= start, "ends before it starts"),
        (inner & (start < before), "starts before the row before it ends"),
        (inner & (start > before), "leaves a gap after the row before it"),
    )
    for bad, what in troubles:
        if bad.any():
            raise _broken(table, int(np.argmax(bad)), rows, what, start, end)


def _broken(
    table: DeviceTable, place: int, rows: Rows, what: str, start: Column, end: Column
) -> AnabranchError:
    row = int(rows[place])
    return AnabranchError(
        "AB-534",
        f"{table.name}: row {table.first + row} of client {table.columns['client'][row]!r} {what} "
        f"(it goes from {start[place]:g} to {end[place]:g} s).",
        fix="sort the rows of each client by time; where nothing was seen, write a row with "
        "available = no.",
        kept="Nothing was read.",
    )
