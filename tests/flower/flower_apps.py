"""Exported apps of the tests, and the models that their runs leave."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from typer.testing import CliRunner

from anabranch.api.simulate import run_plan
from anabranch.cli.app import app
from anabranch.coordinator.store import RunRecord, Store
from anabranch.plan import load_plan

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
{evaluation}

[runtime]
engine = "numpy"
"""


def exported(
    folder: Path, algorithm: str, rounds: int, more: str = "", evaluation: str = "every = 100"
) -> Path:
    """An app made by the command that users call."""
    folder.mkdir(parents=True)
    plan = folder / "plan.toml"
    text = PLAN.format(algorithm=algorithm, rounds=rounds, more=more, evaluation=evaluation)
    plan.write_text(text, "utf-8")
    store = str(folder / "store")
    made = CliRunner().invoke(
        app, ["flower", "export", str(plan), str(folder / "app"), "--store", store]
    )
    assert made.exit_code == 0, made.output
    return folder


def resuming(folder: Path, run_id: str) -> Path:
    """The app again, to go on with a run."""
    project = folder / "app" / "pyproject.toml"
    text = project.read_text("utf-8").replace('resume = ""', f'resume = "{run_id}"')
    project.write_text(text, "utf-8")
    return folder / "app"


def await_round(store: Path, round_: int, seconds: float = 300) -> str:
    """Wait until a round of the store's only run is durable; the run's id."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if (store / "store.sqlite").exists():
            with Store.open(store, create=False) as opened:
                for run in opened.runs():
                    if max((r.round for r in opened.rounds(run.id)), default=-1) >= round_:
                        return run.id
        time.sleep(0.2)
    raise TimeoutError("no round was committed")


def stored(store: Path) -> tuple[RunRecord, dict[int, dict[str, str]]]:
    """The store's only run, and the fates of its clients by round."""
    with Store.open(store, create=False) as opened:
        (run,) = opened.runs()
        fates = {}
        for found in opened.rounds(run.id):
            columns = found.client_columns
            if found.round:
                fates[found.round] = dict(zip(columns["client"], columns["fate"], strict=True))
    return run, fates


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
