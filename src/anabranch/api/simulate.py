"""Ten lines of research: `simulate` for arrays and a module, `run_plan` for a plan, `resume`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from anabranch.algorithms.base import Algorithm
from anabranch.algorithms.fedavg import FedAvg
from anabranch.api.conduct import conduct, new_record
from anabranch.api.prepare import Prepared, prepare
from anabranch.api.run import Run
from anabranch.coordinator.events import Event, Listener
from anabranch.coordinator.store import Store
from anabranch.data.federation import Federation
from anabranch.data.plan import DataPlan
from anabranch.data.split import hold_out
from anabranch.errors import AnabranchError
from anabranch.learners.build import ModuleFactory
from anabranch.learners.plan import ModelPlan
from anabranch.learners.training import LocalTraining
from anabranch.plan import Plan, plan_from
from anabranch.plan.evaluation import EvaluationPlan
from anabranch.plan.named import reference_of
from anabranch.plan.rounds import RoundsPlan
from anabranch.plan.runtime import RuntimePlan

__all__ = ["default_store", "resume", "run_plan", "simulate"]

Arrays: TypeAlias = tuple[NDArray[np.generic], NDArray[np.generic]]
"""Features and targets of one client."""


def default_store() -> Path:
    """The store used when nothing else is said: the folder ``runs`` where Python was started."""
    return Path("runs")


def _silent(event: Event) -> None:
    """The listener of a run that nobody watches."""


def simulate(
    *,
    model: str | ModelPlan | ModuleFactory,
    clients: Mapping[str, Arrays] | Federation,
    test: Mapping[str, Arrays] | None = None,
    holdout: Arrays | None = None,
    test_fraction: float = 0.2,
    algorithm: Algorithm | str | None = None,
    local: LocalTraining | None = None,
    rounds: int | RoundsPlan = 20,
    seed: int = 0,
    name: str = "notebook",
    runtime: RuntimePlan | None = None,
    store: str | Path | None = None,
    listener: Listener | None = None,
    **tables: object,
) -> Run:
    """Simulate a federation on arrays.

    Args:
        model: a built-in name, a `ModelPlan`, or anything that makes a PyTorch module when called
            (a class from a notebook cell).
        clients: ``{"client": (X, y), ...}`` or a `Federation`.
        test: held-out examples by client.
        holdout: global held-out examples.
        test_fraction: share of each client's examples that is held out, stratified by class, when
            neither ``test`` nor ``holdout`` is given.
        algorithm: a value such as `Scaffold()` or a name such as ``"scaffold"``; FedAvg by default.
        local: what each client does in a round.
        rounds: number of rounds, or the whole table.
        seed: public seed.
        name: name of the run.
        runtime: workers and engine; chosen by the size of the work when nothing is said.
        store: folder of the run store; ``runs`` by default.
        listener: receives every event.
        tables: other tables of the plan (``evaluation``, ``stop``, ``limits``, ``updates`` ...).

    Raises:
        AnabranchError: the plan, the data or the model are not acceptable.
    """
    if not isinstance(clients, Federation):
        clients = Federation.from_arrays(clients, test=test, holdout=holdout)
    federation = _held_out(clients, test_fraction, seed)
    tables.setdefault("evaluation", EvaluationPlan(on=_measured_on(federation)))
    model_plan, module = _model(model)
    plan = plan_from(
        {
            "name": name,
            "seed": seed,
            "data": DataPlan(source="arrays"),
            "model": model_plan,
            "algorithm": _algorithm(algorithm),
            "local": local if local is not None else LocalTraining(),
            "rounds": rounds if isinstance(rounds, RoundsPlan) else {"count": rounds},
            "runtime": runtime if runtime is not None else RuntimePlan(),
            **tables,
        }
    )
    return run_plan(plan, federation=federation, module=module, store=store, listener=listener)


def _held_out(federation: Federation, fraction: float, seed: int) -> Federation:
    """With examples to measure on: its own where it has some, else a share of every client's."""
    if federation.test is not None or federation.holdout is not None:
        return federation
    if not 0 <= fraction < 1:
        raise AnabranchError(
            "AB-105",
            f"test_fraction is {fraction:g} (wanted: a share >= 0, < 1).",
            fix="give a share of each client's examples, such as 0.2.",
        )
    return hold_out(federation, fraction, seed)


