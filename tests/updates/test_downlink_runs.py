"""Runs with a downlink: clients compute with what was sent, and its bytes are those recorded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_codec_runs import federation, finished, plan

import anabranch as ab
from anabranch.coordinator.events import Event, RoundCommitted
from anabranch.coordinator.store import Store, StoredRound
from anabranch.plan import Plan
from anabranch.plan.algebra import judge
from anabranch.plan.explain import Facts, explain

DELTA: dict[str, object] = {"kind": "delta"}


def with_downlink(downlink: dict[str, object] | None, rounds: int = 6, **changes: object) -> Plan:
    return plan(
        [],
        updates={"downlink": downlink},
        clients={"memory": True},
        rounds={"count": rounds, "cohort": 2},
        **changes,
    )


def rounds_of(store: Path, run: ab.Run) -> list[StoredRound]:
    with Store.open(store) as opened:
        return [stored for stored in opened.rounds(run.id) if stored.round]


def test_differences_are_a_fraction_of_float32(tmp_path: Path) -> None:
    dense = finished(tmp_path / "dense", with_downlink(None))
    lean = finished(tmp_path / "lean", with_downlink(DELTA))
    half = finished(tmp_path / "half", with_downlink({"kind": "fp16"}))
    sent = {
        name: sum(stored.bytes_down for stored in rounds_of(tmp_path / name, run))
        for name, run in (("dense", dense), ("lean", lean), ("half", half))
    }
    assert sent["half"] < 0.62 * sent["dense"]
    assert sent["lean"] < 0.3 * sent["dense"]  # a model of 401 numbers: tables weigh
    for run in (lean, half):
        assert run.metrics["accuracy"] == pytest.approx(dense.metrics["accuracy"], abs=0.06)
        assert not np.array_equal(run.vector, dense.vector)


def test_workers_change_no_bit_and_no_byte(tmp_path: Path) -> None:
    one = finished(tmp_path / "one", with_downlink(DELTA))
    two = {"engine": "numpy", "kind": "fork", "workers": 2}
    other = finished(tmp_path / "two", with_downlink(DELTA, runtime=two))
    np.testing.assert_array_equal(one.vector, other.vector)
    down = [[r.bytes_down for r in rounds_of(tmp_path / n, run)]
            for n, run in (("one", one), ("two", other))]  # fmt: skip
    assert down[0] == down[1]


@pytest.mark.parametrize("downlink", [DELTA, {"kind": "delta", "window": 2}, {"kind": "fp16"}])
def test_a_run_that_was_stopped_goes_on_alike(downlink: dict[str, object], tmp_path: Path) -> None:
    """The coordinator's side of the downlink is durable: bytes and model are those of one go."""
    whole = finished(tmp_path / "whole", with_downlink(downlink, 8))
    seen: list[int] = []

    def listener(event: Event) -> None:
        if isinstance(event, RoundCommitted):
            seen.append(event.round)

    half = ab.run_plan(
        with_downlink(downlink, 8),
        federation=federation(),
        store=tmp_path / "half",
        listener=listener,
        stopped=lambda: len(seen) == 4,
    )
    assert half.status == "stopped"
    rest = ab.resume(half.id, store=tmp_path / "half", federation=federation())
    np.testing.assert_array_equal(rest.vector, whole.vector)
    down = [[r.bytes_down for r in rounds_of(tmp_path / n, run)]
            for n, run in (("whole", whole), ("half", rest))]  # fmt: skip
    assert down[0] == down[1]


def test_clients_that_come_often_are_sent_less(tmp_path: Path) -> None:
    """Everybody takes part: differences to the last version; and without a window, the whole."""
    often, never = (
        plan([], updates={"downlink": {"kind": "delta", "window": window}},
             clients={"memory": bool(window)}, rounds={"count": 12})
        for window in (4, 0)
    )  # fmt: skip
    sizes = {
        name: rounds_of(tmp_path / name, finished(tmp_path / name, of))[-1].bytes_down
        for name, of in (("often", often), ("never", never))
    }
    assert sizes["often"] < sizes["never"]


def test_two_sections_go_down_alike(tmp_path: Path) -> None:
    """SCAFFOLD broadcasts a model and a control variate; each has a grid of its own."""
    run = finished(tmp_path / "s", with_downlink(DELTA, algorithm={"name": "scaffold"}))
    assert run.status == "complete"
    dense = finished(tmp_path / "d", with_downlink(None, algorithm={"name": "scaffold"}))
    assert run.metrics["loss"] == pytest.approx(dense.metrics["loss"], rel=0.15)


def test_the_explanation_says_how_the_model_goes_down() -> None:
    of = plan(
        [],
        updates={"downlink": DELTA, "budgets": [{"clients": "phone-*", "max_bytes": "2kB"}]},
        clients={"memory": True},
    )
    text = explain(of, Facts(clients=4, dim=33))
    assert "goes down encoded, as delta: coarseness = 1.0, window = 16" in text
    assert "clients 'phone-*' has at most 2000 bytes" in text


def test_differences_need_clients_that_keep_the_last_model() -> None:
    forgetful = plan([], updates={"downlink": DELTA}, clients={"memory": False})
    (refusal,) = judge(forgetful).refusals
    assert refusal.code == "AB-401"
    assert {"updates.downlink.window": 0} in [a.changes for a in refusal.alternatives]
    whole = plan([], updates={"downlink": {**DELTA, "window": 0}}, clients={"memory": False})
    assert judge(whole).accepted


def test_asynchronous_rounds_send_differences_too(tmp_path: Path) -> None:
    of = plan(
        [],
        updates={"downlink": DELTA},
        clients={"memory": True},
        rounds={"count": 6, "asynchronous": {"buffer": 2, "concurrency": 3}},
    )
    run = finished(tmp_path, of)
    assert run.status == "complete"
    down = [stored.bytes_down for stored in rounds_of(tmp_path, run)]
    dense = 4 * 401
    assert down[0] < dense  # three clients, the origin is known
    assert sum(down) < 0.5 * dense * 2 * run.rounds
