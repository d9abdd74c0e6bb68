"""`anabranch runs`: what is in a store, side by side, and out of it again."""

from __future__ import annotations

import time
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anabranch.cli.options import AsJson, RunName, StoreFolder
from anabranch.cli.output import (
    chosen_run,
    opened_store,
    print_json,
    print_table,
    say,
    write_text,
)
from anabranch.cli.results import print_clients

if TYPE_CHECKING:
    from anabranch.coordinator.store import Store
    from anabranch.observe.compare import Variant
    from anabranch.observe.view import RunView

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="List, show, compare and export runs.")


class Export(StrEnum):
    """What is written, and how."""

    JSON = "json"
    CSV = "csv"
    CLIENTS = "clients"
    EVENTS = "events"
    TRACE = "trace"


@app.command("list")
def list_runs(store: StoreFolder = None, as_json: AsJson = False) -> None:
    """The runs of a store, newest first."""
    from anabranch.observe.reading import read_run

    with opened_store(store) as opened:
        rows = [(run, read_run(opened, run.id, clients=False)) for run in opened.runs()]
        states = [_state(opened, view) for _, view in rows]
    facts: list[dict[str, object]] = [
        {
            "run": view.run_id,
            "status": state,
            "rounds": len(view.rounds),
            "rounds_planned": view.rounds_planned,
            "seed": run.seed,
            "metric": view.shown_metric,
            "value": view.result.metrics.get(view.shown_metric or ""),
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(run.created)),
        }
        for (run, view), state in zip(rows, states, strict=True)
    ]
    if as_json:
        print_json(facts)
    elif not facts:
        say("No runs yet. Start one with `anabranch simulate PLAN`.")
    else:
        _print_list(facts)


def _state(store: Store, view: RunView) -> str:
    """The stored status; a run that nobody writes any more was interrupted."""
    if view.status == "running" and not store.is_open(view.run_id):
        return "interrupted"
    return view.status


def _print_list(facts: list[dict[str, object]]) -> None:
    from anabranch.observe.words import metric_in_words, metric_name

    header = ("run", "status", "rounds", "seed", "result", "created")
    rows = []
    for fact in facts:
        value = fact["value"]
        result = f"{metric_name(str(fact['metric']))} " if fact["metric"] else ""
        result += metric_in_words(value) if isinstance(value, float) else "–"
        rounds = f"{fact['rounds']}/{fact['rounds_planned']}"
        rows.append((fact["run"], fact["status"], rounds, fact["seed"], result, fact["created"]))
    print_table(header, [tuple(map(str, row)) for row in rows])


@app.command("show")
def show(run: RunName = "last", store: StoreFolder = None, as_json: AsJson = False) -> None:
    """One run: trust line, state, metrics, clients, limits, releases."""
    from anabranch.observe.export import run_json
    from anabranch.observe.reading import read_run

    with opened_store(store) as opened:
        view = read_run(opened, chosen_run(opened, run))
        state = _state(opened, view)
    if as_json:
        print_json(run_json(view))
        return
    _print_facts(view, state)
    print_clients([view])


def _print_facts(view: RunView, state: str) -> None:
    from anabranch.observe.words import (
        bytes_in_words,
        metric_in_words,
        metric_name,
        number_in_words,
        seconds_in_words,
        share_in_words,
    )

    say(f"Trust: {view.trust_line}")
    say(f"Run {view.run_id}: {state}{f', {view.reason}' if view.reason else ''}")
    done = view.rounds[-1].number if view.rounds else 0
    say(f"Rounds: {done} of {view.rounds_planned}, {seconds_in_words(view.seconds)}")
    for name, value in view.result.metrics.items():
        say(f"{metric_name(name)}: {metric_in_words(value)}")
    say(f"Participation: {share_in_words(view.participation)} of the clients asked")
    up, down = bytes_in_words(view.bytes_up), bytes_in_words(view.bytes_down)
    say(f"Payload: {up} from clients, {down} to clients")
    for check in view.limits:
        met = "met" if check.met else "missed"
        measured = number_in_words(check.measured)
        beside = f"; {check.beside}" if check.beside else ""
        say(f"Limit {check.name}: {met} (wanted {check.wanted}, measured {measured}{beside})")
    say(f"Releases: {len(view.releases)}; troubles: {len(view.troubles)}")
    if view.model:
        say(f"Model: {view.model}")


