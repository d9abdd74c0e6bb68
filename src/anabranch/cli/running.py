"""Commands that run: `simulate` and `resume`; and `report`, which shows what was run."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from anabranch.cli.options import (
    Changes,
    JsonFile,
    Kind,
    PlanFile,
    Quiet,
    RunName,
    StoreFolder,
    WorkerKind,
    Workers,
    runtime_changes,
)
from anabranch.cli.output import chosen_run, opened_store, say
from anabranch.cli.results import show_results

if TYPE_CHECKING:
    from anabranch.plan import RuntimePlan

__all__ = ["interruptible", "report", "resume", "simulate"]


def simulate(
    plan: PlanFile,
    changes: Changes = None,
    store: StoreFolder = None,
    workers: Workers = None,
    kind: WorkerKind = None,
    quiet: Quiet = False,
    json_file: JsonFile = None,
) -> None:
    """Run a plan on this machine."""
    from anabranch.api import run_plan
    from anabranch.observe.progress import progress
    from anabranch.plan import load_plan

    every = [*(changes or ()), *runtime_changes(workers, kind)]
    loaded = load_plan(plan, every, os.environ)
    with progress(quiet=quiet) as listener, interruptible() as stopped:
        run = run_plan(loaded, store=store, listener=listener, stopped=stopped)
    show_results(run.store, run.id, json_file, quiet=quiet)


def resume(
    run: RunName,
    store: StoreFolder = None,
    workers: Workers = None,
    kind: WorkerKind = None,
    quiet: Quiet = False,
    json_file: JsonFile = None,
) -> None:
    """Go on with a run that was killed or stopped.

    The result is the one that the uninterrupted run would have had.
    """
    from anabranch.api import resume as resume_run
    from anabranch.observe.progress import progress

    with opened_store(store) as opened:
        run_id, folder = chosen_run(opened, run), opened.path
        runtime = _runtime(opened.run(run_id).plan.get("runtime"), workers, kind)
    with progress(quiet=quiet) as listener, interruptible() as stopped:
        resume_run(run_id, store=folder, runtime=runtime, listener=listener, stopped=stopped)
    show_results(folder, run_id, json_file, quiet=quiet)


def _runtime(stored: object, workers: int | None, kind: Kind | None) -> RuntimePlan:
    """The run's own runtime part with other workers; they change no bit of the result."""
    from anabranch.plan import RuntimePlan

    runtime = RuntimePlan.model_validate(stored or {})
    wanted: dict[str, object] = {} if workers is None else {"workers": workers}
    return runtime.replace(**wanted, **({} if kind is None else {"kind": kind.value}))


def report(
    run: RunName = "last",
    store: StoreFolder = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where (default: STORE/RUN.html)."),
    ] = None,
) -> None:
    """Write the HTML report of a run."""
    from anabranch.observe.report import write_report

    with opened_store(store) as opened:
        run_id = chosen_run(opened, run)
        target = output if output is not None else opened.path / f"{run_id}.html"
        say(str(write_report(opened, run_id, target)))


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """While open, the first Ctrl-C ends the run after its round, the second one at once.

    Yields a function that says whether a stop was asked for.
    """
    asked: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        sys.stderr.write("Stopping after this round; press Ctrl-C again to stop at once.\n")

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, before)
