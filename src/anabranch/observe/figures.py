"""The pictures of a run: how good the model became, and for whom.

Each function takes a view and returns a `Picture`, or None when the run has nothing to draw. Every
picture carries its caption and a text alternative with the same message.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from anabranch.observe.compare import Measure
from anabranch.observe.devices import (
    battery_by_class,
    bytes_by_stage,
    clocks,
    funnel,
    task_timeline,
    time_by_class,
)
from anabranch.observe.effort import bytes_by_round, participation, time_by_phase
from anabranch.observe.events import Metrics
from anabranch.observe.svg import MUTED, SERIES, Picture, drawing, round_axis
from anabranch.observe.tables import ClientRow, client_rows
from anabranch.observe.view import (
    EvaluationView,
    RoundView,
    RunView,
    higher_is_better,
    mean_over_clients,
    overall,
)
from anabranch.observe.words import (
    metric_in_words,
    metric_name,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["clients_against_local", "convergence", "pictures"]

_ROWS_UP_TO = 24
_BANDS = " Means over seeds; the broad line is the 95 % interval of the federated model."


def pictures(view: RunView, repeats: Sequence[RunView] = ()) -> tuple[Picture, ...]:
    """Every picture that the run has data for, in the order of the report."""
    drawn = (
        convergence(view),
        clients_against_local(view, repeats),
        participation(view),
        bytes_by_round(view),
        time_by_phase(view),
        funnel(view),
        task_timeline(view),
        bytes_by_stage(view),
        battery_by_class(view),
        time_by_class(view),
        clocks(view),
    )
    return tuple(picture for picture in drawn if picture is not None)


def convergence(view: RunView) -> Picture | None:
    """The metric by round, the band of clients from p10 to p90, and the reference lines."""
    metric = view.shown_metric
    if metric is None:
        return None
    measured = [r.evaluation for r in view.evaluated]
    by_client = all(mean_over_clients(evaluation, metric) is not None for evaluation in measured)
    measure = mean_over_clients if by_client else overall
    curve = _curve(view.evaluated, metric, measure)
    if not curve:
        return None
    bands = _bands(view.evaluated, metric)
    references = _references(view, metric, measure)

    def draw(axes: Axes) -> None:
        if bands:
            rounds, low, high = zip(*bands, strict=True)
            axes.fill_between(rounds, low, high, color=SERIES[0], alpha=0.18, linewidth=0)
        rounds_, values = zip(*curve, strict=True)
        axes.plot(rounds_, values, color=SERIES[0], marker="o" if len(curve) < 3 else "")
        for index, (_, value) in enumerate(references, 1):
            style = "--" if index == 1 else ":"
            axes.axhline(value, color=SERIES[index], linestyle=style, linewidth=1.6)
        _end_labels(axes, [("federated", values[-1]), *references])
        round_axis(axes, rounds_)
        axes.set_ylabel(metric_name(metric))

    band = " The band spans the 10th to the 90th percentile of the clients." if bands else ""
    lines = "".join(f" {label}: {metric_in_words(value)}." for label, value in references)
    what = "Mean over clients of the" if by_client else "The"
    caption = f"{what} {metric_name(metric)} on held-out examples after each round.{band}"
    first, last = curve[0], curve[-1]
    said = (
        f"{metric_name(metric)} goes from {metric_in_words(first[1])} in round {first[0]} to "
        f"{metric_in_words(last[1])} in round {last[0]}.{lines}"
    )
    return Picture("convergence", "Convergence", drawing("convergence", said, draw), caption)


def _end_labels(axes: Axes, labels: Sequence[tuple[str, float]]) -> None:
    """Names at the right end of the lines, moved apart where they would cover each other."""
    low, high = axes.get_ylim()
    gap = 0.075 * (high - low)
    below = -np.inf
    for index in sorted(range(len(labels)), key=lambda i: labels[i][1]):
        text, value = labels[index]
        below = max(value, below + gap)
        axes.annotate(
            text, (1.0, below), (6, 0), xycoords=("axes fraction", "data"),
            textcoords="offset points", va="center", color=SERIES[index], annotation_clip=False,
        )  # fmt: skip
    axes.set_ylim(low, high)


def _curve(
    rounds: Iterable[RoundView], metric: str, measure: Measure
) -> tuple[tuple[int, float], ...]:
    points = ((r.number, measure(r.evaluation, metric)) for r in rounds if r.evaluation)
    return tuple((number, value) for number, value in points if value is not None)


def _client_values(evaluation: EvaluationView, metric: str) -> list[float]:
    return [m[metric] for m in evaluation.clients.values() if metric in m]


def _bands(rounds: Iterable[RoundView], metric: str) -> list[tuple[int, float, float]]:
    bands = []
    for round_ in rounds:
        recorded: Metrics = round_.evaluation.metrics if round_.evaluation else {}
        values = _client_values(round_.evaluation, metric) if round_.evaluation else []
        if f"{metric}_p10" in recorded and f"{metric}_p90" in recorded:
            low, high = recorded[f"{metric}_p10"], recorded[f"{metric}_p90"]
        elif len(values) >= 2:
            low, high = (float(q) for q in np.quantile(values, [0.1, 0.9]))
        else:
            continue
        bands.append((round_.number, low, high))
    return bands


def _references(view: RunView, metric: str, measure: Measure) -> list[tuple[str, float]]:
    named = (("local only", view.local_only), ("pooled", view.pooled))
    values = ((label, measure(e, metric)) for label, e in named if e is not None)
    return [(label, value) for label, value in values if value is not None]


def clients_against_local(view: RunView, repeats: Sequence[RunView] = ()) -> Picture | None:
    """Each client's metric under the federated model against its own model."""
    metric = view.shown_metric
    rows = client_rows([view, *repeats], metric) if metric else ()
    if metric is None or not rows:
        return None
    compared = [row for row in rows if row.gain is not None]
    if len(rows) > _ROWS_UP_TO:
        return _client_histogram(metric, rows, compared)
    rows = tuple(sorted(rows, key=lambda r: r.gain.mean if r.gain else r.federated.mean))

    def draw(axes: Axes) -> None:
        for place, row in enumerate(rows):
            if row.local_only is not None:
                ends = [row.local_only.mean, row.federated.mean]
                axes.plot(ends, [place, place], color=MUTED, linewidth=1.5, zorder=1)
            if row.federated.low is not None and row.federated.high is not None:
                span = [row.federated.low, row.federated.high]
                axes.plot(span, [place, place], color=SERIES[0], alpha=0.35, linewidth=7, zorder=1)
        _dots(axes, rows, "local_only", "local only", SERIES[1], "s")
        _dots(axes, rows, "pooled", "pooled", SERIES[2], "D")
        _dots(axes, rows, "federated", "federated", SERIES[0], "o")
        axes.set_yticks(range(len(rows)), [row.client for row in rows])
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlabel(metric_name(metric))
        axes.grid(visible=False, axis="y")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)

    said = "; ".join(_client_in_words(row, metric) for row in rows)
    height = 1.3 + 0.32 * len(rows)
    caption = (
        f"{metric_name(metric)} of each client on its own held-out examples, "
        "by gain over training alone."
        f"{_BANDS if repeats else ''}"
    )
    svg = drawing("clients", said, draw, height=height)
    return Picture("clients", "What each client gets", svg, caption)


