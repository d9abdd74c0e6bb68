"""Whole runs with each codec: the same code as deployed encodes and decodes, and sizes are real."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import anabranch as ab
from anabranch.coordinator.events import Event, RoundCommitted
from anabranch.coordinator.store import Store
from anabranch.data.split import hold_out
from anabranch.plan import Plan
from anabranch.plan.algebra import judge
from anabranch.updates import CODECS

DIMENSIONS = 400
BASE: dict[str, object] = {
    "data": {"source": "none"},
    "model": {"name": "logistic"},
    "local": {"learning_rate": 0.1},
    "rounds": {"count": 3},
    "runtime": {"engine": "numpy"},
}


def federation() -> ab.Federation:
    """Two wide Gaussian classes at each of four clients."""
    rng = np.random.default_rng(3)
    direction = rng.standard_t(3, DIMENSIONS)
    clients = {}
    for name in "abcd":
        y = rng.integers(0, 2, 60)
        x = rng.normal(size=(60, DIMENSIONS)) + np.outer(2 * y - 1, direction) * 0.3
        clients[name] = (x.astype(np.float32), y)
    return hold_out(ab.Federation.from_arrays(clients), 0.2, 0)


def plan(stages: list[dict[str, object]], **changes: object) -> Plan:
    return Plan.model_validate({**BASE, "updates": {"stages": stages}, **changes})


def finished(store: Path, of: Plan) -> ab.Run:
    return ab.run_plan(of, federation=federation(), store=store)


def bytes_up(store: Path, run: ab.Run) -> int:
    with Store.open(store) as opened:
        return sum(r.bytes_up for r in opened.rounds(run.id))


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> int:
    store = tmp_path_factory.mktemp("dense")
    return bytes_up(store, finished(store, plan([])))


@pytest.mark.parametrize("kind", sorted(CODECS))
def test_a_run_with_each_codec_sends_less(kind: str, tmp_path: Path, dense: int) -> None:
    stages: list[dict[str, object]] = [{"kind": "clip", "max_norm": 10.0}, {"kind": kind}]
    run = finished(tmp_path, plan(stages, clients={"memory": True}))
    assert run.status == "complete"
    # A hundred and twenty bytes are diagnostics and the frame; zstd wins little on float32.
    assert bytes_up(tmp_path, run) < (0.97 if kind == "zstd" else 0.75) * dense
    assert np.isfinite(run.vector).all()


def test_lossless_changes_no_bit(tmp_path: Path) -> None:
    plain = finished(tmp_path / "plain", plan([]))
    packed = finished(tmp_path / "packed", plan([{"kind": "zstd"}]))
    np.testing.assert_array_equal(packed.vector, plain.vector)


def test_workers_change_no_bit(tmp_path: Path) -> None:
    stages: list[dict[str, object]] = [{"kind": "ecq"}]
    one = finished(tmp_path / "one", plan(stages))
    two = {"engine": "numpy", "kind": "fork", "workers": 2}
    other = finished(tmp_path / "two", plan(stages, runtime=two))
    np.testing.assert_array_equal(one.vector, other.vector)


def test_error_feedback_survives_a_stop(tmp_path: Path) -> None:
    """What clients did not send stands in their memory slots, so a resumed run ends alike."""
    of = plan([{"kind": "topk", "fraction": 0.05}], rounds={"count": 6}, clients={"memory": True})
    whole = finished(tmp_path / "whole", of)
    seen: list[int] = []

    def listener(event: Event) -> None:
        if isinstance(event, RoundCommitted):
            seen.append(event.round)

    half = ab.run_plan(
        of,
        federation=federation(),
        store=tmp_path / "half",
        listener=listener,
        stopped=lambda: len(seen) == 3,
    )
    assert (half.status, half.rounds) == ("stopped", 3)
    rest = ab.resume(half.id, store=tmp_path / "half", federation=federation())
    np.testing.assert_array_equal(rest.vector, whole.vector)
    forgetful = plan([{"kind": "topk", "fraction": 0.05, "feedback": False}], rounds={"count": 6})
    assert not np.array_equal(finished(tmp_path / "none", forgetful).vector, whole.vector)


def codes(of: Plan) -> list[str]:
    return [refusal.code for refusal in judge(of).refusals]


def test_what_the_algebra_refuses() -> None:
    ecq, clip = {"kind": "ecq"}, {"kind": "clip", "max_norm": 1.0}
    assert codes(plan([clip, ecq])) == []
    assert codes(plan([ecq, {"kind": "zstd"}])) == ["AB-460"]
    assert codes(plan([ecq, clip])) == ["AB-461"]
    assert codes(plan([ecq], algorithm={"name": "feddyn"}, clients={"memory": True})) == ["AB-462"]
    assert codes(plan([ecq], algorithm={"name": "fedexp"})) == ["AB-463"]
    assert codes(plan([ecq], model={"name": "logistic", "normalisation": "average"})) == ["AB-464"]
    assert codes(plan([{"kind": "topk"}], clients={"memory": False})) == ["AB-401"]


@pytest.mark.parametrize("algorithm", ["fedavg", "feddyn", "fedexp"])
def test_alternatives_are_accepted(algorithm: str) -> None:
    of = plan(
        [{"kind": "ecq"}, {"kind": "clip", "max_norm": 1.0}, {"kind": "zstd"}],
        algorithm={"name": algorithm},
        clients={"memory": True},
    )
    refusals = judge(of).refusals
    assert {"AB-460", "AB-461"} <= {refusal.code for refusal in refusals}
    assert all(refusal.alternatives for refusal in refusals)


def test_control_variates_leave_whole() -> None:
    verdict = judge(
        plan([{"kind": "ecq"}], algorithm={"name": "scaffold"}, clients={"memory": True})
    )
    assert verdict.accepted
    assert any("'control' leaves as float32" in note.text for note in verdict.notes)
