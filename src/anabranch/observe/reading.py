"""From the store to a `RunView`: the only module here that knows the store's records."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from anabranch.coordinator.chosen import SELECTION
from anabranch.coordinator.store.records import (
    Column,
    RunRecord,
    StoredEvent,
    StoredRelease,
    StoredRound,
)
from anabranch.fleet.timeline import traces_of
from anabranch.observe.budgets import updates_of
from anabranch.observe.events import ClientTrouble
from anabranch.observe.notes import cards_of, evaluations_of, limits_of, model_of
from anabranch.observe.plans import flattened, toml_text
from anabranch.observe.view import (
    DIAGNOSTICS,
    EvaluationView,
    ReleaseView,
    RoundView,
    RunView,
    TaskView,
)
from anabranch.plan.migrate import PLAN_SCHEMA

if TYPE_CHECKING:
    from anabranch.coordinator.store.records import Json

__all__ = ["RunSource", "read_run"]

_METRIC = "metric."
_TROUBLES = frozenset({"refused", "failed", "lost", "too late"})


class RunSource(Protocol):
    """What is read from the store (`anabranch.coordinator.store.Store` has it)."""

    def runs(self) -> tuple[RunRecord, ...]: ...

    def run(self, run_id: str) -> RunRecord: ...

    def rounds(self, run_id: str, *, clients: bool = True) -> tuple[StoredRound, ...]: ...

    def releases(self, run_id: str) -> tuple[StoredRelease, ...]: ...

    def events(self, run_id: str) -> tuple[StoredEvent, ...]: ...


def read_run(store: RunSource, run_id: str, *, clients: bool = True) -> RunView:
    """Everything that is shown of a run; without per-client values unless ``clients``.

    Raises:
        AnabranchError: AB-608 no such run, AB-610 its chain of releases is broken.
    """
    run = store.run(run_id)
    events = store.events(run_id)
    stored = [r for r in store.rounds(run_id, clients=clients) if r.round > 0]
    choices = _choices(events)
    rounds = tuple(_round(entry, choices.get(entry.round, {})) for entry in stored)
    evaluations = evaluations_of(events)
    model, sha256 = model_of(events)
    plan = flattened(run.plan)
    return RunView(
        run_id=run.id,
        name=run.name,
        status=run.status,
        reason=run.reason,
        created=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(run.created)),
        trust_line=run.trust_line,
        rounds_planned=_planned(plan, rounds),
        clients=_fleet(stored),
        description=_description(plan),
        rounds=rounds,
        final=evaluations.get("final"),
        local_only=evaluations.get("local_only"),
        pooled=evaluations.get("pooled"),
        troubles=_troubles(events),
        releases=tuple(_release(release) for release in store.releases(run_id)),
        limits=limits_of(events),
        plan=plan,
        plan_text=toml_text({"schema": PLAN_SCHEMA, **run.plan}),
        digest=run.contract_digest,
        cards=cards_of(events),
        versions=run.versions,
        metric=_watched(plan),
        model=model,
        model_sha256=sha256,
    )


def _planned(plan: Mapping[str, Json], rounds: Sequence[RoundView]) -> int:
    count = plan.get("rounds.count")
    return count if isinstance(count, int) else len(rounds)


def _fleet(stored: Sequence[StoredRound]) -> int:
    """Clients that were asked or evaluated at least once."""
    return len({str(name) for r in stored for name in r.client_columns.get("client", ())})


def _description(plan: Mapping[str, Json]) -> str:
    description = plan.get("description")
    return description if isinstance(description, str) else ""


def _watched(plan: Mapping[str, Json]) -> str | None:
    """The stop rules' metric, unless it is the default that nobody looks at."""
    metric = plan.get("stop.metric")
    idle = plan.get("stop.target") is None and plan.get("stop.patience") is None
    return metric if isinstance(metric, str) and not (idle and metric == "loss") else None


def _choices(events: Iterable[StoredEvent]) -> dict[int, dict[str, int]]:
    """What selections did with clients, by round."""
    found: dict[int, dict[str, int]] = {}
    for event in events:
        codes = event.details.get("codes")
        if event.kind == SELECTION and event.round and isinstance(codes, Mapping):
            counts = {str(k): v for k, v in codes.items() if isinstance(v, int)}
            found[event.round] = counts
    return found


def _tasks(columns: Mapping[str, Column]) -> tuple[TaskView, ...]:
    traces = traces_of({name: list(cells) for name, cells in columns.items()})
    if not traces:
        return ()
    rows = zip(columns["client"], columns["fate"], traces, strict=True)
    return tuple(TaskView(str(c), str(f), trace) for c, f, trace in rows if trace is not None)


def _round(stored: StoredRound, choices: Mapping[str, int]) -> RoundView:
    columns = stored.client_columns
    fates = Counter(str(fate) for fate in columns.get("fate", ()) if fate)
    metrics = {name: v for name, v in stored.metrics.items() if name not in DIAGNOSTICS}
    single = _client_metrics(columns)
    return RoundView(
        number=stored.round,
        outcome=stored.outcome,
        evaluation=EvaluationView(metrics, single) if metrics or single else None,
        fates=dict(fates),
        seconds=max(stored.ended - stored.started, 0.0),
        bytes_up=stored.bytes_up,
        bytes_down=stored.bytes_down,
        contributors=0 if stored.outcome == "failed" else fates["merged"] + fates["merged late"],
        cohort=sum(fates.values()),
        phases=stored.phases,
        virtual=stored.metrics.get("virtual_seconds"),
        tasks=_tasks(columns),
        choices=choices,
        updates=updates_of(columns),
    )


def _client_metrics(columns: Mapping[str, Column]) -> dict[str, dict[str, float]]:
    names = [str(name) for name in columns.get("client", ())]
    metrics: dict[str, dict[str, float]] = {}
    for column, values in columns.items():
        if not column.startswith(_METRIC):
            continue
        for name, value in zip(names, values, strict=True):
            if value is not None and math.isfinite(value):
                metrics.setdefault(name, {})[column.removeprefix(_METRIC)] = float(value)
    return metrics


def _troubles(events: Iterable[StoredEvent]) -> tuple[ClientTrouble, ...]:
    return tuple(
        ClientTrouble(event.round or 0, event.client, event.kind, event.text)
        for event in events
        if event.kind in _TROUBLES
    )


def _release(stored: StoredRelease) -> ReleaseView:
    details = stored.entry.details
    contributors = details.get("contributors")
    admitted = details.get("admitted", True)
    sections = details.get("sections", ())
    words = [str(s) for s in sections] if isinstance(sections, list | tuple) else []
    return ReleaseView(
        what=stored.entry.what,
        round=stored.round,
        mechanism=stored.entry.mechanism,
        contributors=contributors if isinstance(contributors, int) else None,
        detail=", ".join(words) if admitted else "held back: too few contributors",
    )
