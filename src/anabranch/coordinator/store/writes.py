"""Every change of the tables, as functions inside the caller's transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, delete, func, insert, select, update

from anabranch.coordinator.store import chain, rows, tables
from anabranch.coordinator.store.records import RoundRecord, RunRecord, RunStatus, StoredEvent

__all__ = ["append_events", "drop_states", "insert_rounds", "insert_run", "set_status"]


def insert_run(connection: Connection, run: RunRecord) -> bool:
    """Add a run; False when its id is taken."""
    taken = select(tables.runs.c.id).where(tables.runs.c.id == run.id)
    if connection.execute(taken).first() is not None:
        return False
    connection.execute(insert(tables.runs), rows.run_row(run))
    return True


def set_status(
    connection: Connection, run: str, status: RunStatus, reason: str, ended: float | None
) -> None:
    """Say how the run is."""
    change = update(tables.runs).where(tables.runs.c.id == run)
    connection.execute(change.values(status=status, reason=reason, ended=ended))


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
    connection.execute(insert(tables.rounds), lines)
    stored = [{"run": run, "round": number, "digest": d} for number, d in digests.items()]
    connection.execute(insert(tables.states), stored)
    labels = {r.keep: r.round for r in records if r.keep}
    _replace_labels(connection, run, labels)
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
    query = select(func.max(tables.events.c.sequence)).where(tables.events.c.run == run)
    last = connection.execute(query).scalar_one()
    first = 0 if last is None else last + 1
    lines = [rows.event_row(run, first + i, event, round_) for i, event in enumerate(events)]
    connection.execute(insert(tables.events), lines)


def drop_states(connection: Connection, run: str) -> set[str]:
    """Forget all states but the latest and the labelled ones; returns their blobs."""
    states, labels = tables.states, tables.labels
    latest = select(func.max(states.c.round)).where(states.c.run == run).scalar_subquery()
    kept = select(labels.c.round).where(labels.c.run == run)
    old = (states.c.run == run, states.c.round != latest, states.c.round.not_in(kept))
    found = connection.execute(select(states.c.round, states.c.digest).where(*old)).all()
    if found:
        gone = [row.round for row in found]
        connection.execute(delete(states).where(states.c.run == run, states.c.round.in_(gone)))
    return {row.digest for row in found}


def _replace_labels(connection: Connection, run: str, labels: Mapping[str, int]) -> None:
    if not labels:
        return
    table = tables.labels
    old = delete(table).where(table.c.run == run, table.c.label.in_(labels))
    connection.execute(old)
    lines = [{"run": run, "label": label, "round": number} for label, number in labels.items()]
    connection.execute(insert(table), lines)


def _replace_slots(connection: Connection, run: str, slots: Mapping[int, int]) -> None:
    """Delete and insert: portable, and as fast as an upsert for a few thousand rows."""
    clients = sorted(slots)
    table = tables.client_slots
    for start in range(0, len(clients), 500):  # below the parameter limit of every database
        part = clients[start : start + 500]
        connection.execute(delete(table).where(table.c.run == run, table.c.client.in_(part)))
        lines = [{"run": run, "client": client, "slot": slots[client]} for client in part]
        connection.execute(insert(table), lines)


def _append_releases(connection: Connection, run: str, records: Sequence[RoundRecord]) -> None:
    if not any(record.releases for record in records):
        return
    table = tables.releases
    query = select(table.c.sequence, table.c.digest).where(table.c.run == run)
    last = connection.execute(query.order_by(table.c.sequence.desc()).limit(1)).first()
    sequence, head = (0, chain.first_link(run)) if last is None else (last[0] + 1, last[1])
    lines = []
    for record in records:
        for entry in record.releases:
            link = chain.link(record.round, sequence, entry, head)
            lines.append(rows.release_row(run, link))
            sequence, head = sequence + 1, link.digest
    connection.execute(insert(table), lines)
