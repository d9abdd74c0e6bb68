"""Both our ends of a Flower run in one process, with a Grid that answers at once.

What Flower does in between is tested on a real fleet (``test_flower_fleet``); here are the cases
for which a real one takes minutes.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flwr", minversion="1.41")

from flower_apps import NAMES, PLAN
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from near_grid import NearGrid, inside_an_app
from safetensors.numpy import load_file

from anabranch.api.flower_app import run_on_grid, server
from anabranch.api.run import Run
from anabranch.api.simulate import run_plan
from anabranch.coordinator.store import Store
from anabranch.errors import AnabranchError
from anabranch.plan import load_plan
from anabranch.runtimes.flower.client_app import handle

SUMS = """
[aggregation]
weighting = {{ kind = "uniform" }}

[secure_aggregation]
bound = 1.0
corrupt_share = {corrupt}
dropout_share = {corrupt}
minimum = 3
"""


@pytest.fixture(autouse=True)
def _in_flower(monkeypatch: pytest.MonkeyPatch) -> None:
    inside_an_app(monkeypatch)


def plan_text(algorithm: str = "fedavg", rounds: int = 2, more: str = "") -> str:
    return PLAN.format(algorithm=algorithm, rounds=rounds, more=more, evaluation='on = "nowhere"')


def on_grid(folder: Path, grid: NearGrid, text: str, **config: object) -> Run:
    given = {"plan": text, "store": str(folder / "store"), "quiet": 0.2, "patience": 5, **config}
    return run_on_grid(grid, given)  # type: ignore[arg-type]  # a Grid as far as it is used


def model(folder: Path, run: Run) -> np.ndarray:
    arrays = load_file(folder / "models" / f"{run.id}.safetensors")
    return np.concatenate([arrays[name].ravel() for name in sorted(arrays)])


def simulated(folder: Path, text: str) -> np.ndarray:
    path = folder / "plan.toml"
    path.write_text(text, "utf-8")
    run = run_plan(load_plan(path), store=folder / "simulated")
    return model(folder / "simulated", run)


def fates_of(folder: Path, run: str, round_: int) -> dict[str, str]:
    with Store.open(folder / "store", create=False) as store:
        (found,) = [r for r in store.rounds(run) if r.round == round_]
    columns = found.client_columns
    return dict(zip(columns["client"], columns["fate"], strict=True))


def status_of(folder: Path) -> tuple[str, str, str]:
    with Store.open(folder / "store", create=False) as store:
        (run,) = store.runs()
        return run.id, run.status, run.reason


def test_models_go_down_encoded_and_whole(tmp_path: Path) -> None:
    """The simulation sends differences; nodes get whole models, which decode to the same bits."""
    more = "[clients]\nmemory = true\n[updates.downlink]\nkind = 'delta'\n"
    text = plan_text("scaffold", rounds=3, more=more)
    run = on_grid(tmp_path, NearGrid(NAMES, tmp_path / "state"), text)
    np.testing.assert_array_equal(model(tmp_path / "store", run), simulated(tmp_path, text))
    assert not list((tmp_path / "state").rglob("*.held"))


# Secure sums ---------------------------------------------------------------------------------


def test_a_secure_sum_over_messages_is_the_simulated_one(tmp_path: Path) -> None:
    text = plan_text(more=SUMS.format(corrupt=0.0))
    run = on_grid(tmp_path, NearGrid(NAMES, tmp_path / "state"), text)
    assert run.status == "complete"
    np.testing.assert_array_equal(model(tmp_path / "store", run), simulated(tmp_path, text))


@pytest.mark.parametrize("stage", range(6))
def test_a_node_lost_at_any_stage_is_left_out_or_unmasked_without(
    tmp_path: Path, stage: int
) -> None:
    """Hello, keys, nonces, shares | update | signatures: it is missing from there on."""
    grid = NearGrid(NAMES, tmp_path / "state")

    def lost(client: str, kind: str, number: int) -> bool:
        mine = sum(asked == ("Hungary", kind_) for asked in grid.seen for kind_ in _WORK)
        return client == "Hungary" and kind in _WORK and mine > stage

    grid.lost = lost
    run = on_grid(tmp_path, grid, plan_text(rounds=1, more=SUMS.format(corrupt=0.0)))
    fates = fates_of(tmp_path, run.id, 1)
    # Once its masked update is in, it counts, whatever becomes of the node.
    assert fates.pop("Hungary") == ("merged" if stage > 4 else "lost")
    assert set(fates.values()) == {"merged"}
    assert run.status == "complete"


_WORK = ("query.exchange", "train")


# How a run ends ------------------------------------------------------------------------------


def test_a_run_that_is_refused_before_its_first_round_says_so_in_the_store(tmp_path: Path) -> None:
    """Four clients of which one may be corrupt and one may vanish: no threshold protects them."""
    text = plan_text(more=SUMS.format(corrupt=0.1))
    with pytest.raises(AnabranchError, match="AB-953"):
        on_grid(tmp_path, NearGrid(NAMES, tmp_path / "state"), text)
    _, status, reason = status_of(tmp_path)
    assert status == "failed"
    assert "AB-953" in reason


def test_a_run_without_enough_nodes_says_so_and_goes_on_when_they_are_there(tmp_path: Path) -> None:
    text = plan_text("scaffold")
    few = NearGrid(NAMES, tmp_path / "state", online=1)
    with pytest.raises(AnabranchError, match="AB-782"):
        on_grid(tmp_path, few, text, patience=0.5)
    run_id, status, reason = status_of(tmp_path)
    assert (status, "AB-782" in reason) == ("failed", True)
    again = on_grid(tmp_path, NearGrid(NAMES, tmp_path / "state"), text, resume=run_id)
    assert (again.id, again.status) == (run_id, "complete")
    np.testing.assert_array_equal(model(tmp_path / "store", again), simulated(tmp_path, text))


@pytest.mark.parametrize(
    ("broken", "status", "words"),
    [(SystemExit(0), "stopped", "was stopped"), (ConnectionError("gone"), "failed", "gone")],
)
def test_an_app_that_dies_between_rounds_leaves_a_run_that_can_be_resumed(
    tmp_path: Path, broken: BaseException, status: str, words: str
) -> None:
    text = plan_text("scaffold", rounds=3)
    grid = NearGrid(NAMES, tmp_path / "state")

    def dies(client: str, kind: str, number: int) -> bool:
        if grid.seen.count(("Cleveland", "train")) == 2:
            raise broken
        return False

    grid.lost = dies
    with pytest.raises(type(broken)):
        on_grid(tmp_path, grid, text)
    run_id, found, reason = status_of(tmp_path)
    assert found == status
    assert words in reason
    grid.lost = lambda client, kind, number: False
    run = on_grid(tmp_path, grid, text, resume=run_id)
    np.testing.assert_array_equal(model(tmp_path / "store", run), simulated(tmp_path, text))


@pytest.mark.parametrize("message", [7, 10, 11, 12])
def test_a_secure_run_that_is_cut_off_at_any_stage_goes_on_to_the_same_model(
    tmp_path: Path, message: int
) -> None:
    """Of Cleveland's messages: hello, keys, nonces, shares, update, signatures, reveals, again."""
    text = plan_text(more=SUMS.format(corrupt=0.0))
    grid = NearGrid(NAMES, tmp_path / "state")

    def dies(client: str, kind: str, number: int) -> bool:
        if sum(asked in (("Cleveland", kind_) for kind_ in _WORK) for asked in grid.seen) > message:
            raise ConnectionError("gone")
        return False

    grid.lost = dies
    with pytest.raises(ConnectionError):
        on_grid(tmp_path, grid, text)
    run_id, status, _ = status_of(tmp_path)
    assert status == "failed"
    grid.lost = lambda client, kind, number: False
    run = on_grid(tmp_path, grid, text, resume=run_id)
    assert set(fates_of(tmp_path, run.id, 2).values()) == {"merged"}
    np.testing.assert_array_equal(model(tmp_path / "store", run), simulated(tmp_path, text))


