"""Whole runs over HTTP: the same model as simulated, and rounds that end although a client dies."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from fault_proxy import FaultProxy, Weather
from http_fleets import ClientProcesses
from served_fleets import free_port

from anabranch.algorithms import FedAvg, Scaffold
from anabranch.algorithms.base import Algorithm
from anabranch.api.conduct import conduct, new_record
from anabranch.api.prepare import Prepared, prepare
from anabranch.api.run import Run
from anabranch.client.task import TaskKind
from anabranch.coordinator.events import ClientTrouble, Event, RoundCommitted
from anabranch.coordinator.store import Store
from anabranch.data.federation import Federation
from anabranch.data.plan import DataPlan
from anabranch.learners.plan import ModelPlan
from anabranch.learners.training import LocalTraining
from anabranch.plan import Plan
from anabranch.plan.evaluation import EvaluationPlan
from anabranch.plan.rounds import RoundsPlan
from anabranch.plan.runtime import RuntimePlan
from anabranch.plan.schema import UpdatesPlan
from anabranch.runtimes.http.messages import TaskOffer
from anabranch.updates.sparse import TopK
from anabranch.updates.stages import Stage

NAMES = ("a", "b", "c/d?&", "ü")
TWICE = Weather(repeat=1.0)


def prepared(
    algorithm: Algorithm, rounds: RoundsPlan, every: int = 1, stages: tuple[Stage, ...] = ()
) -> Prepared:
    draw = np.random.default_rng(3)
    clients = {}
    for client, name in enumerate(NAMES):
        x = draw.normal(size=(10 + 4 * client, 5)).astype(np.float32)
        clients[name] = (x, (np.arange(len(x)) % 3).astype(np.int64))
    federation = Federation.from_arrays(clients, test=clients, holdout=clients["a"])
    plan = Plan(
        name="networked",
        seed=5,
        data=DataPlan(source="arrays"),
        model=ModelPlan(name="logistic"),
        algorithm=algorithm,
        local=LocalTraining(batch_size=4, epochs=1, learning_rate=0.1),
        rounds=rounds,
        updates=UpdatesPlan(stages=stages),
        evaluation=EvaluationPlan(on="both", every=every),
        runtime=RuntimePlan(kind="inline", engine="numpy"),
    )
    return prepare(plan, federation)


def conducted(
    work: Prepared,
    folder: Path,
    fleet: ClientProcesses | None,
    way: Callable[[str], str] = lambda url: url,
) -> tuple[Run, list[Event]]:
    events: list[Event] = []
    with Store.open(folder) as store:
        run_id = store.create_run(new_record(work))
        remote = None if fleet is None else partial(fleet.serve, way=way)
        return conduct(work, store, run_id, events.append, remote=remote), events


@pytest.mark.parametrize(
    ("algorithm", "stages"),
    [(FedAvg(), ()), (Scaffold(), ()), (FedAvg(), (TopK(fraction=0.3),))],
    ids=["fedavg", "scaffold", "topk with error feedback"],
)
def test_the_model_is_the_simulated_one_bit_for_bit(
    algorithm: Algorithm, stages: tuple[Stage, ...], tmp_path: Path
) -> None:
    work = prepared(algorithm, RoundsPlan(count=5, cohort=3), stages=stages)
    simulated, _ = conducted(work, tmp_path / "simulated", None)
    fleet = ClientProcesses(work, tmp_path / "clients")
    deployed, _ = conducted(work, tmp_path / "deployed", fleet)
    assert fleet.join() == [0, 0, 0, 0]
    assert simulated.status == deployed.status == "complete"
    assert simulated.vector.tobytes() == deployed.vector.tobytes()
    assert not np.array_equal(deployed.vector, work.program.base)
    assert simulated.metrics == deployed.metrics
    assert simulated.clients == deployed.clients


def test_clients_that_leave_before_they_know_their_fate_keep_their_memory(tmp_path: Path) -> None:
    work = prepared(Scaffold(), RoundsPlan(count=4))
    simulated, _ = conducted(work, tmp_path / "simulated", None)
    fleet = ClientProcesses(work, tmp_path / "clients", restless=True)
    deployed, _ = conducted(work, tmp_path / "deployed", fleet)
    assert fleet.join() == [0, 0, 0, 0]
    assert simulated.vector.tobytes() == deployed.vector.tobytes()


def test_requests_that_arrive_twice_count_once(tmp_path: Path) -> None:
    """Every connection is played again when it is over: polls, uploads and confirmed fates."""
    work = prepared(Scaffold(), RoundsPlan(count=4))
    simulated, _ = conducted(work, tmp_path / "simulated", None)
    fleet = ClientProcesses(work, tmp_path / "clients", restless=True)
    proxies: list[FaultProxy] = []  # one for each client

    def way(url: str) -> str:
        proxies.append(FaultProxy(port := free_port(), int(url.rpartition(":")[2]), TWICE))
        return f"http://127.0.0.1:{port}"

    try:
        deployed, _ = conducted(work, tmp_path / "deployed", fleet, way)
        assert fleet.join() == [0, 0, 0, 0]
    finally:
        for proxy in proxies:
            proxy.close()
    assert all(proxy.repeated > 4 for proxy in proxies)
    assert simulated.vector.tobytes() == deployed.vector.tobytes()
    assert simulated.clients == deployed.clients


def test_a_client_killed_in_a_round_does_not_stop_the_run(tmp_path: Path) -> None:
    def die(offer: TaskOffer) -> None:
        if offer.kind is TaskKind.TRAIN and offer.round == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    work = prepared(Scaffold(), RoundsPlan(count=3, deadline=4.0), every=3)
    fleet = ClientProcesses(work, tmp_path / "clients", {"b": die})
    run, events = conducted(work, tmp_path / "store", fleet)
    assert fleet.join() == [0, -signal.SIGKILL, 0, 0]
    assert (run.status, run.rounds) == ("complete", 3)
    troubles = {(e.round, e.client, e.fate) for e in events if isinstance(e, ClientTrouble)}
    assert troubles == {(2, "b", "too late"), (3, "b", "too late")}
    assert len([e for e in events if isinstance(e, RoundCommitted)]) == 3
