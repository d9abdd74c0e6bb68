"""Every question to the tables."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import numpy as np
from sqlalchemy import Connection, bindparam, func, select

from anabranch.coordinator.store import rows, tables
from anabranch.coordinator.store.records import (
    RunRecord,
    StoredEvent,
    StoredRelease,
    StoredRound,
)

__all__ = [
    "events_of",
    "labels_of",
    "last_round",
    "named",
    "one_run",
    "releases_of",
    "rounds_of",
    "runs",
    "slots_of",
    "states_of",
]

_CHUNK: Final = 500  # below the parameter limit of every database

# Built once, because every commit asks it.
_NAMED: Final = select(tables.states.c.digest).where(
    tables.states.c.digest.in_(bindparam("some", expanding=True))
)


def runs(connection: Connection) -> tuple[RunRecord, ...]:
    """All runs, newest first."""
    table = tables.runs
    query = select(table).order_by(table.c.created.desc(), table.c.id)
    return tuple(rows.read_run(row) for row in connection.execute(query).mappings())


def one_run(connection: Connection, run: str) -> RunRecord | None:
    """The run with this id."""
    query = select(tables.runs).where(tables.runs.c.id == run)
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else rows.read_run(row)


def last_round(connection: Connection, run: str) -> int | None:
    """Number of the last durable round."""
    table = tables.rounds
    query = select(func.max(table.c.round)).where(table.c.run == run)
    found: int | None = connection.execute(query).scalar_one()
    return found


def rounds_of(connection: Connection, run: str, clients: bool) -> tuple[StoredRound, ...]:
    """The rounds of a run in order; per-client columns only on request (they are large)."""
    table = tables.rounds
    columns = [c for c in table.c if clients or c is not table.c.client_columns]
    query = select(*columns).where(table.c.run == run).order_by(table.c.round)
    return tuple(rows.read_round(row) for row in connection.execute(query).mappings())


def states_of(connection: Connection, run: str) -> dict[int, str]:
    """Blob by round, for the states that are kept, in order."""
    table = tables.states
    query = select(table.c.round, table.c.digest).where(table.c.run == run)
    found = connection.execute(query.order_by(table.c.round)).all()
    return {row.round: row.digest for row in found}


def labels_of(connection: Connection, run: str) -> dict[str, int]:
    """Round by label."""
    table = tables.labels
    query = select(table.c.label, table.c.round).where(table.c.run == run)
    found = connection.execute(query.order_by(table.c.label)).all()
    return {row.label: row.round for row in found}


def slots_of(connection: Connection, run: str) -> dict[int, int]:
    """Durable slot by client."""
    table = tables.client_slots
    query = select(table.c.block, table.c.slots).where(table.c.run == run).order_by(table.c.block)
    slots: dict[int, int] = {}
    for row in connection.execute(query):
        line = np.frombuffer(row.slots, np.uint8)
        with_memory = np.flatnonzero(line != tables.NO_SLOT)
        clients = with_memory + row.block * tables.SLOT_BLOCK
        slots.update(zip(clients.tolist(), line[with_memory].tolist(), strict=True))
    return slots


def releases_of(connection: Connection, run: str) -> tuple[StoredRelease, ...]:
    """The release chain of a run, unchecked."""
    table = tables.releases
    query = select(table).where(table.c.run == run).order_by(table.c.sequence)
    return tuple(rows.read_release(row) for row in connection.execute(query).mappings())


def events_of(
    connection: Connection, run: str, *, kind: str = "", round_: int | None = None
) -> tuple[StoredEvent, ...]:
    """The event log of a run, or what it says of one kind or round."""
    table = tables.events
    query = select(table).where(table.c.run == run).order_by(table.c.sequence)
    if kind:
        query = query.where(table.c.kind == kind)
    if round_ is not None:
        query = query.where(table.c.round == round_)
    return tuple(rows.read_event(row) for row in connection.execute(query).mappings())


def named(connection: Connection, digests: Collection[str]) -> set[str]:
    """Which of ``digests`` some run names."""
    wanted = sorted(digests)
    found: set[str] = set()
    for start in range(0, len(wanted), _CHUNK):
        some = {"some": wanted[start : start + _CHUNK]}
        found.update(connection.execute(_NAMED, some).scalars())
    return found
