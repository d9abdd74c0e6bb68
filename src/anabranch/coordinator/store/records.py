"""What the store keeps, as typed frozen records; nothing here knows SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Arrays",
    "Cell",
    "Column",
    "Json",
    "Latest",
    "RoundOutcome",
    "ReleaseEntry",
    "RoundRecord",
    "RoundSummary",
    "RunRecord",
    "RunStatus",
    "StoredEvent",
    "StoredRelease",
    "StoredRound",
]

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
"""Anything that a JSON text can say."""

Cell: TypeAlias = bool | int | float | str | None
"""One entry of a per-client column."""

Column: TypeAlias = Sequence[Cell] | NDArray[np.generic]
"""A per-client column: one entry a client, in the order of the column ``client``."""

Arrays: TypeAlias = Mapping[str, NDArray[np.generic]]
"""Arrays by name: the model and the algorithm's state."""

RoundOutcome: TypeAlias = Literal["complete", "partial", "failed"]
"""How a round ended: everybody merged, a quorum merged, the model stayed as it was."""

RunStatus: TypeAlias = Literal["running", "complete", "stopped", "failed"]
"""``running`` without an open session means: killed, can be resumed."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run, as it is created and as it is read back.

    Attributes:
        name: of the plan.
        plan: the resolved plan, every default written out.
        plan_digest: of the whole resolved plan.
        contract_digest: of its contract part.
        data_digest: of the data; a run resumes only on the data it started with.
        seed: public seed.
        versions: of the software, by distribution name.
        trust_line: who can read what, in one sentence.
        created: seconds since 1970 (UTC); 0 lets the store fill in the present.
        id: chosen by the store.
        status: see `RunStatus`.
        reason: why the run ended, in words.
        ended: seconds since 1970; None while it has not ended.
    """

    name: str
    plan: Mapping[str, Json] = field(default_factory=dict)
    plan_digest: str = ""
    contract_digest: str = ""
    data_digest: str = ""
    seed: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)
    trust_line: str = ""
    created: float = 0.0
    id: str = ""
    status: RunStatus = "running"
    reason: str = ""
    ended: float | None = None


@dataclass(frozen=True, slots=True)
class ReleaseEntry:
    """Something that left the trust boundary.

    Attributes:
        what: for example ``model``, ``metrics``, ``statistics``.
        mechanism: how it was protected; ``unprotected`` until a mechanism is planned.
        details: contributors, counts, parameters of the mechanism; never values of persons.
    """

    what: str
    mechanism: str = "unprotected"
    details: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoredRelease:
    """A release entry in its place in the run's hash chain."""

    round: int
    sequence: int
    entry: ReleaseEntry
    previous: str
    digest: str


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """Something worth remembering: a refused update, a resume, a stop rule.

    Attributes:
        kind: short identifier.
        text: one sentence; never a value of a person.
        client: identifier, when the event is about one.
        at: seconds since 1970 (UTC).
        details: machine-readable facts.
        round: filled in by the store; None for events between rounds.
    """

    kind: str
    text: str
    client: str = ""
    at: float = 0.0
    details: Mapping[str, Json] = field(default_factory=dict)
    round: int | None = None


@dataclass(frozen=True, slots=True)
class RoundSummary:
    """What a report needs to know about a round.

    Attributes:
        round: number of the model version; 0 is the initial model.
        outcome: see `RoundOutcome`.
        metrics: of this round's evaluation; may hold NaN.
        client_columns: equally long columns, one entry a client of the cohort.
        phases: seconds by phase name.
        bytes_up: payload bytes from the clients.
        bytes_down: payload bytes to the clients.
        started: seconds since 1970 (UTC).
        ended: seconds since 1970 (UTC).
    """

    round: int
    outcome: RoundOutcome = "complete"
    metrics: Mapping[str, float] = field(default_factory=dict)
    client_columns: Mapping[str, Column] = field(default_factory=dict)
    phases: Mapping[str, float] = field(default_factory=dict)
    bytes_up: int = 0
    bytes_down: int = 0
    started: float = 0.0
    ended: float = 0.0


@dataclass(frozen=True, slots=True)
class RoundRecord(RoundSummary):
    """A round about to become durable.

    Attributes:
        releases: what left in this round, in order.
        events: what happened in this round, in order.
        state: arrays from which the next round can be computed; not changed after the call.
        slots: state slots of the clients whose slot changed (see `anabranch.client.states`).
        keep: a label such as ``best``: the state of this round is kept until a later round takes
            the label over. Empty: kept only while it is the latest.
    """

    releases: tuple[ReleaseEntry, ...] = ()
    events: tuple[StoredEvent, ...] = ()
    state: Arrays = field(default_factory=dict)
    slots: Mapping[int, int] = field(default_factory=dict)
    keep: str = ""


@dataclass(frozen=True, slots=True)
class StoredRound(RoundSummary):
    """A round read back; `state_digest` is None where a later round of its group has the state."""

    state_digest: str | None = None


class Latest(NamedTuple):
    """Where a run goes on: the last durable round, its arrays, and every client's slot."""

    round: int
    state: Arrays
    slots: Mapping[int, int]
