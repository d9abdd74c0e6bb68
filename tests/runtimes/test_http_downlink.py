"""Encoded broadcasts over HTTP: the simulated model bit for bit, whatever clients still hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from http_fleets import ClientProcesses, Listener
from test_http_runs import NAMES, conducted

import anabranch.runtimes.http.held as held_module
from anabranch.algorithms import FedAvg, Scaffold
from anabranch.algorithms.base import Algorithm
from anabranch.api.prepare import Prepared, prepare
from anabranch.client.vault import FileKey, open_vault
from anabranch.coordinator.frames import Frames
from anabranch.coordinator.store import Store
from anabranch.data.federation import Federation
from anabranch.data.plan import DataPlan
from anabranch.errors import AnabranchError
from anabranch.learners.plan import ModelPlan
from anabranch.learners.training import LocalTraining
from anabranch.plan import Plan
from anabranch.plan.evaluation import EvaluationPlan
from anabranch.plan.rounds import RoundsPlan
from anabranch.plan.runtime import RuntimePlan
from anabranch.plan.schema import ClientsPlan, UpdatesPlan
from anabranch.runtimes.http.client.receiving import received
from anabranch.runtimes.http.held import HeldBroadcasts
from anabranch.runtimes.http.messages import TaskOffer
from anabranch.updates.container import joined
from anabranch.updates.downlink import DeltaDownlink, Downlink, HalfDownlink
from anabranch.updates.downlink_state import Held
from anabranch.updates.grid import Grid

WIDTH = 200


def work(
    downlink: Downlink | None, rounds: RoundsPlan, algorithm: Algorithm | None = None
) -> Prepared:
    draw = np.random.default_rng(3)
    clients = {}
    for client, name in enumerate(NAMES):
        x = draw.normal(size=(10 + 4 * client, WIDTH)).astype(np.float32)
        clients[name] = (x, (np.arange(len(x)) % 3).astype(np.int64))
    federation = Federation.from_arrays(clients, holdout=clients["a"])
    plan = Plan(
        name="downlink",
        seed=5,
        data=DataPlan(source="arrays"),
        model=ModelPlan(name="logistic"),
        algorithm=algorithm or FedAvg(),
        local=LocalTraining(batch_size=4, epochs=1, learning_rate=0.1),
        rounds=rounds,
        clients=ClientsPlan(memory=True),
        updates=UpdatesPlan(downlink=downlink),
        evaluation=EvaluationPlan(on="holdout", every=2),
        runtime=RuntimePlan(kind="inline", engine="numpy"),
    )
    return prepare(plan, federation)


def bytes_down(folder: Path, run: str) -> list[int]:
    with Store.open(folder) as store:
        return [stored.bytes_down for stored in store.rounds(run) if stored.round]


def both(
    prepared: Prepared, tmp_path: Path, listeners: Mapping[str, Listener] | None = None
) -> tuple[list[int], list[int]]:
    """Simulated and over HTTP: the model is the same; the bytes of each round."""
    simulated, _ = conducted(prepared, tmp_path / "simulated", None)
    fleet = ClientProcesses(prepared, tmp_path / "clients", listeners)
    deployed, _ = conducted(prepared, tmp_path / "deployed", fleet)
    assert fleet.join() == [0] * len(NAMES)
    assert deployed.status == simulated.status == "complete"
    np.testing.assert_array_equal(deployed.vector, simulated.vector)
    return (
        bytes_down(tmp_path / "simulated", simulated.id),
        bytes_down(tmp_path / "deployed", deployed.id),
    )


def unlike(first: list[int], second: list[int]) -> list[int]:
    """Rounds in which the bytes differ."""
    return [number for number, (a, b) in enumerate(zip(first, second, strict=True), 1) if a != b]


@pytest.mark.parametrize(
    ("downlink", "algorithm"),
    [
        (DeltaDownlink(), FedAvg()),
        (DeltaDownlink(window=2), Scaffold()),
        pytest.param(DeltaDownlink(window=0), FedAvg(), marks=pytest.mark.slow),
        pytest.param(HalfDownlink(), FedAvg(), marks=pytest.mark.slow),
    ],
    ids=["delta", "delta of two sections", "whole models", "fp16"],
)
def test_the_model_and_the_bytes_are_the_simulated_ones(
    downlink: Downlink, algorithm: Algorithm, tmp_path: Path
) -> None:
    """Two of four clients a round: some miss several rounds and come back."""
    prepared = work(downlink, RoundsPlan(count=6, cohort=2), algorithm)
    simulated, deployed = both(prepared, tmp_path)
    assert deployed == simulated
    sections = 2 if isinstance(algorithm, Scaffold) else 1
    dense = 2 * 4 * prepared.program.dim * sections
    assert max(deployed) < 0.65 * dense


def test_a_client_whose_disk_was_emptied_fetches_the_whole_model(tmp_path: Path) -> None:
    folder = tmp_path / "clients" / "a"

    def lost(offer: TaskOffer) -> None:
        if offer.round == 4:
            assert offer.base == 3
            for path in folder.glob("broadcast-*.held"):
                path.unlink()

    simulated, deployed = both(work(DeltaDownlink(), RoundsPlan(count=6)), tmp_path, {"a": lost})
    assert [number for number, down in enumerate(deployed, 1) if down != simulated[number - 1]] == [
        4
    ]
    assert deployed[3] > simulated[3]  # the whole is counted, not the difference
    kept = sorted(path.name for path in (tmp_path / "clients" / "b").glob("*.held"))
    assert kept == ["broadcast-5.held", "broadcast-6.held"]


def test_a_damaged_file_and_another_version_cost_a_whole_download(tmp_path: Path) -> None:
    folder = tmp_path / "clients" / "a"

    def damaged(offer: TaskOffer) -> None:
        path = folder / f"broadcast-{offer.base}.held"
        if offer.round == 3:
            content = bytearray(path.read_bytes())
            content[-1] ^= 1  # reads well, and is another model
            path.write_bytes(bytes(content))
        if offer.round == 5:
            path.write_bytes(b"nothing")

    simulated, deployed = both(work(DeltaDownlink(), RoundsPlan(count=6)), tmp_path, {"a": damaged})
    assert unlike(simulated, deployed) == [3, 5]


# The pieces -----------------------------------------------------------------------------------


def conformance() -> dict:  # type: ignore[type-arg]  # JSON
    text = (Path(__file__).resolve().parents[2] / "docs" / "conformance.json").read_text("utf-8")
    return json.loads(text)["values"]["downlink"]  # type: ignore[no-any-return]


def test_the_vectors_decode_to_what_they_say() -> None:
    """Read by hand from the protocol's text: units of the frame, added on the finer grid."""
    held = conformance()
    origin = np.array(held["origin"], np.float32)
    for frame in held["frames"]:
        by_hand = origin + np.array(frame["units"], np.float32) * np.float32(
            2.0 ** frame["exponent"]
        )
        np.testing.assert_array_equal(by_hand, np.array(frame["model"], np.float32))
    first, difference, whole = held["frames"]
    assert (first["base"], difference["base"], whole["base"]) == (0, 1, 0)
    assert difference["model"] == whole["model"]


