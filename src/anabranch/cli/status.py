"""`anabranch status`: is a run working, waiting (for whom, until when) or dead, and why."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anabranch.cli.options import AsJson, StoreFolder
from anabranch.cli.output import print_json, say
from anabranch.errors import AnabranchError

if TYPE_CHECKING:
    from anabranch.runtimes.http.status import FleetStatus, RunStatus

__all__ = ["status"]


def status(
    run: Annotated[
        str, typer.Argument(help="A run, or the beginning of its id (default: all).")
    ] = "",
    store: StoreFolder = None,
    watch: Annotated[bool, typer.Option("--watch", help="Again every second.")] = False,
    as_json: AsJson = False,
) -> None:
    """Whether runs are working, waiting (for whom, until when) or dead, and why."""
    folder = store or Path("runs")
    while True:
        found = _status(folder)
        runs = tuple(r for r in found.runs if r.run.startswith(run))
        if run and not runs:
            raise AnabranchError(
                "AB-771",
                f"there is no run whose id begins with {run!r}.",
                fix="list the runs: anabranch runs list.",
            )
        if as_json:
            print_json(found.model_copy(update={"runs": runs}).model_dump(mode="json"))
        else:
            _print(found, runs)
        if not watch or all(r.over for r in runs):
            return
        time.sleep(1.0)


def _status(folder: Path) -> FleetStatus:
    """From the daemon; from the store where there is none, or for runs that it does not carry."""
    from anabranch.runtimes.http.client.operator import Operator
    from anabranch.runtimes.http.status import FleetStatus

    try:
        with Operator(folder) as operator:
            live = operator.status()
    except AnabranchError as error:
        if error.code != "AB-772":
            raise
        live = FleetStatus(url="", software="")
    carried = {run.run for run in live.runs}
    stored = tuple(run for run in _stored(folder) if run.run not in carried)
    return live.model_copy(update={"runs": (*live.runs, *stored)})


def _stored(folder: Path) -> tuple[RunStatus, ...]:
    from anabranch.coordinator.store import Store
    from anabranch.plan import Plan
    from anabranch.runtimes.http.status import RunStatus

    with Store.open(folder, create=False) as opened:
        found = []
        for record in opened.runs():
            rounds = opened.rounds(record.id, clients=False)
            state, reason = str(record.status), record.reason
            if state == "running" and opened.is_open(record.id):
                state, reason = "working", "another process carries it"
            elif state == "running":
                state = "dead"
                reason = "no process carries it; start the daemon again, or anabranch resume"
            found.append(
                RunStatus(
                    run=record.id,
                    name=record.name,
                    state=state,
                    reason=reason,
                    round=max((r.round for r in rounds), default=0),
                    rounds=Plan.model_validate(record.plan).rounds.count,
                )
            )
    return tuple(found)


def _print(found: FleetStatus, runs: tuple[RunStatus, ...]) -> None:
    if found.url:
        draining = ", draining" if found.draining else ""
        say(f"{found.url}: {len(found.clients)} clients seen{draining}")
    if not runs:
        say("No runs.")
    for run in runs:
        reason = f": {run.reason}" if run.reason else ""
        say(f"{run.run}  round {run.round} of {run.rounds}  {run.state}{reason}")
        for part in run.open:
            for waiting in part.waiting:
                say(f"  {waiting.client}: {_where(waiting.fetched, waiting.silent_milliseconds)}")
        for one in run.unaccepted:
            say(f"  {one.client} is given no work: {one.reason}")
        for trouble in run.troubles:
            say(f"  trouble: {trouble}")


def _where(fetched: bool, silent: int) -> str:
    if silent < 0:
        return "was never here"
    ago = f"last heard of {silent / 1000:.0f} s ago"
    return f"has the task, {ago}" if fetched else f"has not fetched the task, {ago}"
