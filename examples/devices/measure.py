"""Running a plan behind simulated devices and reading what a run showed: shared by the figures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

import anabranch as ab
from anabranch.coordinator.chosen import SELECTION
from anabranch.coordinator.events import Event, RoundCommitted
from anabranch.coordinator.store import Store, StoredEvent, StoredRound
from anabranch.coordinator.tally import Tally
from anabranch.fleet.timeline import TaskTrace, traces_of
from anabranch.plan import Plan, changed

__all__ = ["Measured", "Task", "mean", "measured", "spread", "write_profiles"]

_CHECKED_IN = {"selected", "eligible, not drawn", "drawn, but above the largest cohort"}
_AWAY = {"not available", "has an open task"}


@dataclass(frozen=True)
class Task:
    """One training task: who, how it ended, and what it did to the device.

    Attributes:
        round: in which it ended.
        began: the round in which it was given out.
    """

    round: int
    began: int
    client: str
    fate: str
    trace: TaskTrace


@dataclass(frozen=True)
class Measured:
    """What one run showed.

    Attributes:
        seed: of the plan.
        curve: (virtual seconds, accuracy) after each evaluated round.
        tasks: in the order of the rounds.
        tally: participation, completeness, evenness, battery.
        admitted: of the clients that were there, the share that admission accepted.
        seconds: real time.
    """

    seed: int
    curve: tuple[tuple[float, float], ...]
    tasks: tuple[Task, ...]
    tally: Tally
    admitted: float
    seconds: float
    rounds: int = field(default=0)

    def reached(self, target: float) -> float:
        """Virtual seconds to the first of three evaluations whose mean reaches ``target``."""
        for end in range(3, len(self.curve) + 1):
            if mean([accuracy for _, accuracy in self.curve[end - 3 : end]]) >= target:
                return self.curve[end - 1][0]
        return math.nan

    def joules_until(self, seconds: float) -> float:
        """Energy of all tasks that were given out before ``seconds``."""
        return sum(t.trace.spent for t in self.tasks if t.trace.asked < seconds)

    def uploads_until(self, seconds: float) -> int:
        """Merged updates that were given out before ``seconds``."""
        return sum(t.fate.startswith("merged") and t.trace.asked < seconds for t in self.tasks)

    def tasks_until(self, seconds: float) -> int:
        """Tasks that were given out before ``seconds``."""
        return sum(t.trace.asked < seconds for t in self.tasks)

    def first_rounds(self, last: int) -> Measured:
        """The same run with the tasks that were given out up to round ``last`` alone."""
        tasks = tuple(task for task in self.tasks if task.began <= last)
        return replace(self, tasks=tasks)

    @property
    def participation(self) -> float:
        """Merged updates as a share of the tasks, late ones included."""
        return len(self._merged) / max(len(self.tasks), 1)

    @property
    def completeness(self) -> float:
        """Mean fraction of the planned local work in merged updates."""
        return mean([task.trace.work for task in self._merged])

    @property
    def _merged(self) -> list[Task]:
        return [task for task in self.tasks if task.fate.startswith("merged")]

    @property
    def lost(self) -> float:
        """Share of the tasks whose client was never heard of again or failed."""
        gone = sum(task.fate in ("lost", "failed") for task in self.tasks)
        return gone / max(len(self.tasks), 1)

    @property
    def late(self) -> float:
        """Share of the tasks that were cut off, by the deadline or when enough had answered."""
        return sum(task.fate == "too late" for task in self.tasks) / max(len(self.tasks), 1)


@dataclass
class Until:
    """Ends a run once three evaluations in a row have ``target`` as their mean."""

    target: float
    seen: list[float] = field(default_factory=list)

    def listen(self, event: Event) -> None:
        if isinstance(event, RoundCommitted) and "accuracy" in event.metrics:
            self.seen.append(event.metrics["accuracy"])

    def reached(self) -> bool:
        return len(self.seen) >= 3 and mean(self.seen[-3:]) >= self.target


def measured(
    plan: Plan, store: Path, changes: Mapping[str, object], until: float = math.inf
) -> Measured:
    """Run ``plan`` with ``changes``, to its end or ``until`` an accuracy, and read the store."""
    plan, end = changed(plan, changes), Until(until)
    run = ab.run_plan(plan, store=store, listener=end.listen, stopped=end.reached)
    with Store.open(store) as opened:
        rounds = [stored for stored in opened.rounds(run.id) if stored.round]
        events = opened.events(run.id)
    names = {name for stored in rounds for name in stored.client_columns.get("client", ())}
    clients = max(len(names), _fleet(plan))
    columns = [stored.client_columns for stored in rounds]
    return Measured(
        seed=plan.seed,
        curve=tuple(_curve(rounds)),
        tasks=tuple(_tasks(rounds)),
        tally=Tally.of(clients, columns, caps=[0.05]),
        admitted=_admitted(events),
        seconds=run.seconds,
        rounds=len(rounds),
    )


def _fleet(plan: Plan) -> int:
    return int(getattr(plan.data.partition, "clients", 0) or 0)


def _curve(rounds: Sequence[StoredRound]) -> Iterator[tuple[float, float]]:
    for stored in rounds:
        if "accuracy" in stored.metrics:
            yield stored.metrics["virtual_seconds"], stored.metrics["accuracy"]


def _tasks(rounds: Sequence[StoredRound]) -> Iterator[Task]:
    for stored in rounds:
        columns = stored.client_columns
        names, traces = columns["client"], traces_of(columns)
        stale = [int(str(s)) for s in columns.get("staleness", [0] * len(names))]
        for client, fate, late, trace in zip(names, columns["fate"], stale, traces, strict=True):
            if fate and trace is not None:
                yield Task(stored.round, stored.round - late, str(client), str(fate), trace)


def _admitted(events: Sequence[StoredEvent]) -> float:
    """Over all dispatches; 1 where no client that was there was refused."""
    there = accepted = 0
    for event in events:
        if event.kind == SELECTION:
            codes = event.details["codes"]
            assert isinstance(codes, dict)
            there += sum(count for words, count in codes.items() if words not in _AWAY)
            accepted += sum(count for words, count in codes.items() if words in _CHECKED_IN)
    return accepted / there if there else 1.0


def write_profiles(
    path: Path,
    clients: int,
    seed: int,
    *,
    gflops: tuple[float, float],
    up_mbps: tuple[float, float],
    down_ratio: float = 4.0,
    device: str = "entry",
) -> Path:
    """A table of devices with lognormal speed and uplink: (median, sigma of the logarithm)."""
    rng = np.random.default_rng([seed, clients])
    speed = gflops[0] * np.exp(gflops[1] * rng.standard_normal(clients))
    up = up_mbps[0] * np.exp(up_mbps[1] * rng.standard_normal(clients))
    lines = ["client,class,network,gflops,up_mbps,down_mbps,home_wifi"]
    width = len(str(clients - 1))
    for number in range(clients):
        name = f"client-{number:0{width}d}"
        lines.append(
            f"{name},{device},4g,{speed[number]:.4f},{up[number]:.4f},"
            f"{down_ratio * up[number]:.4f},false"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def mean(values: Sequence[float]) -> float:
    """The mean; NaN of nothing."""
    return sum(values) / len(values) if values else math.nan


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Mean and range over seeds."""
    known = [value for value in values if not math.isnan(value)]
    if len(known) < len(values):
        missed = len(values) - len(known)
        return f"not reached ({missed} of {len(values)} seeds)"
    return f"{mean(known):.{digits}f} ({min(known):.{digits}f} to {max(known):.{digits}f})"