def test_a_client_decodes_the_vectors_and_checks_their_digest(tmp_path: Path) -> None:
    values = conformance()
    prepared = work(DeltaDownlink(), RoundsPlan(count=1))
    program = prepared.program
    object.__setattr__(program, "origin", {"model": np.array(values["origin"], np.float32)})
    held = HeldBroadcasts(tmp_path, {"model": 4})

    def offer(number: int, decoded: str = "") -> TaskOffer:
        frame = values["frames"][number]
        return TaskOffer(
            task="ab" * 16, kind="train", round=2, broadcast="0" * 64, bytes=0,
            base=frame["base"], decoded=decoded or frame["decoded"], whole="1" * 64,
        )  # fmt: skip

    def content(number: int) -> bytes:
        return bytes.fromhex(values["frames"][number]["download_hex"])

    type_ = {s.name: s.length for s in program.broadcast_sections}
    assert type_ == {"model": program.dim}
    with pytest.raises(AnabranchError) as missing:
        received(program, held, offer(1), content(1))
    assert missing.value.code == "AB-526"
    for number in (0, 1):
        got = received(program, held, offer(number), content(number))
        np.testing.assert_array_equal(got["model"], values["frames"][number]["model"])
    assert held.holds(1)
    assert held.holds(2)
    with pytest.raises(AnabranchError) as unlike:
        received(program, held, offer(2, "7" * 64), content(2))
    assert unlike.value.code == "AB-528"
    with pytest.raises(AnabranchError) as stale:
        received(program, held, offer(1, "7" * 64), content(1))
    assert stale.value.code == "AB-526"
    assert not held.holds(1)
    with pytest.raises(AnabranchError) as empty:
        received(program, held, offer(0), joined([b"nothing"]))
    assert empty.value.code == "AB-525"


