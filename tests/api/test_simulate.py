"""`simulate`, `run_plan`, `resume`: small real runs through everything."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import anabranch as ab
from anabranch.coordinator.events import ClientTrouble, Event, RoundCommitted, RunEnded, RunStarted
from anabranch.coordinator.store import Store
from anabranch.learners.plan import ModelPlan
from anabranch.plan.evaluation import EvaluationPlan, StopPlan
from anabranch.plan.limits import Limits
from anabranch.plan.rounds import RoundsPlan
from anabranch.plan.runtime import RuntimePlan

NUMPY = RuntimePlan(engine="numpy", kind="inline")


def blobs(clients: int = 4, seed: int = 0) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Three separable classes; every client sees them in other shares."""
    draw = np.random.default_rng(seed)
    centres = 3 * np.random.default_rng(1).normal(size=(3, 6))
    data = {}
    for client in range(clients):
        y = draw.choice(3, 60, p=np.roll([0.6, 0.3, 0.1], client))
        x = centres[y] + draw.normal(size=(60, 6))
        data[f"c{client}"] = (x.astype(np.float32), y.astype(np.int64))
    return data


def run(tmp_path: Path, **changes: object) -> ab.Run:
    given: dict[str, object] = {
        "model": "logistic",
        "clients": blobs(),
        "rounds": 8,
        "runtime": NUMPY,
        "store": tmp_path,
        **changes,
    }
    return ab.simulate(**given)  # type: ignore[arg-type]


def test_ten_lines_learn_something_and_leave_everything_in_the_store(tmp_path: Path) -> None:
    events: list[Event] = []
    done = run(tmp_path, algorithm=ab.FedProx(mu=0.01), listener=events.append)
    assert done.status == "complete"
    assert done.metrics["accuracy"] > 0.9
    assert set(done.clients) == {"c0", "c1", "c2", "c3"}
    assert [r.round for r in done.history] == list(range(9))
    assert isinstance(events[0], RunStarted)
    assert "can read every update" in events[0].trust_line
    assert isinstance(events[-1], RunEnded)
    assert sum(isinstance(event, RoundCommitted) for event in events) == 8
    saved = load_file(tmp_path / "models" / f"{done.id}.safetensors")
    for name, value in done.parameters().items():
        np.testing.assert_array_equal(saved[name], value)
    with Store.open(tmp_path) as store:
        releases = store.releases(done.id)
    assert {r.entry.what for r in releases} == {"model", "metrics of the clients"}
    assert all(r.entry.mechanism == "unprotected" for r in releases)


@pytest.mark.parametrize("algorithm", [ab.FedAvg(), ab.Scaffold(), ab.FedDyn(), ab.FedExP()])
def test_workers_change_no_bit(algorithm: ab.Algorithm, tmp_path: Path) -> None:
    plans = [NUMPY] + [RuntimePlan(engine="numpy", kind="fork", workers=w) for w in (1, 3)]
    models = [run(tmp_path, algorithm=algorithm, runtime=plan).vector for plan in plans]
    for model in models[1:]:
        np.testing.assert_array_equal(models[0], model)


@pytest.mark.slow
def test_spawned_workers_change_no_bit(tmp_path: Path) -> None:
    spawned = RuntimePlan(engine="numpy", kind="spawn", workers=2)
    one = run(tmp_path, algorithm=ab.Scaffold())
    two = run(tmp_path, algorithm=ab.Scaffold(), runtime=spawned)
    np.testing.assert_array_equal(one.vector, two.vector)


def test_another_seed_is_another_run(tmp_path: Path) -> None:
    assert not np.array_equal(run(tmp_path).vector, run(tmp_path, seed=1).vector)


