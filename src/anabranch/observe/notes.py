"""Reading the notes in a run's log: baselines, final evaluation, data cards, limits, model.

`anabranch.coordinator.notes` writes them. Of several notes about the same thing the last one
counts, because a resumed run may write them again. What is malformed is left out, not guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from anabranch.coordinator.notes import CARD, EVALUATION, LIMITS, MODEL
from anabranch.coordinator.store.records import Json, StoredEvent
from anabranch.observe.events import LimitCheck
from anabranch.observe.view import CardView, EvaluationView

__all__ = ["cards_of", "evaluations_of", "limits_of", "model_of"]

_CARD_LABELS = {
    "name": "source",
    "origin": "origin",
    "licence": "licence",
    "citation": "citation",
    "partition": "partition",
    "personal": "rows describe persons",
    "sha256": "SHA-256",
    "notes": "notes",
}


def evaluations_of(events: Iterable[StoredEvent]) -> dict[str, EvaluationView]:
    """The evaluations noted: ``final``, ``local_only``, ``pooled``."""
    return {
        _text(note.details.get("what")): EvaluationView(
            _numbers(note.details.get("metrics")),
            {client: _numbers(m) for client, m in _table(note.details.get("clients")).items()},
            {c: int(n) for c, n in _numbers(note.details.get("examples")).items()},
        )
        for note in events
        if note.kind == EVALUATION
    }


def cards_of(events: Iterable[StoredEvent]) -> tuple[CardView, ...]:
    """The provenance cards noted, each title once, empty lines left out."""
    cards = {_text(note.details.get("title")): note.details for note in events if note.kind == CARD}
    return tuple(
        CardView(
            title,
            tuple(
                (label, words)
                for key, label in _CARD_LABELS.items()
                if (words := _in_words(details.get(key)))
            ),
        )
        for title, details in cards.items()
    )


def limits_of(events: Iterable[StoredEvent]) -> tuple[LimitCheck, ...]:
    """The plan's limits as checked last."""
    notes = [note for note in events if note.kind == LIMITS]
    checks = notes[-1].details.get("limits") if notes else ()
    return tuple(
        LimitCheck(
            _text(table.get("name")),
            _text(table.get("wanted")),
            _number(table.get("measured")),
            table.get("met") is True,
            _text(table.get("beside")),
        )
        for table in map(_table, _list(checks))
    )


def model_of(events: Iterable[StoredEvent]) -> tuple[str, str]:
    """Path and SHA-256 of the final model as noted last; empty when there is none."""
    notes = [note.details for note in events if note.kind == MODEL]
    return (_text(notes[-1].get("path")), _text(notes[-1].get("sha256"))) if notes else ("", "")


def _in_words(value: Json) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    return " ".join(_text(entry) for entry in _list(value))


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