def test_what_is_kept_lies_sealed_and_is_bounded(tmp_path: Path) -> None:
    vault = open_vault(tmp_path / "vault", FileKey(tmp_path / "vault.key"))
    held = HeldBroadcasts(tmp_path / "run", {"model": 3, "control": 2}, vault)
    points = {
        version: Held(version, {
            "model": Grid(-3, np.array([version, -version, 70000], np.int32)),
            "control": Grid(-9, np.array([1, 2], np.int32)),
        })
        for version in (1, 2, 3)
    }  # fmt: skip
    for version, base in ((1, 0), (2, 1), (3, 1)):
        held.keep(points[version], base)
    assert [held.holds(version) for version in range(5)] == [True, True, False, True, False]
    again = held.read(3)
    for name, grid in points[3].point.items():
        assert again.point[name].exponent == grid.exponent
        np.testing.assert_array_equal(again.point[name].units, grid.units)
    assert b"exponents" not in (tmp_path / "run" / "broadcast-3.held").read_bytes()
    with pytest.raises(AnabranchError, match="AB-526"):
        HeldBroadcasts(tmp_path / "run", {"model": 3, "control": 2}, None).read(3)
    assert not held.holds(1)  # what cannot be read is forgotten


def test_a_full_disk_costs_a_whole_download_and_no_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(held_module, "write_durably", full)
    held = HeldBroadcasts(tmp_path, {"model": 1})
    held.keep(Held(1, {"model": Grid(0, np.array([1], np.int32))}), 0)
    assert not held.holds(1)


def test_frames_go_to_those_who_can_read_them() -> None:
    whole = b"whole model"
    frames = Frames.of(("model",), whole, {0: 0, 1: 4, 2: 3}, {0: whole, 4: b"diff", 3: whole})
    assert [frames.frame(client) for client in (0, 1, 2, 9)] == [whole, b"diff", whole, whole]
    assert frames.bases == {1: 4}


def test_a_task_asked_again_is_the_same_question_however_its_vectors_travel() -> None:
    offer = TaskOffer(
        task="ab" * 16, kind="train", round=2, broadcast="0" * 64, bytes=9, base=1,
        decoded="2" * 64, whole="1" * 64, whole_bytes=90,
    )  # fmt: skip
    whole = offer.self_contained()
    assert (whole.broadcast, whole.bytes, whole.base) == ("1" * 64, 90, 0)
    assert whole.question() == offer.question()
    assert whole.self_contained() == whole
    other = offer.model_copy(update={"decoded": "3" * 64})
    assert other.question() != offer.question()
    plain = offer.model_copy(update={"decoded": "", "base": 0})
    assert plain.question() != plain.model_copy(update={"broadcast": "9" * 64}).question()
