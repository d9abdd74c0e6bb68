"""What is written down about a round: the record for the store, the event for listeners."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from anabranch.coordinator.aggregate import Aggregated
from anabranch.coordinator.collect import Collected, TaskKey
from anabranch.coordinator.evaluation import Evaluation
from anabranch.coordinator.events import RoundCommitted
from anabranch.coordinator.store import (
    Column,
    Json,
    ReleaseEntry,
    RoundRecord,
    StoredEvent,
)
from anabranch.coordinator.store.records import Cell
from anabranch.fleet.timeline import trace_columns
from anabranch.privacy.door import Admission

__all__ = ["VIRTUAL_SECONDS", "RoundTimes", "committed_event", "release_entry", "round_record"]

VIRTUAL_SECONDS = "virtual_seconds"
"""The metric that says how late it is on the virtual clock when a round closes."""

_CLIENT_PREFIX = "metric."
"""Columns of per-client metrics carry this prefix."""


@dataclass
class RoundTimes:
    """Wall time of a round by phase; `mark` ends a phase."""

    started: float = field(default_factory=time.time)
    phases: dict[str, float] = field(default_factory=dict)
    _first: float = field(default_factory=time.perf_counter)
    _last: float = 0.0

    def mark(self, phase: str) -> None:
        """The phase that just ended."""
        now = time.perf_counter() - self._first
        self.phases[phase] = now - self._last
        self._last = now

    @property
    def seconds(self) -> float:
        """From the start to the last mark."""
        return self._last


def round_record(
    number: int,
    collected: Collected,
    aggregated: Aggregated,
    evaluation: Evaluation,
    times: RoundTimes,
    names: Sequence[str],
) -> RoundRecord:
    """The record of a round, without the state, which the journal adds when it commits."""
    merged = [o for o in collected.outcomes.values() if o.fate.counts]
    fresh = [work for task, work in collected.works.items() if collected.fresh(task)]
    down = sum(work.bytes_to(client) for work in fresh for client in work.clients)
    return RoundRecord(
        round=number,
        outcome=aggregated.outcome,
        metrics={**_diagnostics(collected), **aggregated.facts, **evaluation.metrics},
        client_columns=_columns(collected, evaluation, names),
        phases=times.phases,
        bytes_up=sum(o.bytes_up for o in merged),
        bytes_down=down + _otherwise(collected),
        started=times.started,
        ended=times.started + times.seconds,
        releases=tuple(
            release_entry(admission) for admission in (*aggregated.releases, *evaluation.releases)
        ),
        events=_troubles(collected, names) + _failure(aggregated),
    )


def _otherwise(collected: Collected) -> int:
    """Bytes by which clients fetched more than was meant for them (the whole for a difference)."""
    return sum(
        outcome.bytes_down - collected.works[key.task].bytes_to(key.client)
        for key, outcome in collected.outcomes.items()
        if outcome.bytes_down is not None and collected.fresh(key.task)
    )


def _diagnostics(collected: Collected) -> dict[str, float]:
    """What later diagnosis needs, from sums only."""
    total = collected.total()
    if not total.contributors or "train_examples" not in total.sections:
        return {}  # a private run sends nothing that was not planned
    seen = total.scalar("train_examples")
    return {
        "train_loss": total.scalar("train_loss_sum") / seen if seen else 0.0,
        "delta_rms_norm": (total.scalar("delta_sq_norm") / total.contributors) ** 0.5,
    }


def _columns(
    collected: Collected, evaluation: Evaluation, names: Sequence[str]
) -> Mapping[str, Column]:
    """One entry for each client that was asked or evaluated."""
    keys = sorted(collected.outcomes, key=lambda key: (collected.works[key.task].draw, key.client))
    known = {key.client for key in keys}
    only_evaluated = [client for client in evaluation.clients if client not in known]
    clients = [key.client for key in keys] + only_evaluated
    asked = [collected.outcomes[key] for key in keys] + [None] * len(only_evaluated)
    columns: dict[str, Column] = {
        "client": [names[client] for client in clients],
        "fate": [o.fate.value if o else "" for o in asked],
        "seconds": [round(o.seconds, 6) if o else 0.0 for o in asked],
        "bytes_up": [o.bytes_up if o else 0 for o in asked],
    }
    columns |= _encoding(collected, keys, len(only_evaluated))
    if any(o and o.detail for o in asked):
        columns["detail"] = [o.detail if o else "" for o in asked]
    if len(collected.works) > 1:
        stale = [collected.staleness(key.task) for key in keys]
        columns["staleness"] = [*stale, *[0] * len(only_evaluated)]
        columns["task"] = [key.task for key in keys] + [""] * len(only_evaluated)
    columns |= trace_columns([o.trace if o else None for o in asked])
    kinds = sorted({kind for metrics in evaluation.clients.values() for kind in metrics})
    for kind in kinds:
        values: list[Cell] = [evaluation.clients.get(c, {}).get(kind) for c in clients]
        columns[_CLIENT_PREFIX + kind] = values
    return columns


def _encoding(collected: Collected, keys: Sequence[TaskKey], others: int) -> Mapping[str, Column]:
    """How coarsely each update was encoded, and the bytes it might have, where that differs."""
    empty: list[Cell] = [None] * others
    coarse: list[Cell] = [collected.outcomes[key].coarseness for key in keys]
    budgets: list[Cell] = [collected.works[k.task].update_bytes.get(k.client) for k in keys]
    columns = {"coarseness": coarse, "budget": budgets}
    return {n: [*c, *empty] for n, c in columns.items() if any(cell is not None for cell in c)}


def release_entry(admission: Admission) -> ReleaseEntry:
    """What the door decided, for the run's chain of releases."""
    details: dict[str, Json] = {
        "contributors": admission.contributors,
        "sections": list(admission.sections),
        "admitted": admission.admitted,
        "sha256": admission.digest,
    }
    return ReleaseEntry(admission.what, admission.mechanism, details)


def _troubles(collected: Collected, names: Sequence[str]) -> tuple[StoredEvent, ...]:
    now = time.time()
    return tuple(
        StoredEvent(outcome.fate.value, outcome.detail, names[key.client], now)
        for key, outcome in collected.outcomes.items()
        if not outcome.fate.counts
    )


def _failure(aggregated: Aggregated) -> tuple[StoredEvent, ...]:
    if not aggregated.reason:
        return ()
    return (StoredEvent("round failed", aggregated.reason, at=time.time()),)


def committed_event(
    record: RoundRecord, collected: Collected, evaluation: Evaluation, names: Sequence[str]
) -> RoundCommitted:
    """What listeners hear of the round."""
    return RoundCommitted(
        round=record.round,
        outcome=record.outcome,
        metrics=record.metrics,
        clients={names[client]: metrics for client, metrics in evaluation.clients.items()},
        seconds=record.ended - record.started,
        bytes_up=record.bytes_up,
        bytes_down=record.bytes_down,
        contributors=collected.contributors,
        cohort=collected.asked,
        phases=record.phases,
    )
