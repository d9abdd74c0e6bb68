"""A finished or unfinished run as plain values: what the report, the tables and the exports read.

`anabranch.observe.reading.read_run` builds a `RunView` from the store; everything else in this room
is a pure function of views.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from anabranch.fleet.timeline import TaskTrace
from anabranch.observe.events import ClientMetrics, ClientTrouble, LimitCheck, Metrics

__all__ = [
    "DIAGNOSTICS",
    "CardView",
    "EvaluationView",
    "ReleaseView",
    "RoundView",
    "RunView",
    "TaskView",
    "UpdateView",
    "headline_metric",
    "higher_is_better",
    "mean_over_clients",
    "overall",
]

DIAGNOSTICS = frozenset({"train_loss", "delta_rms_norm", "virtual_seconds"})
"""Metrics of the training itself, kept with every round; no evaluation."""

_PREFERRED = ("auc", "accuracy", "rmse", "loss")
_LOWER_IS_BETTER = ("loss", "rmse", "mse", "mae", "error", "perplexity")


@dataclass(frozen=True, slots=True)
class EvaluationView:
    """Metrics of one model or one family of models.

    Attributes:
        metrics: over all clients, or on the global hold-out.
        clients: by client.
        examples: test examples of each client.
    """

    metrics: Metrics = field(default_factory=dict)
    clients: ClientMetrics = field(default_factory=dict)
    examples: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TaskView:
    """One client's task on its device: name, fate and timeline."""

    client: str
    fate: str
    trace: TaskTrace


@dataclass(frozen=True, slots=True)
class UpdateView:
    """How one update was encoded.

    Attributes:
        network: over which it went; empty where not known.
        budget: most bytes that it might have, by the network; None where the plan says so alone.
        size: bytes as sent; 0 when nothing was.
        coarseness: how the codec wrote it (the step of ecq in root mean squares, the part of topk
            and stc, the bits of qsgd, the rank of lowrank); None where it has no choice.
        too_large: it did not fit even at the coarsest, so it was not sent.
    """

    network: str
    budget: int | None
    size: int
    coarseness: float | None
    too_large: bool


@dataclass(frozen=True, slots=True)
class RoundView:
    """One committed round.

    Attributes:
        number: from 1.
        outcome: ``complete``, ``partial`` or ``failed`` (the model stayed as it was).
        evaluation: of the new model; None when the round was not evaluated.
        fates: clients by what became of their task (``merged``, ``too late``, ``lost`` ...).
        seconds: wall time.
        bytes_up: from clients to coordinator.
        bytes_down: from coordinator to clients.
        contributors: updates inside the model.
        cohort: clients asked.
        phases: seconds by phase.
        virtual: how late it was on the virtual clock, in seconds; None without simulated devices.
        tasks: timelines of the tasks, where devices are simulated or report.
        choices: clients by what became of them in the selection, in words; empty where all were
            alike to the draw.
        updates: how updates were encoded, where their codec or their budget was chosen.
    """

    number: int
    outcome: str
    evaluation: EvaluationView | None = None
    fates: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    bytes_up: int = 0
    bytes_down: int = 0
    contributors: int = 0
    cohort: int = 0
    phases: Metrics = field(default_factory=dict)
    virtual: float | None = None
    tasks: tuple[TaskView, ...] = ()
    choices: Mapping[str, int] = field(default_factory=dict)
    updates: tuple[UpdateView, ...] = ()