def test_a_run_that_fails_by_its_rules_fails_for_flower_too(tmp_path: Path) -> None:
    """Nobody answers in any round."""
    grid = NearGrid(NAMES, tmp_path / "state", lost=lambda client, kind, number: kind == "train")
    config = {"plan": plan_text(), "store": str(tmp_path / "store"), "quiet": 0.2}
    with pytest.raises(AnabranchError, match="AB-788"):
        server(grid, Context(1, 1, {}, RecordDict(), config))
    assert status_of(tmp_path)[1] == "failed"


def test_a_complete_run_stays_complete_when_it_is_resumed(tmp_path: Path) -> None:
    text, grid = plan_text(), NearGrid(NAMES, tmp_path / "state")
    run = on_grid(tmp_path, grid, text)
    with pytest.raises(AnabranchError, match="AB-609"):
        on_grid(tmp_path, grid, text, resume=run.id)
    assert status_of(tmp_path)[1] == "complete"


# What goes wrong at nodes --------------------------------------------------------------------


def test_each_client_has_its_fate_with_the_reason(tmp_path: Path) -> None:
    """Lost: Flower's word. Failed: the class of what was raised, never its text. Refused: NaN."""
    grid = NearGrid(NAMES, tmp_path / "state")
    grid.lost = lambda client, kind, number: client == "Hungary" and kind == "train"

    def spoil(client: str, kind: str, reply: Message) -> None:
        if kind != "train":
            return
        if client == "Switzerland":
            reply.content["update"] = ArrayRecord([np.zeros(3, np.uint8)])
        if client == "VA Long Beach":
            reply.content["answer"] = ConfigRecord({"hello": "world"})

    grid.spoil = spoil
    run = on_grid(tmp_path, grid, plan_text(rounds=1).replace("quorum = 2", "quorum = 1"))
    fates = fates_of(tmp_path, run.id, 1)
    assert fates == {
        "Cleveland": "merged",
        "Hungary": "lost",
        "Switzerland": "refused",
        "VA Long Beach": "refused",
    }


