"""Small real runs in child processes that can be killed at any point."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from anabranch.algorithms import FedAdam, FedAvg, Scaffold
from anabranch.algorithms.base import Algorithm
from anabranch.api.conduct import conduct, new_record
from anabranch.api.prepare import Prepared, prepare
from anabranch.coordinator.store import Store
from anabranch.data.federation import Federation
from anabranch.data.plan import DataPlan
from anabranch.disk import Faults, no_faults
from anabranch.learners.plan import ModelPlan
from anabranch.learners.training import LocalTraining
from anabranch.plan import Plan
from anabranch.plan.rounds import RoundsPlan
from anabranch.plan.runtime import RuntimePlan

ALGORITHMS: dict[str, Callable[[], Algorithm]] = {
    "fedavg": FedAvg,
    "scaffold": Scaffold,
    "fedadam": lambda: FedAdam(server_learning_rate=0.05),
}
ROUNDS = 12


def federation() -> Federation:
    """Six clients with a few examples of three classes."""
    draw = np.random.default_rng(3)
    clients = {}
    for client in range(6):
        x = draw.normal(size=(10 + 4 * client, 5)).astype(np.float32)
        clients[f"c{client}"] = (x, (np.arange(len(x)) % 3).astype(np.int64))
    return Federation.from_arrays(clients, test=clients)


def prepared(algorithm: str, kind: str = "inline", commit_seconds: float = 0.0) -> Prepared:
    """Twelve rounds, three clients each."""
    plan = Plan(
        name="killed",
        seed=5,
        data=DataPlan(source="arrays"),
        model=ModelPlan(name="logistic"),
        algorithm=ALGORITHMS[algorithm](),
        local=LocalTraining(batch_size=4, epochs=1, learning_rate=0.1),
        rounds=RoundsPlan(count=ROUNDS, cohort=3),
        runtime=RuntimePlan(workers=2, kind=kind, engine="numpy", commit_seconds=commit_seconds),
    )
    return prepare(plan, federation())


def go(work: Prepared, folder: Path, faults: Faults = no_faults) -> None:
    """Start the run in ``folder``, or resume the one that is there."""
    with Store.open(folder, faults) as store:
        runs = store.runs()
        if runs and runs[0].status == "complete":
            return
        run_id = runs[0].id if runs else store.create_run(new_record(work))
        conduct(work, store, run_id, lambda event: None)


def in_child(work: Prepared, folder: Path, faults: Faults = no_faults) -> int:
    """Exit status of a child process that runs or resumes; negative: killed by that signal."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            go(work, folder, faults)
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_after(work: Prepared, folder: Path, seconds: float) -> None:
    """Start a child and kill it ``seconds`` later, wherever it is."""
    child = os.fork()
    if child == 0:
        try:
            go(work, folder)
        finally:
            os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def end_of(folder: Path) -> dict[str, object]:
    """Everything that must not depend on kills: state, client memory, rounds, releases."""
    with Store.open(folder) as store:
        (run,) = store.runs()
        state = store.model(run.id)
        rounds = store.rounds(run.id)
        # The chain itself starts from the run id, which is different in every run.
        releases = [(r.round, r.entry) for r in store.releases(run.id)]
    arrays = {name: value.tobytes() for name, value in state.items() if name != "progress.seconds"}
    told = [
        (r.round, r.outcome, dict(r.metrics), list(r.client_columns["fate"])) for r in rounds[1:]
    ]
    return {"status": run.status, "arrays": arrays, "rounds": told, "releases": releases}
