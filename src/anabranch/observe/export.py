"""Runs as files for other tools: rounds as JSON or CSV, events as JSON lines."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from anabranch.client.task import Fate
from anabranch.coordinator.store.records import Json, StoredEvent, StoredRound
from anabranch.fleet.devices.recorded import SeenTask, trace_table
from anabranch.fleet.timeline import traces_of
from anabranch.observe.view import EvaluationView, RoundView, RunView

__all__ = ["clients_csv", "events_jsonl", "rounds_csv", "run_json", "trace_csv"]

_ANSWERED = (Fate.MERGED.value, Fate.MERGED_LATE.value, Fate.REFUSED.value)


def run_json(view: RunView) -> dict[str, Json]:
    """Everything about a run as plain JSON values; NaN and infinite values become null."""
    return {
        "run": view.run_id,
        "name": view.name,
        "status": view.status,
        "reason": view.reason,
        "created": view.created,
        "trust_line": view.trust_line,
        "rounds_planned": view.rounds_planned,
        "clients": view.clients,
        "seconds": view.seconds,
        "contract_digest": view.digest,
        "plan": {key: _plain(value) for key, value in view.plan.items()},
        "versions": dict(view.versions),
        "limits": [_plain(asdict(check)) for check in view.limits],
        "final": _evaluation(view.result),
        "local_only": _evaluation(view.local_only),
        "pooled": _evaluation(view.pooled),
        "rounds": [_round(r) for r in view.rounds],
        "releases": [_plain(asdict(release)) for release in view.releases],
    }


def _evaluation(evaluation: EvaluationView | None) -> Json:
    return None if evaluation is None else _plain(asdict(evaluation))


def _round(r: RoundView) -> Json:
    fields = asdict(r)
    fields["evaluation"] = None if r.evaluation is None else asdict(r.evaluation)
    return _plain(fields)


def _plain(value: object) -> Json:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return str(value)


def rounds_csv(view: RunView) -> str:
    """One line a round; a column ``metric_<name>`` and ``seconds_<phase>`` for each of them."""
    metrics = _names(r.evaluation.metrics for r in view.rounds if r.evaluation)
    phases = _names(r.phases for r in view.rounds)
    header = ["round", "outcome", "contributors", "cohort", "seconds", "bytes_up", "bytes_down"]
    header += [f"metric_{name}" for name in metrics] + [f"seconds_{name}" for name in phases]
    return _csv(header, [_round_cells(r, metrics, phases) for r in view.rounds])


def _round_cells(r: RoundView, metrics: Sequence[str], phases: Sequence[str]) -> list[object]:
    measured = r.evaluation.metrics if r.evaluation else {}
    cells: list[object] = [r.number, r.outcome, r.contributors, r.cohort, r.seconds]
    cells += [r.bytes_up, r.bytes_down]
    cells += [measured.get(name, "") for name in metrics]
    return cells + [r.phases.get(name, "") for name in phases]


def clients_csv(view: RunView) -> str:
    """One line a model, client and metric: final, local only and pooled."""
    models = (("final", view.result), ("local_only", view.local_only), ("pooled", view.pooled))
    rows = [
        [model, client, evaluation.examples.get(client, ""), metric, value]
        for model, evaluation in models
        if evaluation is not None
        for client, metrics in evaluation.clients.items()
        for metric, value in metrics.items()
    ]
    return _csv(["model", "client", "test_examples", "metric", "value"], rows)


def events_jsonl(run_id: str, events: Iterable[StoredEvent]) -> str:
    """One JSON object a line, in the order of the log."""
    lines = [
        json.dumps(
            {
                "run_id": run_id,
                "at": event.at,
                "round": event.round,
                "client": event.client or None,
                "event": event.kind,
                "text": event.text,
                "details": _plain(dict(event.details)),
            },
            allow_nan=False,
        )
        for event in events
    ]
    return "".join(f"{line}\n" for line in lines)


def trace_csv(rounds: Iterable[StoredRound]) -> str:
    """What was seen of devices, as a trace that a simulation replays (``devices.trace``).

    A run whose clients reported nothing gives a table without rows.
    """
    tasks: list[SeenTask] = []
    clients: dict[str, None] = {}
    for stored in rounds:
        columns = stored.client_columns
        names = [str(name) for name in columns.get("client", ())]
        clients.update(dict.fromkeys(names))
        fates, traces = columns.get("fate", ()), traces_of({k: list(v) for k, v in columns.items()})
        for name, fate, trace in zip(names, fates, traces, strict=False):
            if trace is not None:
                tasks.append(SeenTask(name, fate in _ANSWERED, trace))
    table = trace_table(tasks, tuple(clients) if tasks else ())
    return _csv(list(table), list(zip(*table.values(), strict=True)))


def _names(tables: Iterable[Iterable[str]]) -> list[str]:
    return list(dict.fromkeys(name for table in tables for name in table))


def _csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
