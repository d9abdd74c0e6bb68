"""The ServerApp of an exported app: our coordinator on a Flower fleet.

Flower never restarts a ServerApp and never resumes a run. Here every round is durable in our store,
and a new Flower run with ``resume`` in its configuration goes on with the run that was cut off.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Final

from flwr.app import Context
from flwr.serverapp import ServerApp

from anabranch.api.conduct import conduct, plan_record
from anabranch.api.prepare import Prepared
from anabranch.api.preparing import Preparation
from anabranch.api.run import Run
from anabranch.api.servable import OWN_SOURCES, require_protected, require_servable
from anabranch.coordinator.events import Event, RoundCommitted, RunEnded
from anabranch.coordinator.store import RunStatus, Store
from anabranch.data.load import load_federation
from anabranch.errors import AnabranchError
from anabranch.plan import Plan, load_plan
from anabranch.plan.contract import canonical_json
from anabranch.runtimes.flower.fates import FatesFile
from anabranch.runtimes.flower.grid_runtime import GridRuntime
from anabranch.runtimes.local import InlineRuntime

if TYPE_CHECKING:
    from flwr.serverapp import Grid

__all__ = ["run_on_grid", "server"]

_NOT_OURS: Final = frozenset({"AB-607", "AB-609"})
"""Another process writes the run, or it is complete: nothing is to be said about it here."""


def run_on_grid(grid: Grid, config: Mapping[str, object]) -> Run:
    """Run or resume a plan on the nodes of a Grid.

    However the app ends, the store says how. Only a killed one cannot; nobody holds its run then,
    and `anabranch status` calls it dead.

    Args:
        grid: of the ServerApp.
        config: ``plan`` (TOML text), ``store`` (folder), ``resume`` (a run's id, or empty),
            ``clients`` (names, comma-separated, where the data lie at the sites), ``patience``
            (seconds to wait for nodes), ``quiet`` (seconds without a new node
            after which those that are there must do), ``task-seconds`` (longest task).

    Raises:
        AnabranchError: AB-764 the plan cannot be served, AB-765 it needs protection, AB-782 too few
            nodes; as `conduct`.
    """
    store_path = Path(str(config.get("store") or "runs"))
    with Store.open(store_path) as store:
        fleet = _opened(store, config)
        _log(f"anabranch run {fleet.run} in {store_path.resolve()}")
        with _written_down(store, fleet.run):
            return _carried(store, fleet, grid, config)


@dataclass(frozen=True)
class _Fleet:
    """A run that exists in the store, and its clients."""

    run: str
    plan: Plan
    names: tuple[str, ...]


def _opened(store: Store, config: Mapping[str, object]) -> _Fleet:
    """The run that is resumed, or a new one."""
    run_id = str(config.get("resume") or "")
    plan = Plan.model_validate(store.run(run_id).plan) if run_id else _plan(str(config["plan"]))
    require_servable(plan)
    names, personal = _clients(plan, str(config.get("clients") or ""))
    if not run_id:
        require_protected(plan, personal=personal)
        run_id = store.create_run(plan_record(plan, sha256("\n".join(names).encode()).hexdigest()))
    return _Fleet(run_id, plan, names)


def _carried(store: Store, fleet: _Fleet, grid: Grid, config: Mapping[str, object]) -> Run:
    """Gather the nodes, prepare the run with them, and conduct it."""
    plan, names = fleet.plan, fleet.names
    patience = float(str(config.get("patience") or 600))
    quiet = float(str(config.get("quiet") or 60))
    seconds = float(str(config.get("task-seconds") or 3600))
    folder = Path(store.path) / "flower" / fleet.run
    folder.mkdir(parents=True, exist_ok=True)
    fates = FatesFile(folder / "fates.json")
    fates.recover(max((stored.round for stored in store.rounds(fleet.run)), default=-1))
    contract = canonical_json(plan.contract()).encode()
    stage = plan.secure_aggregation.stage_seconds if plan.secure_aggregation else None
    runtime = GridRuntime(grid, fleet.run, names, contract, fates, seconds, stage)
    with store.session(fleet.run):  # whoever asks sees that the run is worked on
        runtime.gather(plan.rounds.needed(len(names)), patience, quiet)
        preparation = Preparation(plan, fleet.run, names, folder, patience, store=Path(store.path))
        prepared = preparation.prepared(runtime)

    def remote(ready: Prepared) -> GridRuntime:
        own = InlineRuntime(ready.simulant(None))
        runtime.ready(ready.program.broadcast_sections, own)
        return runtime

    return conduct(prepared, store, fleet.run, _say, remote=remote)


@contextmanager
def _written_down(store: Store, run: str) -> Iterator[None]:
    """An app that ends by an error leaves a run that says so, and that can be resumed."""
    try:
        yield
    except AnabranchError as error:
        if error.code not in _NOT_OURS:
            _end(store, run, "failed", str(error))
        raise
    except (SystemExit, KeyboardInterrupt):
        # `flwr stop`, or the end of the process that the app is a child of: Flower turns both into
        # an exit.
        _end(store, run, "stopped", "the Flower run was stopped")
        raise
    except Exception as error:
        _end(store, run, "failed", f"{type(error).__name__}: {error}")
        raise


def _end(store: Store, run: str, status: RunStatus, reason: str) -> None:
    # The error that ended the run matters more than one of writing it down.
    with suppress(AnabranchError), store.session(run) as session:
        session.finish(status, reason)
    _log(f"run {status}: {reason}")


def _plan(text: str) -> Plan:
    with NamedTemporaryFile("w", suffix=".toml", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        return load_plan(Path(file.name))


def _clients(plan: Plan, named: str) -> tuple[tuple[str, ...], bool]:
    """The clients, and whether their data are of persons."""
    if plan.data.source in OWN_SOURCES:
        names = tuple(name.strip() for name in named.split(",") if name.strip())
        if not names:
            raise AnabranchError(
                "AB-785",
                "the plan is about data of the sites, and no client was named.",
                fix="export the app with --clients a,b,c, or set clients in its configuration.",
                kept="Nothing was started.",
            )
        return names, True
    federation = load_federation(plan.data, plan.seed).federation
    return federation.names, bool(federation.card and federation.card.personal)


def _log(line: str) -> None:
    """Flower shows what its ServerApp prints."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _say(event: Event) -> None:
    """One line a round for Flower's log."""
    if isinstance(event, RoundCommitted):
        measured = "  ".join(f"{name} {value:.4f}" for name, value in event.metrics.items())
        _log(
            f"round {event.round} {event.outcome} {event.contributors} merged  {measured}"
        )  # the log of the ServerApp is its terminal
    elif isinstance(event, RunEnded):
        _log(f"run {event.status}: {event.reason}")


def _main(grid: Grid, context: Context) -> None:
    """The ServerApp.

    Raises:
        AnabranchError: AB-788 the run failed by its rules, so that Flower says so too; as
            `run_on_grid`.
    """
    run = run_on_grid(grid, context.run_config)
    if run.status == "failed":
        raise AnabranchError(
            "AB-788",
            f"the run {run.id} failed: {run.reason}",
            fix="see what became of each client (`anabranch report`), mend it, and start again.",
            kept="Rounds that were committed are kept.",
        )


server = ServerApp()
server.main()(_main)