def _algorithm(given: Algorithm | str | None) -> object:
    if given is None:
        return FedAvg()
    return {"name": given} if isinstance(given, str) else given


def _measured_on(federation: Federation) -> Literal["clients", "holdout", "both"]:
    if federation.holdout is None:
        return "clients"
    return "holdout" if federation.test is None else "both"


def _model(model: str | ModelPlan | ModuleFactory) -> tuple[ModelPlan, ModuleFactory | None]:
    """The plan's table, and the factory itself when no other process could import it."""
    if isinstance(model, ModelPlan):
        return model, None
    if isinstance(model, str):
        return ModelPlan(name=model), None
    if not callable(model):
        raise AnabranchError(
            "AB-305",
            f"the model is of type {type(model).__name__}, which makes no module.",
            fix="give a built-in name, a class or function that makes a module, or a ModelPlan.",
        )
    target = model if hasattr(model, "__qualname__") else type(model)  # a module that was made
    return ModelPlan(name=reference_of(target).name), model


def run_plan(
    plan: Plan,
    *,
    federation: Federation | None = None,
    module: ModuleFactory | None = None,
    store: str | Path | None = None,
    listener: Listener | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> Run:
    """Run a plan from its first round.

    Args:
        plan: what to do.
        federation: data given in Python instead of the plan's source.
        module: the model's factory, when it cannot be imported by name.
        store: folder of the run store; the plan's, else ``runs``.
        listener: receives every event.
        stopped: asked between rounds; true ends the run in good order (it can be resumed).
    """
    prepared = prepare(plan, federation, module)
    with Store.open(_store(plan, store)) as opened:
        run_id = opened.create_run(new_record(prepared))
        return conduct(prepared, opened, run_id, listener or _silent, stopped)


def resume(
    run_id: str,
    *,
    store: str | Path | None = None,
    federation: Federation | None = None,
    module: ModuleFactory | None = None,
    runtime: RuntimePlan | None = None,
    listener: Listener | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> Run:
    """Go on with a run that was killed or stopped: the result is the uninterrupted one.

    Args:
        run_id: as `anabranch runs list` shows it.
        store: folder of the run store.
        federation: the data again, when they were given in Python.
        module: the model's factory again, when it was given in Python.
        runtime: other workers than before; they change no bit.
        listener: receives every event.
        stopped: as in `run_plan`.

    Raises:
        AnabranchError: AB-510 the data are not those that the run was started with; AB-608 no such
            run; AB-609 it is complete; AB-607 it is running.
    """
    with Store.open(store if store is not None else default_store(), create=False) as opened:
        record = opened.run(run_id)
        plan = Plan.model_validate(record.plan)
        if runtime is not None:
            plan = plan.model_copy(update={"runtime": runtime})
        prepared = prepare(plan, federation, module)
        _same_data(prepared, run_id, record.data_digest)
        return conduct(prepared, opened, run_id, listener or _silent, stopped)


def _same_data(prepared: Prepared, run_id: str, digest: str) -> None:
    if prepared.federation.digest() != digest:
        raise AnabranchError(
            "AB-510",
            f"the data are not those that run {run_id!r} was started with.",
            fix="resume with the same data, or start a new run.",
            kept="The run is as it was.",
        )


def _store(plan: Plan, store: str | Path | None) -> Path:
    if store is not None:
        return Path(store)
    return Path(plan.runtime.store) if plan.runtime.store is not None else default_store()
