"""Real SuperLink, real SuperNodes, TLS and node keys: the same model, dropouts, and resuming.

Run by ``make test-flower`` in an environment that has Flower; skipped elsewhere.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

pytest.importorskip("flwr", minversion="1.41")

from flower_fleet import FlowerFleet
from safetensors.numpy import load_file

from anabranch.api.simulate import run_plan
from anabranch.cli.app import app
from anabranch.coordinator.store import Store
from anabranch.plan import load_plan

pytestmark = pytest.mark.slow

NAMES = ("Cleveland", "Hungary", "Switzerland", "VA Long Beach")
PLAN = """\
schema = 1
name = "hospitals"
seed = 1
unprotected = "a public research data set"

[data]
source = "heart"

[model]
name = "logistic"

[algorithm]
name = "{algorithm}"

[rounds]
count = {rounds}
quorum = 2
{more}

[evaluation]
every = 100

[runtime]
engine = "numpy"
"""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlowerFleet]:
    with FlowerFleet(tmp_path_factory.mktemp("flower"), NAMES) as started:
        yield started


def exported(folder: Path, algorithm: str, rounds: int, more: str = "") -> Path:
    """An app made by the command that users call."""
    folder.mkdir(parents=True)
    plan = folder / "plan.toml"
    plan.write_text(PLAN.format(algorithm=algorithm, rounds=rounds, more=more), "utf-8")
    store = str(folder / "store")
    made = CliRunner().invoke(
        app, ["flower", "export", str(plan), str(folder / "app"), "--store", store]
    )
    assert made.exit_code == 0, made.output
    return folder


def model_of(folder: Path) -> np.ndarray:
    (path,) = [
        p for p in (folder / "store" / "models").glob("*.safetensors") if "clients" not in p.name
    ]
    arrays = load_file(path)
    return np.concatenate([arrays[name].ravel() for name in sorted(arrays)])


def simulated(folder: Path) -> np.ndarray:
    run = run_plan(load_plan(folder / "plan.toml"), store=folder / "simulated")
    arrays = load_file(folder / "simulated" / "models" / f"{run.id}.safetensors")
    return np.concatenate([arrays[name].ravel() for name in sorted(arrays)])


@pytest.mark.parametrize("algorithm", ["fedavg", "scaffold"])
def test_a_fleet_and_a_simulation_make_the_same_model(
    fleet: FlowerFleet, tmp_path: Path, algorithm: str
) -> None:
    folder = exported(tmp_path / algorithm, algorithm, rounds=2)
    run = fleet.run(folder / "app")
    status = fleet.wait(run, 400)
    assert status == "finished:completed", fleet.log("superlink")
    np.testing.assert_array_equal(model_of(folder), simulated(folder))


def test_a_killed_coordinator_goes_on_in_another_flower_run(
    fleet: FlowerFleet, tmp_path: Path
) -> None:
    folder = exported(tmp_path / "resumed", "scaffold", rounds=3)
    first = fleet.run(folder / "app")
    run_id = killed_after_round(folder / "store", 1)
    fleet.wait(first, 200)
    project = folder / "app" / "pyproject.toml"
    text = project.read_text("utf-8").replace('resume = ""', f'resume = "{run_id}"')
    project.write_text(text, "utf-8")
    assert fleet.wait(fleet.run(folder / "app"), 400) == "finished:completed", fleet.log(
        "superlink"
    )
    np.testing.assert_array_equal(model_of(folder), simulated(folder))


def killed_after_round(store: Path, round_: int) -> str:
    """Kill the process of the ServerApp once a round is durable; the run's id."""
    until = time.monotonic() + 300
    while time.monotonic() < until:
        if (store / "store.sqlite").exists():
            with Store.open(store, create=False) as opened:
                for run in opened.runs():
                    done = max((r.round for r in opened.rounds(run.id)), default=-1)
                    holder = (store / "locks").glob("*")
                    if done >= round_:
                        pid = next(
                            int(found[1])
                            for path in holder
                            if (found := re.search(r"process (\d+)", path.read_text("utf-8")))
                        )
                        os.kill(pid, signal.SIGKILL)
                        return run.id
        time.sleep(0.2)
    raise TimeoutError("no round was committed")


def test_a_node_that_dies_is_lost_and_the_run_ends_by_rule(
    fleet: FlowerFleet, tmp_path: Path
) -> None:
    folder = exported(tmp_path / "dropout", "fedavg", rounds=2, more="deadline = 40")
    fleet.kill_node("Switzerland")
    try:
        status = fleet.wait(fleet.run(folder / "app"), 400)
    finally:
        fleet.start_node("Switzerland")
    assert status == "finished:completed", fleet.log("superlink")
    with Store.open(folder / "store", create=False) as store:
        (run,) = store.runs()
        rounds = [r for r in store.rounds(run.id) if r.round]
    assert run.status == "complete"
    for stored in rounds:
        columns = stored.client_columns
        fates = dict(zip(columns["client"], columns["fate"], strict=True))
        assert fates.pop("Switzerland") in ("lost", "too late")
        assert set(fates.values()) == {"merged"}
