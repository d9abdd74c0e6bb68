"""What a command prints when a run has ended: the table of clients, the JSON, the exit code."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from anabranch.cli.endings import ExitCode
from anabranch.cli.output import print_table, say, write_text

if TYPE_CHECKING:
    from anabranch.observe.intervals import Estimate
    from anabranch.observe.tables import ClientRow
    from anabranch.observe.view import RunView

__all__ = ["exit_by", "print_clients", "results_of", "show_results"]

_MOST_ROWS = 40


def show_results(store: Path, run_id: str, json_file: Path | None, *, quiet: bool = False) -> None:
    """Print the end of a run and leave with the exit code that its limits give.

    With ``quiet`` there was no progress, so a bad end is said here.
    """
    from anabranch.coordinator.store import Store
    from anabranch.observe.reading import read_run

    with Store.open(store, create=False) as opened:
        view = read_run(opened, run_id)
    if json_file is not None:
        text = json.dumps(results_of(view, store), indent=2, allow_nan=False)
        write_text(json_file, text + "\n")
    if str(json_file) != "-":
        _print(view, store)
    if quiet:
        _complain(view)
    exit_by([view])


def _complain(view: RunView) -> None:
    """Why the exit code is not 0, on stderr."""
    from anabranch.observe.progress import limits_missed

    ended = [] if view.status == "complete" else [f"Run {view.status}: {view.reason}"]
    for line in (*ended, *limits_missed(view.limits)):
        sys.stderr.write(f"{line}\n")


def _print(view: RunView, store: Path) -> None:
    from anabranch.observe.words import metric_in_words, metric_name

    print_clients([view])
    overall = {n: v for n, v in view.result.metrics.items() if not n.endswith(("_p10", "_p90"))}
    if overall:
        shown = ", ".join(f"{metric_name(n)} {metric_in_words(v)}" for n, v in overall.items())
        say(f"All together: {shown}")
    if view.model:
        say(f"Model: {view.model}")
    say(f"Report: anabranch report {view.run_id} --store {store}")


def results_of(view: RunView, store: Path) -> dict[str, object]:
    """What ``--json`` writes: see the command-line reference."""
    from anabranch.observe.export import run_json

    everything = run_json(view)
    final = everything["final"]
    done = view.rounds[-1].number if view.rounds else 0
    return {
        "run": view.run_id,
        "store": str(store),
        "status": view.status,
        "reason": view.reason,
        "rounds": done,
        "seconds": view.seconds,
        "metrics": final["metrics"] if isinstance(final, dict) else {},
        "clients": final["clients"] if isinstance(final, dict) else {},
        "limits": everything["limits"],
        "model": view.model or None,
        "model_sha256": view.model_sha256 or None,
    }


def exit_by(views: Sequence[RunView]) -> None:
    """Leave with 1 when a run failed, 130 when it was stopped, 3 when a limit is missed."""
    if any(view.status == "failed" for view in views):
        raise typer.Exit(ExitCode.ERROR)
    if any(view.status == "stopped" for view in views):
        raise typer.Exit(ExitCode.INTERRUPTED)
    if any(not check.met for view in views for check in view.limits):
        raise typer.Exit(ExitCode.LIMITS_MISSED)


def print_clients(views: Sequence[RunView], metric: str | None = None) -> None:
    """The table of clients: federated, local only, pooled, gain; with intervals over repeats."""
    from anabranch.observe.tables import client_rows, mean_row
    from anabranch.observe.words import metric_name

    metric = metric if metric is not None else views[0].shown_metric
    rows = client_rows(views, metric) if metric is not None else ()
    if metric is None or not rows:
        return
    header = ["client", "test n", "federated"]
    header += ["local only"] if any(row.local_only for row in rows) else []
    header += ["pooled"] if any(row.pooled for row in rows) else []
    header += ["gain over local"] if any(row.gain for row in rows) else []
    repeats = f", mean over {len(views)} seeds [95 % interval]" if len(views) > 1 else ""
    mean = mean_row(views, metric)
    cells = [_cells(row, header) for row in rows[:_MOST_ROWS]]
    cells += [] if mean is None else [_cells(mean, header)]
    print_table(header, cells, f"{metric_name(metric)} by client{repeats}")
    if len(rows) > _MOST_ROWS:
        say(f"... and {len(rows) - _MOST_ROWS} more clients; the report has all of them.")


def _cells(row: ClientRow, header: Sequence[str]) -> list[str]:
    from anabranch.observe.intervals import in_words

    texts = {
        "client": row.client,
        "test n": "–" if row.examples is None else str(row.examples),
        "federated": in_words(row.federated),
        "local only": _mean(row.local_only),
        "pooled": _mean(row.pooled),
        "gain over local": in_words(row.gain, sign="+"),
    }
    return [texts[name] for name in header]


def _mean(estimate: Estimate | None) -> str:
    """Baselines without interval, so that the table fits a terminal; the report has them."""
    from anabranch.observe.words import metric_in_words

    return metric_in_words(None if estimate is None else estimate.mean)