def _dots(
    axes: Axes, rows: Sequence[ClientRow], which: str, label: str, colour: str, marker: str
) -> None:
    estimates = [(getattr(row, which), place) for place, row in enumerate(rows)]
    points = [(estimate.mean, place) for estimate, place in estimates if estimate is not None]
    if points:
        x, y = zip(*points, strict=True)
        axes.scatter(x, y, color=colour, marker=marker, s=44, label=label, zorder=2)


def _client_in_words(row: ClientRow, metric: str) -> str:
    alone = f", alone {metric_in_words(row.local_only.mean)}" if row.local_only else ""
    return f"{row.client}: {metric_name(metric)} {metric_in_words(row.federated.mean)}{alone}"


def _client_histogram(
    metric: str, rows: Sequence[ClientRow], compared: Sequence[ClientRow]
) -> Picture:
    gains = [row.gain.mean for row in compared if row.gain is not None]
    values = gains or [row.federated.mean for row in rows]
    quarter = np.quantile(values, [0.1, 0.5, 0.9])
    better = "higher" if higher_is_better(metric) else "lower"
    named = metric_name(metric)
    label = f"gain in {named} over training alone" if gains else named

    def draw(axes: Axes) -> None:
        axes.hist(values, bins=min(30, max(10, len(values) // 8)), color=SERIES[0])
        if gains:
            axes.axvline(0, color=SERIES[1], linestyle="--")
        axes.set_xlabel(label)
        axes.set_ylabel("clients")

    low, middle, high = (metric_in_words(float(q)) for q in quarter)
    said = f"{len(values)} clients: {label} has p10 {low}, median {middle}, p90 {high}."
    caption = f"{said} A {better} {named} is better."
    return Picture("clients", "What each client gets", drawing("clients", said, draw), caption)