def test_a_stopped_run_resumes_to_the_same_end(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", algorithm=ab.Scaffold())
    seen: list[int] = []

    def listener(event: Event) -> None:
        if isinstance(event, RoundCommitted):
            seen.append(event.round)

    federation = ab.Federation.from_arrays(blobs())
    plan = ab.Plan.model_validate(_resolved(tmp_path / "whole", whole.id))
    half = ab.run_plan(
        plan,
        federation=_held_out(federation),
        store=tmp_path / "half",
        listener=listener,
        stopped=lambda: len(seen) == 3,
    )
    assert (half.status, half.rounds) == ("stopped", 3)
    rest = ab.resume(half.id, store=tmp_path / "half", federation=_held_out(federation))
    assert (rest.status, rest.rounds) == ("complete", 8)
    np.testing.assert_array_equal(rest.vector, whole.vector)
    with pytest.raises(ab.AnabranchError, match="AB-609"):
        ab.resume(half.id, store=tmp_path / "half", federation=_held_out(federation))


def _held_out(federation: ab.Federation) -> ab.Federation:
    from anabranch.data.split import hold_out

    return hold_out(federation, 0.2, 0)


def _resolved(store: Path, run_id: str) -> dict[str, object]:
    with Store.open(store) as opened:
        return dict(opened.run(run_id).plan)


def test_other_data_are_refused_on_resume(tmp_path: Path) -> None:
    done = run(tmp_path, stop=StopPlan(metric="accuracy", target=0.1))
    assert "target" in done.reason
    other = _held_out(ab.Federation.from_arrays(blobs(seed=5)))
    with Store.open(tmp_path) as store:
        run_id = store.create_run(store.run(done.id))
    with pytest.raises(ab.AnabranchError, match="AB-510"):
        ab.resume(run_id, store=tmp_path, federation=other)


def test_limits_are_judged(tmp_path: Path) -> None:
    limits = Limits(max_update_bytes=90, min_participation=0.5)
    done = run(tmp_path, limits=limits)
    assert {check.name: check.met for check in done.limits} == {
        "max_update_bytes": False,
        "min_participation": True,
    }
    assert not done.limits_met


def test_a_client_that_fails_is_named_and_the_run_goes_on(tmp_path: Path) -> None:
    clients = blobs()
    x, y = clients["c2"]
    clients["c2"] = (x * np.float32(1e25), y)
    events: list[Event] = []
    local = ab.LocalTraining(learning_rate=1.0)
    done = run(tmp_path, clients=clients, local=local, listener=events.append)
    troubles = {event.client for event in events if isinstance(event, ClientTrouble)}
    assert troubles == {"c2"}
    assert done.status == "complete"
    assert {r.outcome for r in done.history[1:]} == {"partial"}
    assert np.isfinite(done.vector).all()


def test_a_run_in_which_all_rounds_fail_ends_by_rule(tmp_path: Path) -> None:
    clients = {name: (x * np.float32(1e25), y) for name, (x, y) in blobs().items()}
    rounds = RoundsPlan(count=50, max_failures=2)
    done = run(tmp_path, clients=clients, rounds=rounds, local=ab.LocalTraining(learning_rate=1.0))
    assert (done.status, done.rounds) == ("failed", 3)
    assert "quorum" in done.reason
    assert "AB-50" in done.reason
    with Store.open(tmp_path) as store:
        first, last = store.model(done.id), store.rounds(done.id)[-1]
    assert last.outcome == "failed"
    assert np.isfinite(first["server.model"]).all()


def test_a_run_too_short_to_end_by_rule_fails_too_when_no_round_is_merged(tmp_path: Path) -> None:
    clients = {name: (x * np.float32(1e25), y) for name, (x, y) in blobs().items()}
    done = run(tmp_path, clients=clients, rounds=2, local=ab.LocalTraining(learning_rate=1.0))
    assert (done.status, done.rounds) == ("failed", 2)
    assert "no round was merged" in done.reason
    assert "AB-50" in done.reason


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"rounds": 0}, "AB-105"),
        ({"rounds": "ten"}, "AB-105"),
        ({"algorithm": "fedavgg"}, "AB-109"),
        ({"epochs": 3}, "AB-103"),
        ({"test_fraction": 1.5}, "AB-105"),
        ({"model": "mlpp"}, "AB-303"),
        ({"model": 42}, "AB-305"),
        ({"clients": None}, "AB-201"),
        ({"test": {"nobody": (np.zeros((2, 6)), np.zeros(2, int))}}, "AB-228"),
        ({"rounds": RoundsPlan(count=2, cohort=50)}, "AB-112"),
    ],
)
def test_what_a_notebook_gets_wrong_has_a_code(
    tmp_path: Path, change: dict[str, object], code: str
) -> None:
    """In the notebook as on the command line: a code and a remedy, no error of a library."""
    with pytest.raises(ab.AnabranchError) as caught:
        run(tmp_path, **change)
    assert caught.value.code == code


def test_an_algorithm_may_be_named(tmp_path: Path) -> None:
    named = run(tmp_path, algorithm="scaffold", rounds=2)
    made = run(tmp_path, algorithm=ab.Scaffold(), rounds=2)
    np.testing.assert_array_equal(named.vector, made.vector)


def test_local_parameters_stay_with_their_clients(tmp_path: Path) -> None:
    model = ModelPlan(name="mlp", parameters={"hidden": [8]}, keep_local=("output.*",))
    done = run(tmp_path, model=model, rounds=5)
    heads = [done.parameters(client)["output.weight"] for client in ("c0", "c1")]
    bodies = [done.parameters(client)["hidden1.weight"] for client in ("c0", "c1")]
    assert not np.array_equal(heads[0], heads[1])
    np.testing.assert_array_equal(bodies[0], bodies[1])
    saved = load_file(tmp_path / "models" / f"{done.id}.clients.safetensors")
    np.testing.assert_array_equal(saved["c0/output.weight"], heads[0])
    assert not any(name.startswith("c0/hidden1") for name in saved)


def test_a_module_from_a_cell_is_simulated(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")

    class Net(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(6, 3)

        def forward(self, x):  # type: ignore[no-untyped-def]
            return self.layer(x)

    class Halved(ab.FedAvg):
        """FedAvg with half a step."""

        def server_update(self, state, total, context):  # type: ignore[no-untyped-def]
            half = self.replace(server_learning_rate=0.5)
            return ab.FedAvg.server_update(half, state, total, context)

    runtime = RuntimePlan(kind="inline")
    done = run(tmp_path, model=Net, algorithm=Halved(), runtime=runtime)
    assert isinstance(done.model(), Net)
    assert done.metrics["accuracy"] > 0.8
    with pytest.raises(ab.AnabranchError, match="AB-701"):
        run(tmp_path, model=Net, runtime=RuntimePlan(kind="spawn", workers=1))


def test_evaluation_on_a_holdout_only(tmp_path: Path) -> None:
    x, y = next(iter(blobs(1, seed=9).values()))
    done = run(tmp_path, holdout=(x, y), evaluation=EvaluationPlan(on="holdout", every=4))
    assert done.metrics["accuracy"] > 0.9
    assert done.clients == {}
    measured = [r.round for r in done.history if "accuracy" in r.metrics]
    assert measured == [4, 8]


def test_a_diverging_server_fails_the_round_and_keeps_the_model(tmp_path: Path) -> None:
    algorithm = ab.FedAvg(server_learning_rate=1e300)
    done = run(tmp_path, algorithm=algorithm, rounds=RoundsPlan(count=9, max_failures=1))
    assert done.status == "failed"
    assert "AB-504" in done.reason
    assert np.isfinite(done.vector).all()
