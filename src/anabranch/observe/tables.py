"""The table at the end of a run: what each client gets from taking part."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from anabranch.observe.intervals import Estimate, bootstrap_mean
from anabranch.observe.view import (
    EvaluationView,
    RunView,
    higher_is_better,
    mean_over_clients,
)

__all__ = ["ClientRow", "client_rows", "mean_row", "text_table"]


@dataclass(frozen=True, slots=True)
class ClientRow:
    """One client over one or more repeats of a run.

    Attributes:
        client: identifier.
        examples: test examples (of the first repeat); None when unknown.
        federated: metric of the federated model.
        local_only: metric of the client's own model; None when not asked for.
        pooled: metric of the model trained on all data; None when not asked for.
        gain: federated better than local by this much (positive is better), paired over repeats.
    """

    client: str
    examples: int | None
    federated: Estimate
    local_only: Estimate | None = None
    pooled: Estimate | None = None
    gain: Estimate | None = None


def client_rows(views: Sequence[RunView], metric: str) -> tuple[ClientRow, ...]:
    """One row a client, with paired bootstrap intervals over ``views`` (repeats of one plan)."""
    first = views[0].result
    return tuple(
        _row(views, client, first.examples.get(client), [client], metric)
        for client in _measured(first, metric)
    )


def mean_row(views: Sequence[RunView], metric: str) -> ClientRow | None:
    """The unweighted mean over the clients that every model of the first run was measured on.

    None with fewer than two such clients.
    """
    first = views[0]
    models = [e for e in (first.result, first.local_only, first.pooled) if e is not None]
    sets = [set(_measured(evaluation, metric)) for evaluation in models]
    common = [c for c in _measured(first.result, metric) if all(c in s for s in sets)]
    if len(common) < 2:
        return None
    total = sum(first.result.examples.get(client, 0) for client in common)
    return _row(views, "mean", total or None, common, metric)


def _measured(evaluation: EvaluationView, metric: str) -> list[str]:
    return [client for client, metrics in evaluation.clients.items() if metric in metrics]


def _row(
    views: Sequence[RunView], name: str, examples: int | None, clients: list[str], metric: str
) -> ClientRow:
    federated = [mean_over_clients(view.result, metric, clients) for view in views]
    local = [mean_over_clients(view.local_only, metric, clients) for view in views]
    sign = 1.0 if higher_is_better(metric) else -1.0
    gains = [
        sign * (ours - alone)
        for ours, alone in zip(federated, local, strict=True)
        if ours is not None and alone is not None
    ]
    return ClientRow(
        client=name,
        examples=examples,
        federated=bootstrap_mean([v for v in federated if v is not None]),
        local_only=_estimate(local),
        pooled=_estimate([mean_over_clients(view.pooled, metric, clients) for view in views]),
        gain=bootstrap_mean(gains) if gains else None,
    )


def _estimate(values: Sequence[float | None]) -> Estimate | None:
    measured = [value for value in values if value is not None]
    return bootstrap_mean(measured) if measured else None


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A plain table: names and sentences flush left, numbers flush right.

    >>> print(text_table(["client", "n"], [["va", "200"]]))
    client    n
    ------  ---
    va      200
    """
    table = [tuple(header), *map(tuple, rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    left = [i == 0 or any(_is_words(row[i]) for row in rows) for i in range(len(header))]
    lines = [
        "  ".join(
            cell.ljust(width) if flush else cell.rjust(width)
            for cell, width, flush in zip(row, widths, left, strict=True)
        ).rstrip()
        for row in table
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def _is_words(cell: str) -> bool:
    """Whether a cell is text and not a number with its unit ("12.5 ms")."""
    return re.search(r"[^\W\d_]{4}", cell) is not None
