"""A client that is killed between its answer and the coordinator's word for it: no second release.

What left before and what leaves afterwards are compared byte by byte; the control is the same
client without its kept answers, whose second answer has fresh noise.
"""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from served_fleets import AGREES, PLAN, ServedFleet

from anabranch.api.prepare import Prepared, prepare
from anabranch.client.answers import Answers
from anabranch.client.equipment import build_program
from anabranch.client.home import ClientHome
from anabranch.client.task import TaskKind
from anabranch.client.vault import FileKey
from anabranch.coordinator.store.ledger import PopulationLedger
from anabranch.data.federation import Federation
from anabranch.errors import AnabranchError
from anabranch.plan import Plan, plan_from
from anabranch.runtimes.http.client import joining
from anabranch.runtimes.http.client.workplace import ClientData, Workplace
from anabranch.runtimes.http.memory import ClientMemory
from anabranch.runtimes.http.messages import TaskOffer
from anabranch.updates.container import joined, parts_of

TASK = "ab" * 16
CLIP = {"kind": "fixed", "norm": 1.0}
INSIDE = {"kind": "dp-sgd", "batch": 8, "clip": CLIP, "noise_multiplier": 1.5}
CENTRAL = {"kind": "gaussian", "clip": CLIP, "noise_multiplier": 1.5}
PARTS = {"kind": "distributed", "clip": CLIP, "noise_multiplier": 4.0}


def plan(mechanism: dict[str, object]) -> Plan:
    unit = "example" if mechanism is INSIDE else "client"
    tables: dict[str, object] = {
        "name": "once",
        "seed": 2,
        "data": {"source": "arrays"},
        "model": {"name": "logistic"},
        "local": {"steps": 2, "learning_rate": 0.5},
        "rounds": {"count": 3, "cohort": 4},
        "evaluation": {"on": "holdout"},
        "aggregation": {"weighting": {"kind": "uniform"}},
        "runtime": {"engine": "numpy", "kind": "inline"},
        "privacy": {
            "epsilon": 1000.0, "delta": 1e-3, "population": "p", "unit": unit,
            "population_size": 160 if mechanism is INSIDE else 4,
            "mechanism": mechanism,
        },
    }  # fmt: skip
    if mechanism is PARTS:
        tables["secure_aggregation"] = {"minimum": 3}
    return plan_from(tables)


def federation() -> Federation:
    draw = np.random.default_rng(1)

    def some() -> tuple[np.ndarray, np.ndarray]:
        x = draw.normal(size=(40, 3)).astype(np.float32)
        return x, (x[:, 0] > 0).astype(np.int64)

    return Federation.from_arrays({name: some() for name in "abcd"}, holdout=some())


def deployed(mechanism: dict[str, object]) -> Prepared:
    """As a client of its own has it: without a secret of a simulation."""
    prepared = prepare(plan(mechanism), federation())
    program = build_program(prepared.plan, (3,), 2)
    return replace(
        prepared, program=replace(program, mechanism=prepared.program.mechanism, secret=None)
    )


class Client:
    """A client of a folder: a new one on the same folder is the client after a kill."""

    def __init__(self, prepared: Prepared, folder: Path, *, keeps: bool = True) -> None:
        program = prepared.program
        self.prepared = prepared
        self.place = Workplace(
            program,
            ClientData.of(prepared.federation, "a"),
            ClientMemory(folder, program.memory.size),
            answers=Answers(folder) if keeps else None,
        )

    def model(self, value: float = 0.0) -> bytes:
        program = self.prepared.program
        broadcast = dict(program.algorithm.broadcast(program.algorithm.init(program.base.copy())))
        broadcast["model"] = broadcast["model"] + np.float32(value)
        if program.mechanism is not None:
            broadcast["clip_norm"] = np.ones(1, np.float32)
        return joined(parts_of(broadcast))

    def answer(self, value: float = 0.0) -> bytes:
        content = self.model(value)
        digest = hashlib.sha256(content).hexdigest()
        offer = TaskOffer(
            task=TASK, kind=TaskKind.TRAIN, round=1, broadcast=digest, bytes=len(content)
        )
        return joined(self.place.answer(offer, "a", content))


