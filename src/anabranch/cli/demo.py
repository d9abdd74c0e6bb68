"""`anabranch demo`: four real hospitals train a model together, and what each of them gets."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anabranch.cli.options import JsonFile, Quiet
from anabranch.cli.output import say, write_text

if TYPE_CHECKING:
    from anabranch.api import Run
    from anabranch.observe.events import Listener
    from anabranch.observe.view import RunView
    from anabranch.plan import Plan

__all__ = ["demo", "demo_plan"]

_STORE = Path("anabranch-demo")


def demo(
    store: Annotated[
        Path, typer.Option("--store", metavar="DIR", help="Where runs and the report go.")
    ] = _STORE,
    repeats: Annotated[
        int, typer.Option("--repeats", min=1, metavar="N", help="Seeds; intervals need some.")
    ] = 5,
    quiet: Quiet = False,
    json_file: JsonFile = None,
) -> None:
    """Four real hospitals train a heart model together.

    Prints what each of them gets over training alone, and writes the HTML report.
    """
    from anabranch.cli.running import interruptible

    with interruptible() as stopped:
        runs = _runs(demo_plan(), store, repeats, stopped, quiet=quiet)
    views = _views(store, runs)
    _print(views)
    _write_report(store, views[0])
    if json_file is not None:
        import json

        from anabranch.cli.results import results_of

        results = [results_of(view, store) for view in views]
        write_text(json_file, json.dumps(results, indent=2, allow_nan=False) + "\n")
    from anabranch.cli.results import exit_by

    exit_by(views)


def demo_plan() -> Plan:
    """The packaged plan of the four hospitals, with both baselines."""
    from anabranch.plan import changed, parse_plan

    text = (files("anabranch.plan") / "examples" / "silo.toml").read_text(encoding="utf-8")
    return changed(
        parse_plan(text, "silo.toml"), {"evaluation.baselines": ["local-only", "pooled"]}
    )


def _runs(
    plan: Plan, store: Path, repeats: int, stopped: Callable[[], bool], *, quiet: bool
) -> list[Run]:
    """The first run with progress, the repeats with a line each."""
    from anabranch.api import run_plan
    from anabranch.observe.progress import progress
    from anabranch.plan import changed

    runs: list[Run] = []
    for number in range(repeats):
        if runs and stopped():
            break
        if runs and not quiet:
            sys.stderr.write(f"repeat {number + 1} of {repeats}: another split, another seed\n")
        seeded = changed(plan, {"seed": plan.seed + number})
        with progress(quiet=quiet or bool(runs)) as listener:
            runs.append(_run(run_plan, seeded, store, listener, stopped))
    return runs


def _run(
    run_plan: Callable[..., Run],
    plan: Plan,
    store: Path,
    listener: Listener,
    stopped: Callable[[], bool],
) -> Run:
    return run_plan(plan, store=store, listener=listener, stopped=stopped)


def _views(store: Path, runs: list[Run]) -> list[RunView]:
    from anabranch.coordinator.store import Store
    from anabranch.observe.reading import read_run

    with Store.open(store, create=False) as opened:
        return [read_run(opened, run.id) for run in runs]


def _print(views: list[RunView]) -> None:
    from anabranch.cli.results import print_clients
    from anabranch.observe.tables import client_rows

    metric = "auc" if "auc" in views[0].result.metrics else views[0].shown_metric
    print_clients(views, metric)
    gains = [r for r in client_rows(views, metric or "") if r.gain is not None]
    if gains:
        most = max(gains, key=lambda row: row.gain.mean if row.gain else 0.0)
        say(
            f"{most.client} gains most over training alone. The coordinator is given no patient's "
            "row; the report lists what it is given."
        )


def _write_report(store: Path, view: RunView) -> None:
    from anabranch.coordinator.store import Store
    from anabranch.observe.report import write_report

    with Store.open(store, create=False) as opened:
        path = write_report(opened, view.run_id, store / f"{view.run_id}.html")
    say(f"Runs:   {store.resolve()}")
    say(f"Report: {path.resolve()}")
