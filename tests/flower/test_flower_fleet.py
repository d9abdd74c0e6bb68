"""Real SuperLink, real SuperNodes, TLS and node keys: the same model, dropouts, and resuming.

Run by ``make test-flower`` in an environment that has Flower; skipped elsewhere.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flwr", minversion="1.41")

from flower_apps import await_round, exported, model_of, resuming, simulated, stored
from flower_fleet import FlowerFleet
from near_grid import NearGrid, inside_an_app
from typer.testing import CliRunner

from anabranch.api.flower_app import run_on_grid
from anabranch.cli.app import app

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).parents[2] / "examples" / "flower-strategy"
SUMS = """\

[aggregation]
weighting = { kind = "uniform" }

[secure_aggregation]
bound = 1.0
corrupt_share = 0.0
dropout_share = 0.0
"""


@pytest.mark.parametrize("algorithm", ["fedavg", "scaffold"])
def test_a_fleet_and_a_simulation_make_the_same_model(
    fleet: FlowerFleet, tmp_path: Path, algorithm: str
) -> None:
    folder = exported(tmp_path / algorithm, algorithm, rounds=2)
    run = fleet.run(folder / "app")
    status = fleet.wait(run, 900)
    assert status == "finished:completed", fleet.log("superlink")
    np.testing.assert_array_equal(model_of(folder), simulated(folder))


def status_of(store: Path) -> str:
    """What `anabranch status` says of the only run."""
    told = CliRunner().invoke(app, ["status", "--store", str(store), "--json"])
    (found,) = json.loads(told.output)["runs"]
    return str(found["state"])


def test_a_killed_coordinator_goes_on_in_another_flower_run(
    fleet: FlowerFleet, tmp_path: Path
) -> None:
    folder = exported(tmp_path / "resumed", "scaffold", rounds=3)
    first = fleet.run(folder / "app")
    run_id = await_round(folder / "store", 1, 900)
    assert status_of(folder / "store") == "working"
    (lock,) = (folder / "store" / "locks").glob(f"{run_id}*")
    found = re.search(r"process (\d+)", lock.read_text("utf-8"))
    assert found is not None
    os.kill(int(found[1]), signal.SIGKILL)
    assert fleet.wait(first, 600) == "finished:failed"
    assert status_of(folder / "store") == "dead"
    again = fleet.run(resuming(folder, run_id))
    assert fleet.wait(again, 900) == "finished:completed", fleet.log("superlink")
    np.testing.assert_array_equal(model_of(folder), simulated(folder))


def test_a_run_that_flower_stops_is_stopped_in_the_store_too(
    fleet: FlowerFleet, tmp_path: Path
) -> None:
    folder = exported(tmp_path / "stopped", "fedavg", rounds=200)
    run = fleet.run(folder / "app")
    await_round(folder / "store", 1, 900)
    fleet.stop(run)
    assert fleet.wait(run, 300) == "finished:stopped"
    fleet.gone(folder / "store", 300)
    assert status_of(folder / "store") in ("stopped", "dead")


def test_a_node_that_dies_is_lost_and_the_run_ends_by_rule(
    fleet: FlowerFleet, tmp_path: Path
) -> None:
    folder = exported(tmp_path / "dropout", "fedavg", rounds=2, more="deadline = 150")
    fleet.kill_node("Switzerland")
    try:
        status = fleet.wait(fleet.run(folder / "app"), 900)
    finally:
        fleet.start_node("Switzerland")
    assert status == "finished:completed", fleet.log("superlink")
    run, rounds = stored(folder / "store")
    assert run.status == "complete"
    for fates in rounds.values():
        assert fates.pop("Switzerland") in ("lost", "too late")
        assert set(fates.values()) == {"merged"}


def test_a_secure_sum_on_a_fleet_is_the_simulated_one(fleet: FlowerFleet, tmp_path: Path) -> None:
    folder = exported(tmp_path / "sum", "fedavg", 1, SUMS, 'on = "nowhere"')
    run = fleet.run(folder / "app")
    assert fleet.wait(run, 900) == "finished:completed", fleet.log("superlink")
    assert set(stored(folder / "store")[1][1].values()) == {"merged"}
    np.testing.assert_array_equal(model_of(folder), simulated(folder))


def test_a_secure_sum_without_a_node_that_died_is_exact(
    fleet: FlowerFleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It dies between two rounds: the second one is invited with it and summed up without it."""
    folder = exported(tmp_path / "sum", "fedavg", 2, SUMS, 'on = "nowhere"')
    run = fleet.run(folder / "app")
    await_round(folder / "store", 1, 900)
    fleet.kill_node("Switzerland")
    try:
        status = fleet.wait(run, 900)
    finally:
        fleet.start_node("Switzerland")
    assert status == "finished:completed", fleet.log("superlink")
    _, rounds = stored(folder / "store")
    assert set(rounds[1].values()) == {"merged"}
    assert rounds[2].pop("Switzerland") in ("lost", "too late")
    assert set(rounds[2].values()) == {"merged"}

    inside_an_app(monkeypatch)
    near = NearGrid(fleet.names, tmp_path / "state")

    def lost(client: str, kind: str, number: int) -> bool:
        return client == "Switzerland" and near.seen.count((client, "query.exchange")) > 6

    near.lost = lost
    shutil.copy(folder / "plan.toml", tmp_path)
    text = (folder / "plan.toml").read_text("utf-8")
    run_on_grid(near, {"plan": text, "store": str(tmp_path / "store"), "quiet": 1.0})
    assert stored(tmp_path / "store")[1][2]["Switzerland"] == "lost"
    np.testing.assert_array_equal(model_of(folder), model_of(tmp_path))


def test_a_server_app_of_its_own_uses_our_strategy(fleet: FlowerFleet, tmp_path: Path) -> None:
    """FedNova over plain Flower clients, against the formula of its paper in float64."""
    result = tmp_path / "weights.npy"
    run = fleet.run(EXAMPLE, "--run-config", f'result="{result}"')
    assert fleet.wait(run, 900) == "finished:completed", fleet.log("superlink")
    np.testing.assert_allclose(np.load(result), fednova_by_hand(rounds=3), rtol=1e-5)


def fednova_by_hand(rounds: int) -> np.ndarray:
    weights = np.zeros(3)
    for _ in range(rounds):
        moves, shares, steps = [], [], []
        for partition in range(4):
            made = np.random.default_rng(partition)
            x = made.normal(size=(40 * (partition + 1), 3))
            y = x @ np.array([1.0, -2.0, 0.5]) + 0.1 * made.normal(size=len(x))
            here = weights
            for _ in range(len(x) // 10):
                here = here - 0.1 * x.T @ (x @ here - y) / len(x)
            moves.append(here - weights)
            shares.append(len(x))
            steps.append(len(x) // 10)
        p = np.array(shares) / sum(shares)
        tau = float(p @ np.array(steps))
        mean = sum(pi * d / k for pi, d, k in zip(p, moves, steps, strict=True))
        weights = weights + tau * mean
    return weights
