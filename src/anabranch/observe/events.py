"""What a run tells while it works; the coordinator owns the words, this room listens."""

from anabranch.coordinator.events import (
    ClientMetrics,
    ClientTrouble,
    EvaluationDone,
    Event,
    LimitCheck,
    Listener,
    Metrics,
    RoundCommitted,
    RunEnded,
    RunStarted,
)

__all__ = [
    "ClientMetrics",
    "ClientTrouble",
    "EvaluationDone",
    "Event",
    "LimitCheck",
    "Listener",
    "Metrics",
    "RoundCommitted",
    "RunEnded",
    "RunStarted",
]