@pytest.mark.parametrize(
    ("code", "fate"),
    [(2, "failed"), (3, "lost"), (4, "lost"), (5, "lost"), (6, "failed"), (7, "lost"), (8, "lost")],
)
def test_flowers_errors_are_fates_without_values(tmp_path: Path, code: int, fate: str) -> None:
    """Expired, gone, died: lost. Raised or not loadable: failed, by the class of the error."""
    grid = NearGrid(NAMES, tmp_path / "state")
    grid.lost = lambda client, kind, number: (client, kind) == ("Hungary", "train")
    grid.error = (
        code,
        "Traceback (most recent call last)\nValueError: patient 17 is 340 years old",
    )
    run = on_grid(tmp_path, grid, plan_text(rounds=1))
    with Store.open(tmp_path / "store", create=False) as store:
        columns = store.rounds(run.id)[-1].client_columns
    details = dict(zip(columns["client"], columns["detail"], strict=True))
    assert fates_of(tmp_path, run.id, 1)["Hungary"] == fate
    assert details["Hungary"] == f"Flower error {code} ValueError"


def test_a_node_that_never_answers_is_too_late_at_the_deadline(tmp_path: Path) -> None:
    grid = NearGrid(NAMES, tmp_path / "state", silent=frozenset({"Hungary"}))
    text = plan_text().replace("quorum = 2", "quorum = 2\ndeadline = 2.0")
    run = on_grid(tmp_path, grid, text)
    assert run.status == "complete"
    for round_ in (1, 2):
        fates = fates_of(tmp_path, run.id, round_)
        assert fates.pop("Hungary") == "too late"
        assert set(fates.values()) == {"merged"}


def test_a_node_tells_the_class_of_an_error_and_no_values(tmp_path: Path) -> None:
    grid = NearGrid(NAMES, tmp_path / "state", configs={"data": str(tmp_path / "absent.csv")})
    message = Message(
        RecordDict({"task": ConfigRecord({"offer": "{}"})}), dst_node_id=100, message_type="train"
    )
    grid.push_messages([message])
    (reply,) = grid.pull_messages(list(grid.replies))
    assert "AB-781" in str(reply.content["answer"]["failure"])


# Memory between rounds -----------------------------------------------------------------------


def test_a_folder_that_was_lost_is_restored_from_the_context(tmp_path: Path) -> None:
    text = plan_text("scaffold", rounds=3)
    grid = NearGrid(NAMES, tmp_path / "state")

    def wiped(client: str, kind: str, number: int) -> bool:
        if kind == "train" and grid.seen.count((client, "train")) > 1:
            shutil.rmtree(tmp_path / "state" / client)
        return False

    grid.lost = wiped
    run = on_grid(tmp_path, grid, text)
    np.testing.assert_array_equal(model(tmp_path / "store", run), simulated(tmp_path, text))


def test_a_folder_without_a_copy_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anabranch.runtimes.flower.remembered._MOST", 10)
    grid = NearGrid(NAMES, tmp_path / "state")

    def wiped(client: str, kind: str, number: int) -> bool:
        if client == "Hungary" and grid.seen.count((client, "train")) == 2:
            shutil.rmtree(tmp_path / "state" / client, ignore_errors=True)
        return False

    grid.lost = wiped
    run = on_grid(tmp_path, grid, plan_text("scaffold"))
    with Store.open(tmp_path / "store", create=False) as store:
        columns = store.rounds(run.id)[-1].client_columns
    details = dict(zip(columns["client"], columns["detail"], strict=True))
    assert "AB-784" in details["Hungary"]
    assert fates_of(tmp_path, run.id, 2)["Cleveland"] == "merged"


def test_a_first_update_that_was_not_merged_leaves_nothing_to_miss(tmp_path: Path) -> None:
    """The round fails, its memories are dropped, and the next one is not refused for that."""
    grid = NearGrid(NAMES, tmp_path / "state")

    def spoil(client: str, kind: str, reply: Message) -> None:
        if client == "Hungary" and grid.seen.count((client, "train")) == 1:
            reply.content["update"] = ArrayRecord([np.zeros(3, np.uint8)])

    grid.spoil = spoil
    run = on_grid(tmp_path, grid, plan_text("scaffold", rounds=3))
    assert fates_of(tmp_path, run.id, 1)["Hungary"] == "refused"
    assert fates_of(tmp_path, run.id, 2)["Hungary"] == "merged"
    assert fates_of(tmp_path, run.id, 3)["Hungary"] == "merged"


def test_the_task_of_another_client_is_refused(tmp_path: Path) -> None:
    """AB-783: the node is configured as one client, the task is for another."""
    grid = NearGrid(NAMES, tmp_path / "state")
    on_grid(tmp_path, grid, plan_text(rounds=1))
    assert grid.last is not None
    message, context = grid.last
    context.node_config["client"] = "nobody"
    failure = str(handle(message, context).content["answer"]["failure"])
    assert "AB-783" in failure
