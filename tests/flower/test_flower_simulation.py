"""Flower's own simulation (Ray) runs an exported app to the model of ours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flwr", minversion="1.41")
pytest.importorskip("ray")

from flower_apps import exported, model_of, simulated, stored
from flower_fleet import FlowerSimulation

pytestmark = pytest.mark.slow


@pytest.fixture
def link(tmp_path: Path) -> Iterator[FlowerSimulation]:
    with FlowerSimulation(tmp_path / "flower") as started:
        yield started


def test_an_exported_app_runs_in_flowers_simulation(link: FlowerSimulation, tmp_path: Path) -> None:
    """Four simulated nodes, known by their partition; SCAFFOLD keeps vectors at each."""
    folder = exported(tmp_path / "simulation", "scaffold", rounds=3)
    run = link.run(folder / "app", "--federation-config", "num-supernodes=4")
    assert link.wait(run, 900) == "finished:completed", link.log("superlink")
    found, rounds = stored(folder / "store")
    assert found.status == "complete"
    assert all(set(fates.values()) == {"merged"} for fates in rounds.values())
    np.testing.assert_array_equal(model_of(folder), simulated(folder))