@pytest.mark.parametrize("mechanism", [INSIDE, PARTS], ids=["dp-sgd", "parts of clients"])
def test_what_is_sent_again_after_a_kill_are_the_same_bytes(
    mechanism: dict[str, object], tmp_path: Path
) -> None:
    prepared = deployed(mechanism)
    first = Client(prepared, tmp_path / "kept").answer()
    assert Client(prepared, tmp_path / "kept").answer() == first
    with pytest.raises(AnabranchError, match="AB-979"):
        Client(prepared, tmp_path / "kept").answer(value=1.0)


@pytest.mark.parametrize("mechanism", [INSIDE, PARTS], ids=["dp-sgd", "parts of clients"])
def test_control_a_client_that_keeps_no_answers_makes_two_releases(
    mechanism: dict[str, object], tmp_path: Path
) -> None:
    prepared = deployed(mechanism)
    first = Client(prepared, tmp_path, keeps=False).answer()
    assert Client(prepared, tmp_path, keeps=False).answer() != first


def test_rounding_of_a_client_with_a_curator_draws_nothing_secret(tmp_path: Path) -> None:
    """The coordinator adds the noise: a client's answer is a function of what it was asked."""
    prepared = deployed(CENTRAL)
    first = Client(prepared, tmp_path / "a", keeps=False).answer()
    assert Client(prepared, tmp_path / "b", keeps=False).answer() == first


# Over real processes ----------------------------------------------------------------------------

PRIVATE = """
[aggregation]
weighting = { kind = "uniform" }
[evaluation]
on = "nowhere"
[privacy]
epsilon = 300.0
delta = 1e-3
population = "rows"
population_size = 220
unit = "example"
open_statistics = "synthetic rows of a test"
[privacy.mechanism]
kind = "dp-sgd"
batch = 8
clip = { kind = "fixed", norm = 1.0 }
"""


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[ServedFleet]:
    made = ServedFleet(tmp_path / "f")
    yield made
    made.close()


@pytest.mark.slow
@pytest.mark.parametrize("keeps", [True, False], ids=["kept", "control"])
def test_a_killed_client_sends_the_same_bytes_and_both_ends_count_one_release(
    fleet: ServedFleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keeps: bool
) -> None:
    """The client dies when its bytes are on the line, before anybody has said that they arrived."""
    seen, genuine = tmp_path / "seen", joining.upload
    seen.mkdir()

    def dying(line, task, parts, traffic=None):  # type: ignore[no-untyped-def]  # stands in
        if line.name == "west":
            known, content = len(list(seen.glob(f"{task}-*"))), joined(parts)
            (seen / f"{task}-{known}").write_bytes(content)
            if not known and b"delta" in content:  # an update, not a sum of the preparation
                os.kill(os.getpid(), signal.SIGKILL)
        return genuine(line, task, parts, traffic)

    monkeypatch.setattr(joining, "upload", dying)
    if not keeps:
        monkeypatch.setattr(Answers, "keep", lambda *given: None)
    fleet.start_daemon()
    fleet.start_clients()
    text = PLAN.format(sites=fleet.sites, rounds=2, algorithm="fedavg") + PRIVATE
    run = fleet.submit(text)
    while (west := fleet.clients["west"]) and fleet.run(run).state in ("working", "waiting"):
        west.join(0.2)
        if not west.is_alive():
            fleet.start_client("west")
    assert fleet.ended(run).state == "complete"
    with PopulationLedger.existing(fleet.store / "ledgers", "rows") as ledger:
        releases = ledger.balance().runs[run].releases.values()
    assert sorted(r.reserved.round for r in releases if r.reserved.site == "west") == [1, 2]
    fleet.close()
    path = fleet.folder / "homes" / "west"
    with ClientHome(path, FileKey(path.with_suffix(".key")), AGREES) as opened:
        (counted,) = opened.spending.runs()
        assert opened.spending.rounds(*counted) == (1, 2)
    twice = [path.name.removesuffix("-1") for path in seen.glob("*-1")]
    same = [
        (seen / f"{task}-0").read_bytes() == (seen / f"{task}-1").read_bytes() for task in twice
    ]
    assert len(same) == 2, "it was killed in both rounds"
    assert all(same) if keeps else not any(same)
