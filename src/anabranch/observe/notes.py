"""What is known of a run beside its rounds, as notes in its log: written once, read by reports.

Baselines, the evaluation of the final model, provenance cards, limits and the place of the model
belong to no round. Each is one `StoredEvent` with machine-readable details; of several notes about
the same thing the last one counts, so that a resumed run may write them again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from anabranch.coordinator.store.records import Json, StoredEvent
from anabranch.data.federation import Card
from anabranch.observe.events import EvaluationDone, LimitCheck
from anabranch.observe.view import CardView, EvaluationView
from anabranch.observe.words import metric_in_words

__all__ = [
    "card_note",
    "cards_of",
    "evaluation_note",
    "evaluations_of",
    "fleet_note",
    "fleet_of",
    "limits_note",
    "limits_of",
    "model_note",
    "model_of",
]


def evaluation_note(event: EvaluationDone) -> StoredEvent:
    """The note of an evaluation outside the rounds: ``final``, ``local_only`` or ``pooled``."""
    shown = ", ".join(f"{name} {metric_in_words(v)}" for name, v in event.metrics.items())
    details: dict[str, Json] = {
        "what": event.what,
        "metrics": dict(event.metrics),
        "clients": {client: dict(metrics) for client, metrics in event.clients.items()},
        "examples": dict(event.examples),
    }
    text = f"{event.what.replace('_', ' ')}: {shown or 'measured by client'}"
    return StoredEvent("evaluation", text, details=details)


def evaluations_of(events: Iterable[StoredEvent]) -> dict[str, EvaluationView]:
    """The evaluations noted, by what was evaluated."""
    return {
        _text(note.details.get("what")): EvaluationView(
            _numbers(note.details.get("metrics")),
            {client: _numbers(m) for client, m in _table(note.details.get("clients")).items()},
            {c: int(n) for c, n in _numbers(note.details.get("examples")).items()},
        )
        for note in events
        if note.kind == "evaluation"
    }


def card_note(card: Card) -> StoredEvent:
    """The note of a data source's provenance card."""
    rows = [
        ("source", card.name),
        ("origin", card.origin),
        ("licence", card.licence),
        ("citation", card.citation),
        ("partition", card.partition),
        ("rows describe persons", "yes" if card.personal else "no"),
        ("sha256", card.sha256),
        *(("note", note) for note in card.notes),
    ]
    details: dict[str, Json] = {"title": card.title, "rows": [list(row) for row in rows]}
    return StoredEvent("card", f"data: {card.title}", details=details)


def cards_of(events: Iterable[StoredEvent]) -> tuple[CardView, ...]:
    """The cards noted, each title once, empty lines left out."""
    cards = {
        _text(note.details.get("title")): note.details.get("rows")
        for note in events
        if note.kind == "card"
    }
    return tuple(CardView(title, _pairs(rows)) for title, rows in cards.items())


def limits_note(limits: Sequence[LimitCheck]) -> StoredEvent:
    """The note of the plan's limits and what was measured."""
    missed = [check.name for check in limits if not check.met]
    checks: list[Json] = [
        {"name": c.name, "wanted": c.wanted, "measured": c.measured, "met": c.met} for c in limits
    ]
    text = f"limits missed: {', '.join(missed)}" if missed else "all limits are met"
    return StoredEvent("limits", text, details={"limits": checks})


def limits_of(events: Iterable[StoredEvent]) -> tuple[LimitCheck, ...]:
    """The limits as noted last."""
    notes = [note for note in events if note.kind == "limits"]
    checks = notes[-1].details.get("limits") if notes else ()
    return tuple(
        LimitCheck(
            _text(table.get("name")),
            _text(table.get("wanted")),
            _number(table.get("measured")),
            table.get("met") is True,
        )
        for table in map(_table, _list(checks))
    )


def model_note(path: str, sha256: str) -> StoredEvent:
    """The note of the final model's file."""
    return StoredEvent("model", f"final model: {path}", details={"path": path, "sha256": sha256})


def model_of(events: Iterable[StoredEvent]) -> tuple[str, str]:
    """Path and SHA-256 of the final model as noted last; empty when there is none."""
    notes = [note.details for note in events if note.kind == "model"]
    return (_text(notes[-1].get("path")), _text(notes[-1].get("sha256"))) if notes else ("", "")


def fleet_note(clients: int, test_examples: Mapping[str, int]) -> StoredEvent:
    """The note of who takes part: how many clients, and the test examples of each."""
    details: dict[str, Json] = {"clients": clients, "test_examples": dict(test_examples)}
    return StoredEvent("fleet", f"{clients} clients", details=details)


def fleet_of(events: Iterable[StoredEvent]) -> tuple[int, Mapping[str, int]]:
    """Number of clients and test examples of each as noted last; 0 and nothing when unknown."""
    notes = [note.details for note in events if note.kind == "fleet"]
    if not notes:
        return 0, {}
    counts = _numbers(notes[-1].get("test_examples"))
    return int(_number(notes[-1].get("clients")) or 0), {c: int(n) for c, n in counts.items()}


def _text(value: Json) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Json) -> float | None:
    return None if isinstance(value, bool) or not isinstance(value, int | float) else float(value)


def _table(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Json) -> Sequence[Json]:
    return value if isinstance(value, Sequence) and not isinstance(value, str) else ()


def _numbers(value: Json) -> dict[str, float]:
    measured = {name: _number(entry) for name, entry in _table(value).items()}
    return {name: number for name, number in measured.items() if number is not None}


def _pairs(value: Json) -> tuple[tuple[str, str], ...]:
    rows = [_list(row) for row in _list(value)]
    pairs = [(_text(row[0]), _text(row[1])) for row in rows if len(row) == 2]
    return tuple(pair for pair in pairs if pair[1])
