"""The events that listeners read; the coordinator that tells them defines them."""

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
    to_all,
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
    "to_all",
]
