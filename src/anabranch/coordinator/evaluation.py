"""Evaluation as work: metric sums from clients or hold-out shards, released through the door."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from anabranch.aggregation.fold import Accumulator, FoldPlan
from anabranch.algorithms.base import Broadcast
from anabranch.client.task import TaskKind
from anabranch.coordinator.asking import task_name
from anabranch.coordinator.collect import Collected, collect
from anabranch.coordinator.runtime import Runtime, RuntimeEvent, Work
from anabranch.learners.metrics import MetricSet
from anabranch.privacy.door import Admission, ReleaseDoor
from anabranch.updates.sections import Sections, Update, Vector
from anabranch.updates.total import Finest, Total

__all__ = ["Evaluation", "Evaluator", "Scored"]


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation measured.

    Attributes:
        metrics: over everybody; hold-out metrics carry the prefix ``holdout_`` when both are asked.
        clients: metrics of each client by number, when individuals were asked.
        releases: the door's decisions.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    clients: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    releases: tuple[Admission, ...] = ()


class Scored(Protocol):
    """Releases what clients tell of a model's quality, with noise."""

    def sections(self) -> Sections:
        """All that a client sends."""
        ...

    def measured(self, round_: int, clients: Sequence[int], model: Vector) -> Sequence[int]:
        """Who may be asked about a model; where clients add the noise, that is paid for now."""
        ...

    def score(
        self, round_: int, total: Total, contributors: Sequence[int], clients: int, model: Vector
    ) -> tuple[Mapping[str, float], tuple[Admission, ...]]:
        """From the exact sum to what may leave; nothing when the budget is used up."""
        ...


@dataclass(frozen=True)
class Evaluator:
    """Measures a model.

    Attributes:
        runtime: carries the tasks.
        metrics: what is measured.
        door: what may leave.
        clients: numbers of the clients that have test examples; empty to skip them.
        shards: number of hold-out shards; 0 to skip them.
        individuals: whether each client's own metrics are wanted.
        name: identifier of a client number.
        deadline: seconds that an evaluation waits for clients; None waits for every fate.
        run: identifier of the run; it is part of every task's name.
        scored: how clients' answers are released in a private run; None where they are counted.
        straggling: once half of the clients have answered, the others get this multiple of their
            median time; None waits for all.
        early: answers to open training that came while a model was measured.
    """

    runtime: Runtime
    metrics: MetricSet
    door: ReleaseDoor
    clients: Sequence[int]
    shards: int
    individuals: bool
    name: Callable[[int], str]
    deadline: float | None = None
    run: str = ""
    scored: Scored | None = None
    straggling: float | None = None
    early: list[RuntimeEvent] = field(default_factory=list)

    def evaluate(self, round_: int, broadcast: Broadcast) -> Evaluation:
        """Metrics of the model in ``broadcast`` (whose other vectors are not looked at)."""
        metrics: dict[str, float] = {}
        releases: list[Admission] = []
        single: dict[int, Mapping[str, float]] = {}
        clients = tuple(self.clients)
        if self.scored is not None and clients:
            clients = tuple(self.scored.measured(round_, clients, broadcast["model"]))
        if clients:
            answers = self._ask(TaskKind.EVALUATE, round_, clients, broadcast)
            metrics.update(
                self._released("metrics of the clients", round_, answers, releases)
                if self.scored is None
                else self._scored(self.scored, round_, answers, broadcast["model"], releases)
            )
            single = {c: self._summary(u) for c, u in answers.individuals.items()}
        if self.shards:
            answers = self._ask(TaskKind.HOLDOUT, round_, tuple(range(self.shards)), broadcast)
            held = self._summary_of(answers.total())
            # The hold-out is the coordinator's own data: nothing leaves a client, so no release.
            prefix = "holdout_" if self.clients else ""
            metrics.update({prefix + name: value for name, value in held.items()})
        return Evaluation(metrics, single, tuple(releases))

    def _ask(
        self, kind: TaskKind, round_: int, clients: tuple[int, ...], broadcast: Broadcast
    ) -> Collected:
        asked = self.scored if kind is TaskKind.EVALUATE else None
        sections = self.metrics.sections() if asked is None else asked.sections()
        alone = self.individuals and kind is TaskKind.EVALUATE and asked is None
        finest = Finest.INDIVIDUALS if alone else Finest.TOTAL
        fold = FoldPlan(sections, capacity=len(clients))
        task = task_name(self.run, kind, round_)
        work = Work(kind, round_, clients, broadcast, fold, finest, task)
        answers = collect(work, self.runtime, self.name, self.deadline, self.straggling)
        self.early.extend(answers.strange)
        return answers

    def _released(
        self, what: str, round_: int, answers: Collected, releases: list[Admission]
    ) -> Mapping[str, float]:
        total = answers.total()
        if total.contributors == 0:
            return {}
        admission = self.door.admit(what, round_, total)
        releases.append(admission)
        return self._summary_of(total) if admission.admitted else {}

    def _scored(
        self,
        scored: Scored,
        round_: int,
        answers: Collected,
        model: Vector,
        releases: list[Admission],
    ) -> Mapping[str, float]:
        merged = [key.client for key, o in answers.outcomes.items() if o.fate.counts]
        total = answers.total()
        metrics, admissions = scored.score(round_, total, merged, len(self.clients), model)
        releases.extend(admissions)
        return metrics

    def _summary(self, update: Update) -> Mapping[str, float]:
        """Metrics of one client; undefined ones (an AUC with one class) are left out."""
        sections = self.metrics.sections()
        alone = Accumulator(FoldPlan(sections, capacity=1))
        alone.add(update, "")
        return self._summary_of(alone.total(copy=False))

    def _summary_of(self, total: Total) -> Mapping[str, float]:
        summary = self.metrics.summary(total)
        return {name: value for name, value in summary.items() if not math.isnan(value)}
