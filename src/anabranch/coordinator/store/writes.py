"""Every change of the tables, as functions inside the caller's transaction.

Statements are built once: building them anew would cost more than executing them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from sqlalchemy import BindParameter, Connection, bindparam, delete, func, insert, select, update

from anabranch.coordinator.store import chain, rows, tables
from anabranch.coordinator.store.records import RoundRecord, RunRecord, RunStatus, StoredEvent

__all__ = [
    "append_events",
    "drop_states",
    "insert_rounds",
    "insert_run",
    "set_plan",
    "set_status",
]

_CHUNK: Final = 500  # below the parameter limit of every database

_NO_SLOTS: Final = bytes([tables.NO_SLOT]) * tables.SLOT_BLOCK

_RUN: Final[BindParameter[str]] = bindparam("of_run")
_SOME: Final[BindParameter[list[str | int]]] = bindparam("some", expanding=True)

_states, _labels, _slots = tables.states.c, tables.labels.c, tables.client_slots.c
_releases, _events = tables.releases.c, tables.events.c

_ADD_RUN: Final = insert(tables.runs)
_ADD_ROUNDS: Final = insert(tables.rounds)
_ADD_STATES: Final = insert(tables.states)
_ADD_LABELS: Final = insert(tables.labels)
_ADD_SLOTS: Final = insert(tables.client_slots)
_ADD_RELEASES: Final = insert(tables.releases)
_ADD_EVENTS: Final = insert(tables.events)

_SAME_ID: Final = select(tables.runs.c.id).where(tables.runs.c.id == _RUN)
_CHANGE_RUN: Final = update(tables.runs).where(tables.runs.c.id == _RUN)
_OLD_STATES: Final = select(_states.round, _states.digest).where(
    _states.run == _RUN,
    _states.round != select(func.max(_states.round)).where(_states.run == _RUN).scalar_subquery(),
    _states.round.not_in(select(_labels.round).where(_labels.run == _RUN)),
)
_DROP_STATES: Final = delete(tables.states).where(_states.run == _RUN, _states.round.in_(_SOME))
_DROP_LABELS: Final = delete(tables.labels).where(_labels.run == _RUN, _labels.label.in_(_SOME))
_FIND_SLOTS: Final = select(_slots.block, _slots.slots).where(
    _slots.run == _RUN, _slots.block.in_(_SOME)
)
_DROP_SLOTS: Final = delete(tables.client_slots).where(_slots.run == _RUN, _slots.block.in_(_SOME))
_LAST_EVENT: Final = select(func.max(_events.sequence)).where(_events.run == _RUN)
_LAST_RELEASE: Final = (
    select(_releases.sequence, _releases.digest)
    .where(_releases.run == _RUN)
    .order_by(_releases.sequence.desc())
    .limit(1)
)


def insert_run(connection: Connection, run: RunRecord) -> bool:
    """Add a run; False when its id is taken."""
    if connection.execute(_SAME_ID, {"of_run": run.id}).first() is not None:
        return False
    connection.execute(_ADD_RUN, rows.run_row(run))
    return True


def set_status(
    connection: Connection, run: str, status: RunStatus, reason: str, ended: float | None
) -> None:
    """Say how the run is."""
    values = {"of_run": run, "status": status, "reason": reason, "ended": ended}
    connection.execute(_CHANGE_RUN, values)


def set_plan(connection: Connection, run: RunRecord) -> None:
    """The run has another plan from now on, and goes on."""
    row = rows.run_row(run)
    names = ("plan", "plan_digest", "contract_digest", "data_digest", "trust_line")
    values = {"of_run": run.id, "status": "running", "reason": "", "ended": None}
    connection.execute(_CHANGE_RUN, {**values, **{name: row[name] for name in names}})


def insert_rounds(
    connection: Connection,
    run: str,
    records: Sequence[RoundRecord],
    digests: Mapping[int, str],
) -> None:
    """Add rounds with everything that belongs to them.

    Args:
        connection: of the transaction.
        run: its id.
        records: consecutive rounds.
        digests: blob by round, for the rounds whose state was written.
    """
    lines = [rows.round_row(run, record, digests.get(record.round)) for record in records]
    connection.execute(_ADD_ROUNDS, lines)
    stored = [{"run": run, "round": number, "digest": d} for number, d in digests.items()]
    connection.execute(_ADD_STATES, stored)
    _replace_labels(connection, run, {r.keep: r.round for r in records if r.keep})
    slots: dict[int, int] = {}
    for record in records:
        slots.update(record.slots)
    _replace_slots(connection, run, slots)
    _append_releases(connection, run, records)
    for record in records:
        append_events(connection, run, record.events, record.round)


def append_events(
    connection: Connection, run: str, events: Sequence[StoredEvent], round_: int | None
) -> None:
    """Add events at the end of the run's log."""
    if not events:
        return
    last = connection.execute(_LAST_EVENT, {"of_run": run}).scalar_one()
    first = 0 if last is None else last + 1
    lines = [rows.event_row(run, first + i, event, round_) for i, event in enumerate(events)]
    connection.execute(_ADD_EVENTS, lines)


def drop_states(connection: Connection, run: str) -> set[str]:
    """Forget all states but the latest and the labelled ones; returns their blobs."""
    found = connection.execute(_OLD_STATES, {"of_run": run}).all()
    if found:
        gone = [row.round for row in found]
        connection.execute(_DROP_STATES, {"of_run": run, "some": gone})
    return {row.digest for row in found}


def _replace_labels(connection: Connection, run: str, labels: Mapping[str, int]) -> None:
    if not labels:
        return
    connection.execute(_DROP_LABELS, {"of_run": run, "some": list(labels)})
    lines = [{"run": run, "label": label, "round": number} for label, number in labels.items()]
    connection.execute(_ADD_LABELS, lines)


def _replace_slots(connection: Connection, run: str, slots: Mapping[int, int]) -> None:
    """Change the slots of some clients: read the blocks, change bytes, write the blocks."""
    clients = np.fromiter(slots.keys(), np.int64, len(slots))
    values = np.fromiter(slots.values(), np.uint8, len(slots))
    numbers = clients // tables.SLOT_BLOCK
    blocks: list[int] = np.unique(numbers).tolist()
    for start in range(0, len(blocks), _CHUNK):
        part = blocks[start : start + _CHUNK]
        some = {"of_run": run, "some": part}
        found = {row.block: row.slots for row in connection.execute(_FIND_SLOTS, some)}
        lines = []
        for block in part:
            line = np.frombuffer(found.get(block, _NO_SLOTS), np.uint8).copy()
            mine = numbers == block
            line[clients[mine] % tables.SLOT_BLOCK] = values[mine]
            lines.append({"run": run, "block": block, "slots": line.tobytes()})
        connection.execute(_DROP_SLOTS, some)
        connection.execute(_ADD_SLOTS, lines)


def _append_releases(connection: Connection, run: str, records: Sequence[RoundRecord]) -> None:
    if not any(record.releases for record in records):
        return
    last = connection.execute(_LAST_RELEASE, {"of_run": run}).first()
    sequence, head = (0, chain.first_link(run)) if last is None else (last[0] + 1, last[1])
    lines = []
    for record in records:
        for entry in record.releases:
            link = chain.link(record.round, sequence, entry, head)
            lines.append(rows.release_row(run, link))
            sequence, head = sequence + 1, link.digest
    connection.execute(_ADD_RELEASES, lines)