@dataclass(frozen=True, slots=True)
class ReleaseView:
    """Something that left the trust boundary: what, in which round, under which protection."""

    what: str
    round: int
    mechanism: str
    contributors: int | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class CardView:
    """A data source's provenance card, as label and text pairs in the order to be shown."""

    title: str
    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class RunView:
    """Everything that is shown of a run.

    Attributes:
        run_id: identifier in the store.
        name: the plan's name.
        status: ``running``, ``complete``, ``stopped`` or ``failed``.
        reason: why it ended, in words.
        created: ISO 8601 time of the start, UTC.
        trust_line: who can read what.
        rounds_planned: rounds in the plan.
        clients: number of clients that were asked or evaluated at least once.
        rounds: committed rounds, in order.
        final: evaluation of the final model, when one was made.
        local_only: each client's model trained alone.
        pooled: one model trained on all data together.
        troubles: clients that did not contribute, with the reason.
        releases: what left the trust boundary.
        limits: the plan's limits and what was measured.
        plan: the resolved plan as dotted keys and values.
        plan_text: the resolved plan as TOML.
        digest: of the plan's contract.
        cards: provenance of the data.
        versions: of what computed the run.
        metric: the metric to show first.
        model: path of the final model; empty when there is none.
        model_sha256: of that file.
        description: the plan's own words on what the run is for.
    """

    run_id: str
    name: str
    status: str
    trust_line: str
    rounds_planned: int
    clients: int
    rounds: tuple[RoundView, ...]
    reason: str = ""
    created: str = ""
    final: EvaluationView | None = None
    local_only: EvaluationView | None = None
    pooled: EvaluationView | None = None
    troubles: tuple[ClientTrouble, ...] = ()
    releases: tuple[ReleaseView, ...] = ()
    limits: tuple[LimitCheck, ...] = ()
    plan: Mapping[str, object] = field(default_factory=dict)
    plan_text: str = ""
    digest: str = ""
    cards: tuple[CardView, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    metric: str | None = None
    model: str = ""
    model_sha256: str = ""
    description: str = ""

    @property
    def evaluated(self) -> tuple[RoundView, ...]:
        """The rounds with an evaluation."""
        return tuple(r for r in self.rounds if r.evaluation is not None)

    @property
    def result(self) -> EvaluationView:
        """The final evaluation, else the last round's, else an empty one."""
        if self.final is not None:
            return self.final
        evaluated = self.evaluated
        last = evaluated[-1].evaluation if evaluated else None
        return last if last is not None else EvaluationView()

    @property
    def seconds(self) -> float:
        """Wall time of all committed rounds."""
        return sum(r.seconds for r in self.rounds)

    @property
    def bytes_up(self) -> int:
        """Bytes from clients to coordinator over all rounds."""
        return sum(r.bytes_up for r in self.rounds)

    @property
    def bytes_down(self) -> int:
        """Bytes from coordinator to clients over all rounds."""
        return sum(r.bytes_down for r in self.rounds)

    @property
    def participation(self) -> float | None:
        """Contributors over clients asked, all rounds together; None before the first round."""
        asked = sum(r.cohort for r in self.rounds)
        return sum(r.contributors for r in self.rounds) / asked if asked else None

    @property
    def shown_metric(self) -> str | None:
        """The plan's metric if it was measured, else the usual one of those that were."""
        return headline_metric(self.result.metrics or _any_client(self.result), self.metric)


def mean_over_clients(
    evaluation: EvaluationView | None, metric: str, clients: Collection[str] | None = None
) -> float | None:
    """The unweighted mean of a metric over clients; None when no client has it.

    The mean over clients, and not the metric of all examples together, is what may be compared
    between one common model and models of the clients' own: scores of different models are not on
    one scale, so that their common AUC means little.

    Args:
        evaluation: None has no clients.
        metric: name.
        clients: only these; by default all that have the metric.
    """
    if evaluation is None:
        return None
    values = [
        metrics[metric]
        for client, metrics in evaluation.clients.items()
        if metric in metrics and (clients is None or client in clients)
    ]
    return sum(values) / len(values) if values else None


def overall(evaluation: EvaluationView | None, metric: str) -> float | None:
    """The metric over all examples together, else the mean over clients."""
    if evaluation is None:
        return None
    together = evaluation.metrics.get(metric)
    return together if together is not None else mean_over_clients(evaluation, metric)


def _any_client(evaluation: EvaluationView) -> Metrics:
    return next(iter(evaluation.clients.values()), {})


def headline_metric(names: Iterable[str], wanted: str | None = None) -> str | None:
    """The metric to show first: ``wanted`` when measured, else AUC, accuracy, RMSE, loss.

    >>> headline_metric(["loss", "accuracy"])
    'accuracy'
    """
    measured: Sequence[str] = [name for name in names if name not in DIAGNOSTICS]
    if wanted in measured:
        return wanted
    for name in (*_PREFERRED, *measured):
        if name in measured:
            return name
    return None


def higher_is_better(metric: str) -> bool:
    """Whether a larger value of ``metric`` is a better model.

    >>> higher_is_better("auc"), higher_is_better("log_loss")
    (True, False)
    """
    return not any(part in metric.lower() for part in _LOWER_IS_BETTER)