@app.command("compare")
def compare_runs(
    runs: Annotated[list[str], typer.Argument(help="Two runs or more.", metavar="RUN...")],
    metric: Annotated[str | None, typer.Option("--metric", help="Compare by this one.")] = None,
    mean: Annotated[
        bool, typer.Option("--mean", help="The mean over clients, not all examples together.")
    ] = False,
    store: StoreFolder = None,
    as_json: AsJson = False,
) -> None:
    """Runs by metric; those that differ in their seed only are repeats of one plan."""
    from anabranch.observe.compare import common_metric, compare
    from anabranch.observe.reading import read_run
    from anabranch.observe.view import mean_over_clients, overall

    with opened_store(store) as opened:
        views = [read_run(opened, chosen_run(opened, run), clients=False) for run in runs]
    chosen = common_metric(views, metric)
    variants = compare(views, chosen, mean_over_clients if mean else overall)
    if as_json:
        print_json({"metric": chosen, "variants": [asdict(variant) for variant in variants]})
    else:
        _print_variants(variants, chosen)


def _print_variants(variants: tuple[Variant, ...], metric: str) -> None:
    from anabranch.observe.words import metric_in_words, metric_name, seconds_in_words, signed

    rows = []
    for variant in variants:
        error, gain = variant.metric.error, variant.advantage
        advantage = signed(gain.mean) if gain is not None else "–"
        if gain is not None and gain.low is not None and gain.high is not None:
            advantage += f" [{signed(gain.low)}, {signed(gain.high)}]"
        rows.append(
            (
                variant.label,
                str(len(variant.runs)),
                metric_in_words(variant.metric.mean),
                metric_in_words(error),
                advantage,
                str(variant.rounds),
                seconds_in_words(variant.seconds),
            )
        )
    name = metric_name(metric)
    header = ("plan", "seeds", name, "standard error", "better than the first", "rounds", "time")
    print_table(header, rows)


@app.command("diff")
def diff(left: RunName, right: RunName, store: StoreFolder = None, as_json: AsJson = False) -> None:
    """Every key in which the resolved plans of two runs differ."""
    from anabranch.observe.compare import plan_differences
    from anabranch.observe.reading import read_run

    with opened_store(store) as opened:
        views = [read_run(opened, chosen_run(opened, run), clients=False) for run in (left, right)]
    differences = plan_differences(*views)
    if as_json:
        print_json([asdict(difference) for difference in differences])
    elif not differences:
        say("The plans are equal.")
    else:
        rows = [(d.key, _value(d.left), _value(d.right)) for d in differences]
        print_table(("key", views[0].run_id, views[1].run_id), rows)


def _value(value: object) -> str:
    return "–" if value is None else str(value)


@app.command("export")
def export(
    run: RunName = "last",
    what: Annotated[
        Export,
        typer.Option(
            "--format",
            help="json: all; csv: rounds; clients: CSV; events: JSON lines; trace: devices.",
        ),
    ] = Export.JSON,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where (default: stdout).")
    ] = Path("-"),
    store: StoreFolder = None,
) -> None:
    """A run as a file for other tools."""
    import json

    from anabranch.observe import export as formats
    from anabranch.observe.reading import read_run

    with opened_store(store) as opened:
        run_id = chosen_run(opened, run)
        view, events = read_run(opened, run_id), opened.events(run_id)
        rounds = opened.rounds(run_id) if what is Export.TRACE else ()
    text = {
        Export.JSON: lambda: json.dumps(formats.run_json(view), indent=2, allow_nan=False) + "\n",
        Export.CSV: lambda: formats.rounds_csv(view),
        Export.CLIENTS: lambda: formats.clients_csv(view),
        Export.EVENTS: lambda: formats.events_jsonl(run_id, events),
        Export.TRACE: lambda: formats.trace_csv(rounds),
    }[what]()
    write_text(output, text)
