"""What a run tells while it works: five frozen events, and the type of whoever listens.

Events are for people and exporters; the durable truth is the store. A listener never changes a run
and may be dropped at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

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

Metrics: TypeAlias = Mapping[str, float]
"""Values by metric name (``accuracy``, ``auc``, ``loss``, ``rmse``)."""

ClientMetrics: TypeAlias = Mapping[str, Metrics]
"""Metrics by client identifier."""


@dataclass(frozen=True, slots=True)
class LimitCheck:
    """One limit of the plan and what the run measured.

    Attributes:
        name: the plan's key, for example ``participation``.
        wanted: the limit in words, with unit, for example ``>= 0.9 of the cohort``.
        measured: the measured value; None when nothing was measured.
        met: whether the limit holds.
        beside: other numbers that the measured one should be read with.
    """

    name: str
    wanted: str
    measured: float | None
    met: bool
    beside: str = ""


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The run exists in the store and begins or goes on.

    Attributes:
        run_id: identifier in the store.
        name: the plan's name.
        rounds: rounds planned.
        clients: enrolled clients.
        trust_line: who can read what, in one sentence.
        cohort: clients asked a round.
        first_round: the first round that will be committed; above 1 after a resume.
        metric: the metric to show first; None when nothing is evaluated.
    """

    run_id: str
    name: str
    rounds: int
    clients: int
    trust_line: str
    cohort: int = 0
    first_round: int = 1
    metric: str | None = None


@dataclass(frozen=True, slots=True)
class RoundCommitted:
    """A round is durable.

    Attributes:
        round: number of the round, from 1.
        outcome: as in the store: ``complete`` (all merged), ``partial`` (a quorum merged) or
            ``failed`` (the model stayed as it was).
        metrics: of this round's evaluation; empty when the round was not evaluated.
        clients: metrics of each client, when the plan evaluates clients.
        seconds: wall time of the round.
        bytes_up: payload bytes from the clients to the coordinator.
        bytes_down: payload bytes from the coordinator to the clients.
        contributors: updates inside the new model.
        cohort: clients asked.
        phases: seconds by phase name.
        limits: the plan's limits as they stand after this round.
    """

    round: int
    outcome: str
    metrics: Metrics = field(default_factory=dict)
    clients: ClientMetrics = field(default_factory=dict)
    seconds: float = 0.0
    bytes_up: int = 0
    bytes_down: int = 0
    contributors: int = 0
    cohort: int = 0
    phases: Metrics = field(default_factory=dict)
    limits: tuple[LimitCheck, ...] = ()


@dataclass(frozen=True, slots=True)
class EvaluationDone:
    """An evaluation outside the rounds: the final model, or a baseline.

    Attributes:
        what: ``final``, ``local_only`` or ``pooled``.
        metrics: over all clients or the global hold-out.
        clients: metrics of each client.
        examples: test examples of each client.
    """

    what: str
    metrics: Metrics
    clients: ClientMetrics = field(default_factory=dict)
    examples: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ClientTrouble:
    """A client did not contribute to a round.

    Attributes:
        round: number of the round.
        client: identifier.
        fate: what became of the task, as in the store: ``refused``, ``failed``, ``lost`` ...
        reason: in words, with the error code when there is one; never a value of a person.
    """

    round: int
    client: str
    fate: str
    reason: str


@dataclass(frozen=True, slots=True)
class RunEnded:
    """The run is over, or stops for now.

    Attributes:
        status: as in the store: ``complete``, ``stopped`` (by the user) or ``failed``.
        reason: in words.
        seconds: wall time since the run was started or resumed.
        metrics: of the last evaluation.
        limits: the plan's limits and whether they are met.
    """

    status: str
    reason: str
    seconds: float
    metrics: Metrics = field(default_factory=dict)
    limits: tuple[LimitCheck, ...] = ()


Event: TypeAlias = RunStarted | RoundCommitted | EvaluationDone | ClientTrouble | RunEnded
"""Anything a run tells."""

Listener: TypeAlias = Callable[[Event], None]
"""Receives every event, in order, on the coordinator's thread; must return soon."""
