"""Records to rows and back. Columns of text hold JSON; NaN and infinities are written as such."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TypeAlias, cast

import numpy as np
from sqlalchemy import RowMapping

from anabranch.coordinator.store.records import (
    Cell,
    Json,
    ReleaseEntry,
    RoundRecord,
    RunRecord,
    StoredEvent,
    StoredRelease,
    StoredRound,
)

__all__ = [
    "Row",
    "event_row",
    "read_event",
    "read_release",
    "read_round",
    "read_run",
    "release_row",
    "round_row",
    "run_row",
]

Row: TypeAlias = dict[str, Cell]
"""The values of one row, by column."""


def _text(value: object) -> str:
    return json.dumps(value, default=_plain, separators=(",", ":"))


def _plain(value: object) -> Json:
    """JSON for what `json` does not know: arrays, NumPy scalars, mappings of other kinds."""
    if isinstance(value, np.ndarray | np.generic):
        return cast(Json, value.tolist())
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} cannot be stored")


def _mapping(text: str) -> dict[str, Json]:
    return cast("dict[str, Json]", json.loads(text))


def run_row(run: RunRecord) -> Row:
    """The row of a run."""
    return {
        "id": run.id,
        "name": run.name,
        "created": run.created,
        "plan": _text(run.plan),
        "plan_digest": run.plan_digest,
        "contract_digest": run.contract_digest,
        "data_digest": run.data_digest,
        "seed": run.seed,
        "versions": _text(run.versions),
        "trust_line": run.trust_line,
        "status": run.status,
        "reason": run.reason,
        "ended": run.ended,
    }


def read_run(row: RowMapping) -> RunRecord:
    """The run of a row."""
    versions = {name: str(value) for name, value in _mapping(row["versions"]).items()}
    return RunRecord(**{**row, "plan": _mapping(row["plan"]), "versions": versions})


def round_row(run: str, record: RoundRecord, digest: str | None) -> Row:
    """The row of a round; ``digest`` names the blob of its state."""
    return {
        "run": run,
        "round": record.round,
        "outcome": record.outcome,
        "state_digest": digest,
        "metrics": _text(record.metrics),
        "phases": _text(record.phases),
        "bytes_up": int(record.bytes_up),
        "bytes_down": int(record.bytes_down),
        "started": float(record.started),
        "ended": float(record.ended),
        "client_columns": _text(record.client_columns),
    }


def read_round(row: RowMapping) -> StoredRound:
    """The round of a row; columns that were not asked for are empty."""
    values = {name: value for name, value in row.items() if name != "run"}
    for name in ("metrics", "phases", "client_columns"):
        values[name] = _mapping(row[name]) if name in row else {}
    return StoredRound(**values)


def release_row(run: str, release: StoredRelease) -> Row:
    """The row of a release."""
    return {
        "run": run,
        "sequence": release.sequence,
        "round": release.round,
        "what": release.entry.what,
        "mechanism": release.entry.mechanism,
        "details": _text(release.entry.details),
        "previous": release.previous,
        "digest": release.digest,
    }


def read_release(row: RowMapping) -> StoredRelease:
    """The release of a row."""
    entry = ReleaseEntry(row["what"], row["mechanism"], _mapping(row["details"]))
    return StoredRelease(row["round"], row["sequence"], entry, row["previous"], row["digest"])


def event_row(run: str, sequence: int, event: StoredEvent, round_: int | None) -> Row:
    """The row of an event."""
    return {
        "run": run,
        "sequence": sequence,
        "round": round_,
        "at": event.at,
        "kind": event.kind,
        "text": event.text,
        "client": event.client,
        "details": _text(event.details),
    }


def read_event(row: RowMapping) -> StoredEvent:
    """The event of a row."""
    details = _mapping(row["details"])
    return StoredEvent(row["kind"], row["text"], row["client"], row["at"], details, row["round"])
