"""Notes in a run's log that reports read back: data cards, baselines, limits, the final model."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Final

from anabranch.coordinator.events import EvaluationDone, LimitCheck
from anabranch.coordinator.store import Json, StoredEvent
from anabranch.data.federation import Card

__all__ = [
    "CARD",
    "EVALUATION",
    "LIMITS",
    "MODEL",
    "card_note",
    "evaluation_note",
    "limits_note",
    "model_note",
]

CARD: Final = "card"
"""Details are the fields of a `Card`."""

EVALUATION: Final = "evaluation"
"""Details are the fields of an `EvaluationDone`: what, metrics, clients, examples."""

LIMITS: Final = "limits"
"""Details have one key, ``limits``: a list of `LimitCheck` fields."""

MODEL: Final = "model"
"""Details are ``path`` (of the final model's safetensors file) and its ``sha256``."""


def card_note(card: Card) -> StoredEvent:
    """Where the data of a run come from."""
    fields = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(card).items()}
    return StoredEvent(CARD, card.title, at=time.time(), details=fields)


def evaluation_note(done: EvaluationDone) -> StoredEvent:
    """An evaluation outside the rounds."""
    clients: Mapping[str, Json] = {c: dict(m) for c, m in done.clients.items()}
    details: dict[str, Json] = {
        "what": done.what,
        "metrics": dict(done.metrics),
        "clients": clients,
        "examples": dict(done.examples),
    }
    return StoredEvent(EVALUATION, f"{done.what} evaluated", at=time.time(), details=details)


def limits_note(checks: Iterable[LimitCheck]) -> StoredEvent:
    """The plan's limits and what was measured, at the end of a run."""
    rows: list[dict[str, Json]] = [asdict(check) for check in checks]
    missed = [str(row["name"]) for row in rows if not row["met"]]
    text = f"limits missed: {', '.join(missed)}" if missed else "all limits met"
    return StoredEvent(LIMITS, text, at=time.time(), details={"limits": rows})


def model_note(path: str, sha256: str) -> StoredEvent:
    """Where the final model is."""
    details: dict[str, Json] = {"path": path, "sha256": sha256}
    return StoredEvent(MODEL, f"final model: {path}", at=time.time(), details=details)
