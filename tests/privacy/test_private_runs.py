"""Private runs from the plan to the ledger: what leaves, what it costs, and what a kill changes."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from anabranch.aggregation.fold import FoldPlan
from anabranch.api.conduct import conduct, new_record
from anabranch.api.prepare import Prepared, prepare
from anabranch.api.private import LEDGERS
from anabranch.client.execute import execute
from anabranch.client.program import CLIP_NORM
from anabranch.client.task import Task, TaskKind
from anabranch.coordinator.store import Store
from anabranch.coordinator.store.ledger import PopulationLedger
from anabranch.coordinator.store.secrets import RunSecret
from anabranch.data.federation import Federation
from anabranch.disk import Faults, no_faults
from anabranch.errors import AnabranchError
from anabranch.plan import Plan, judge, plan_from
from anabranch.privacy.ledger import MatrixEvent
from anabranch.testing.faults import KillAt, Trace
from anabranch.updates.wire import pack

FIXED = {"kind": "fixed", "norm": 0.5}
ADAPTIVE = {"kind": "adaptive", "initial": 0.5}
FTRL = {"kind": "ftrl", "clip": FIXED, "participations": 2}
CENTRAL = {"kind": "gaussian", "clip": FIXED}
POISSON = {"kind": "gaussian", "clip": ADAPTIVE, "sampling": "poisson"}
CLIENTS, ROUNDS = 60, 6


def federation() -> Federation:
    """Sixty clients with a few examples of three classes, and examples of the coordinator."""
    draw = np.random.default_rng(3)
    centres = draw.normal(size=(3, 5))

    def some(count: int) -> tuple[np.ndarray, np.ndarray]:
        y = np.arange(count) % 3
        return (centres[y] + draw.normal(size=(count, 5)) / 2).astype(np.float32), y

    clients = {f"c{client:02d}": some(6 + client % 5) for client in range(CLIENTS)}
    return Federation.from_arrays(clients, holdout=some(60))


def plan(mechanism: Mapping[str, object], **tables: object) -> Plan:
    document: dict[str, object] = {
        "name": "private",
        "seed": 5,
        "data": {"source": "arrays"},
        "model": {"name": "logistic"},
        "local": {"batch_size": 4, "epochs": 1, "learning_rate": 0.2},
        "algorithm": {"name": "fedavgm"},
        "rounds": {"count": ROUNDS, "cohort": 20, "quorum": 1},
        "evaluation": {"on": "holdout", "every": 2},
        "stop": {"metric": "accuracy"},
        "runtime": {"workers": 1, "kind": "inline", "engine": "numpy"},
        "privacy": {
            "epsilon": 8.0,
            "delta": 1e-3,
            "population": "people",
            "mechanism": mechanism,
        },
    }
    if mechanism.get("sampling") == "poisson":
        document["selection"] = {"kind": "poisson"}
    return plan_from({**document, **tables})


def go(work: Prepared, folder: Path, faults: Faults = no_faults) -> str:
    """Start the run in ``folder``, or resume the one that is there."""
    with Store.open(folder, faults) as store:
        runs = store.runs()
        run_id = runs[0].id if runs else store.create_run(new_record(work))
        if not runs or runs[0].status != "complete":
            conduct(work, store, run_id, lambda event: None)
    return run_id


def end_of(folder: Path) -> dict[str, object]:
    """What must not depend on kills or on the number of processes."""
    with Store.open(folder) as store:
        (run,) = store.runs()
        state = store.model(run.id)
        arrays = {name: v.tobytes() for name, v in state.items() if name != "progress.seconds"}
        told = [(r.round, r.outcome, dict(r.metrics)) for r in store.rounds(run.id)[1:]]
    return {"status": run.status, "arrays": arrays, "rounds": told}


@pytest.mark.parametrize("mechanism", [FTRL, CENTRAL, POISSON], ids=["ftrl", "central", "poisson"])
def test_every_round_is_in_the_ledger_and_within_the_promise(
    mechanism: Mapping[str, object], tmp_path: Path
) -> None:
    run_id = go(prepare(plan(mechanism), federation()), tmp_path)
    with PopulationLedger.existing(tmp_path / LEDGERS, "people") as ledger:
        balance = ledger.balance()
    run = balance.runs[run_id]
    assert run.closed is not None
    assert sorted(r.reserved.round for r in run.releases.values()) == list(range(1, ROUNDS + 1))
    assert all(r.settled is not None and r.settled.output for r in run.releases.values())
    assert 0 < balance.epsilon() <= 8.0 * (1 + 1e-6)
    charges = [release.charge for release in run.releases.values()]
    assert all(isinstance(charge, MatrixEvent) for charge in charges) == (mechanism is FTRL)
    secrets = tmp_path / LEDGERS / "people.secrets"
    assert not list(secrets.glob("*.key")), "the secret of a run that is over is erased"


def test_what_is_recorded_of_a_private_run_are_releases_and_public_numbers(tmp_path: Path) -> None:
    """Any number in a round's record is public, noisy, or measured on the coordinator's data."""
    run_id = go(prepare(plan(POISSON), federation()), tmp_path)
    public = {"clip_norm", "noise_deviation", "unclipped_share"}
    measured = {"loss", "accuracy", "balanced_accuracy"}
    with Store.open(tmp_path) as store:
        rounds = store.rounds(run_id)[1:]
    for stored in rounds:
        assert set(stored.metrics) <= public | measured
        assert not [name for name in stored.client_columns if name.startswith("metric.")]
    assert {name for stored in rounds for name in stored.metrics} >= public | {"accuracy"}


def sent_by(work: Prepared) -> Mapping[str, np.ndarray]:
    """Everything in the reply of one client, by name."""
    program = work.program
    state = program.algorithm.init(program.base[: program.dim].copy())
    broadcast = {**program.algorithm.broadcast(state), CLIP_NORM.name: np.array([0.5], np.float32)}
    task = Task(TaskKind.TRAIN, 1, 0, "c00", 1, "t")
    reply = execute(program, task, broadcast, None, work.federation.train.of(0))
    assert pack(reply.update, program.sections)
    scalars = {name: np.array([value]) for name, value in reply.update.scalars.items()}
    return {**reply.update.vectors, **scalars}


@pytest.mark.parametrize("mechanism", [FTRL, CENTRAL, POISSON], ids=["ftrl", "central", "poisson"])
def test_an_unledgered_float_does_not_leave_a_client(mechanism: Mapping[str, object]) -> None:
    """Only the bounded update, and the bit of adaptive clipping, which the release pays for."""
    work = prepare(plan(mechanism), federation())
    sent = sent_by(work)
    covered = {"delta", "unclipped"} if mechanism is POISSON else {"delta"}
    assert set(sent) == covered
    assert np.linalg.norm(sent["delta"].astype(np.float64)) <= 1.0
    # The control: the same client without a promise tells of its examples and its losses.
    bare = prepare(plan(mechanism).replace(privacy=None), federation())
    assert {"examples", "train_loss_sum", "delta_sq_norm"} <= set(sent_by(bare))


def test_a_section_beside_the_mechanism_is_refused_by_the_fold() -> None:
    """What an old or a lying client adds has no place in the sum."""
    from anabranch.aggregation.fold import Accumulator
    from anabranch.updates.sections import Update

    program = prepare(plan(FTRL), federation()).program
    fold = Accumulator(FoldPlan(program.sections, capacity=2))
    delta = np.zeros(program.dim, np.float32)
    with pytest.raises(AnabranchError) as caught:
        fold.add(Update({"delta": delta}, {"loss": 0.25}), "c00")
    assert caught.value.code == "AB-501"
    with pytest.raises(AnabranchError) as caught:
        fold.add(Update({"delta": delta + np.float32(2)}, {}), "c00")
    assert caught.value.code == "AB-503"  # above one clip norm in a coordinate


def cohorts_of(folder: Path, run_id: str) -> list[set[str]]:
    with Store.open(folder) as store:
        return [set(map(str, r.client_columns["client"])) for r in store.rounds(run_id)[1:]]


def test_nobody_takes_part_more_often_or_sooner_than_the_guarantee_says(tmp_path: Path) -> None:
    cohorts = cohorts_of(tmp_path, go(prepare(plan(FTRL), federation()), tmp_path))
    for client in federation().names:
        rounds = [number for number, cohort in enumerate(cohorts) if client in cohort]
        assert len(rounds) <= 2
        assert all(b - a >= ROUNDS // 2 for a, b in pairwise(rounds))
    assert all(len(cohort) == 20 for cohort in cohorts)  # 120 turns for 60 clients: all are used


def test_coins_and_noise_do_not_follow_from_the_seed(tmp_path: Path) -> None:
    work = prepare(plan(POISSON), federation())
    first, second = (cohorts_of(tmp_path / name, go(work, tmp_path / name)) for name in ("a", "b"))
    assert first != second
    assert end_of(tmp_path / "a")["arrays"] != end_of(tmp_path / "b")["arrays"]


def in_child(work: Prepared, folder: Path, faults: Faults = no_faults) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            go(work, folder, faults)
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_and_resumed(work: Prepared, folder: Path, point: str, nth: int) -> None:
    assert in_child(work, folder, KillAt(point, nth)) == -signal.SIGKILL, f"{point} not reached"
    assert in_child(work, folder) == 0


def killed_once(mechanism: Mapping[str, object], folder: Path, point: str, nth: int) -> None:
    """Kill and resume; one reservation a round, each settled: nothing was released twice."""
    killed_and_resumed(prepare(plan(mechanism), federation()), folder, point, nth)
    assert end_of(folder)["status"] == "complete", point
    with PopulationLedger.existing(folder / LEDGERS, "people") as ledger:
        balance = ledger.balance()
    (run,) = balance.runs.values()
    rounds = sorted(release.reserved.round for release in run.releases.values())
    assert rounds == list(range(1, ROUNDS + 1)), point
    assert all(release.settled is not None for release in run.releases.values()), point
    assert balance.epsilon() <= 8.0 * (1 + 1e-6)


@pytest.mark.parametrize("point", ["ledger.reserve.commit.after", "ledger.settle.commit.before"])
def test_a_killed_run_releases_nothing_twice(point: str, tmp_path: Path) -> None:
    killed_once(FTRL, tmp_path, point, 3)


@pytest.mark.slow
@pytest.mark.parametrize("mechanism", [FTRL, POISSON], ids=["ftrl", "poisson"])
def test_no_kill_releases_anything_twice(mechanism: Mapping[str, object], tmp_path: Path) -> None:
    """At every step of the ledger and of the store."""
    trace = Trace()
    go(prepare(plan(mechanism), federation()), tmp_path / "traced", trace)
    points = [p for p in trace.counts if p.endswith((".before", ".after"))]
    assert any(p.startswith("ledger.reserve") for p in points)
    assert any(p.startswith("ledger.settle") for p in points)
    for number, point in enumerate(points):
        nth = min(trace.counts[point], 1 + trace.counts[point] // 2)
        killed_once(mechanism, tmp_path / f"kill-{number}", point, nth)


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path: Path) -> None:
    """Stopped after three rounds; one copy goes on at once, one after a kill, one in processes."""
    work = prepare(plan(FTRL), federation())
    stopped = iter([False] * 3 + [True] * 10)
    with Store.open(tmp_path / "one") as store:
        run_id = store.create_run(new_record(work))
        conduct(work, store, run_id, lambda event: None, lambda: next(stopped))
    for name in ("killed", "fork"):
        shutil.copytree(tmp_path / "one", tmp_path / name)
    go(work, tmp_path / "one")
    wanted = end_of(tmp_path / "one")
    killed_and_resumed(work, tmp_path / "killed", "ledger.reserve.commit.after", 2)
    assert end_of(tmp_path / "killed") == wanted
    runtime = {"workers": 2, "kind": "fork", "engine": "numpy"}
    go(prepare(plan(FTRL, runtime=runtime), federation()), tmp_path / "fork")
    assert end_of(tmp_path / "fork") == wanted


def test_a_second_run_on_the_same_people_is_refused(tmp_path: Path) -> None:
    work = prepare(plan(CENTRAL), federation())
    go(work, tmp_path)
    with Store.open(tmp_path) as store:
        run_id = store.create_run(new_record(work))
        with pytest.raises(AnabranchError) as caught:
            conduct(work, store, run_id, lambda event: None)
    assert caught.value.code == "AB-916"


def test_the_secret_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "secrets" / "run.key"
    RunSecret(path).obtain()
    assert path.stat().st_mode & 0o777 == 0o600


# What is refused before anything starts ---------------------------------------------------------


def site_plan() -> Plan:
    document = plan(CENTRAL).model_dump(mode="json")
    document["privacy"]["unit"] = "site"
    document["privacy"]["epsilon"] = 1.0
    document["privacy"]["delta"] = 1e-5
    document["rounds"] = {"count": 20}
    return plan_from(document)


def test_four_sites_cannot_hide_one_of_them(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    sites = {
        f"hospital {number}": (draw.normal(size=(80, 13)).astype(np.float32), np.arange(80) % 2)
        for number in range(4)
    }
    held = (draw.normal(size=(40, 13)).astype(np.float32), np.arange(40) % 2)
    with pytest.raises(AnabranchError) as caught:
        go(prepare(site_plan(), Federation.from_arrays(sites, holdout=held)), tmp_path)
    assert caught.value.code == "AB-942"
    assert "dp-sgd" in caught.value.fix
    assert not list((tmp_path / LEDGERS).glob("*")), "nothing was spent"


@pytest.mark.parametrize(
    ("mechanism", "tables", "code"),
    [
        (CENTRAL, {"algorithm": {"name": "scaffold"}}, "AB-936"),
        (CENTRAL, {"algorithm": {"name": "fedexp"}}, "AB-936"),
        (CENTRAL, {"evaluation": {"on": "clients"}}, "AB-937"),
        (CENTRAL, {"evaluation": {"on": "holdout", "baselines": ["pooled"]}}, "AB-937"),
        (CENTRAL, {"aggregation": {"weighting": {"kind": "examples"}}}, "AB-939"),
        (CENTRAL, {"updates": {"stages": [{"kind": "clip", "max_norm": 1.0}]}}, "AB-940"),
        (CENTRAL, {"rounds": {"count": 6, "cohort": 20, "late_window": 2}}, "AB-941"),
        ({**FTRL, "clip": ADAPTIVE}, {}, "AB-933"),
        ({**CENTRAL, "kind": "distributed", "noise": "skellam", "clip": ADAPTIVE}, {}, "AB-933"),
    ],
)
def test_what_a_mechanism_cannot_cover_is_refused_with_ways_out(
    mechanism: Mapping[str, object], tables: Mapping[str, object], code: str
) -> None:
    refusals = judge(plan(mechanism, **tables)).refusals
    found = {refusal.code: refusal for refusal in refusals}
    assert code in found
    assert found[code].alternatives, "every refusal names a way out that is accepted"


@pytest.mark.parametrize(
    "change",
    [
        {"epsilon": 0.0},
        {"epsilon": -1.0},
        {"delta": 1.0},
        {"mechanism": {"kind": "gaussian"}},  # no clip norm
        {"mechanism": {"kind": "gaussian", "clip": {"kind": "fixed", "norm": 0.0}}},
    ],
    ids=["epsilon 0", "epsilon < 0", "delta 1", "no clip", "clip 0"],
)
def test_numbers_without_meaning_are_refused(change: Mapping[str, object]) -> None:
    document = plan(CENTRAL).model_dump(mode="json")
    document["privacy"].update(change)
    with pytest.raises(AnabranchError) as caught:
        plan_from(document)
    assert caught.value.code.startswith("AB-1")


def test_a_capped_weight_moves_the_sum_by_one_clip_norm_at_most() -> None:
    weighting = {"aggregation": {"weighting": {"kind": "examples", "cap": 8}}}
    work = prepare(plan(CENTRAL, **weighting), federation())
    assert not judge(work.plan).refusals
    assert np.linalg.norm(sent_by(work)["delta"]) <= 1.0


def test_a_run_ends_with_its_last_good_model_when_the_budget_is_used_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From round 4 on releases are dearer than planned: the ledger refuses, the run ends."""
    from dataclasses import replace

    from anabranch.plan.promise import Promise
    from anabranch.privacy.events import GaussianEvent

    honest = Promise.model_charge

    def dear(self: Promise, round_: int, *given: object, **named: object) -> object:
        charge = honest(self, round_)
        assert isinstance(charge, GaussianEvent)
        return (
            replace(charge, noise_multiplier=charge.noise_multiplier / 2) if round_ > 3 else charge
        )

    monkeypatch.setattr(Promise, "model_charge", dear)
    run_id = go(prepare(plan(CENTRAL), federation()), tmp_path)
    with Store.open(tmp_path) as store:
        record, rounds = store.run(run_id), store.rounds(run_id)[1:]
    assert (record.status, record.reason) == ("complete", "the privacy budget is used up")
    assert [stored.outcome for stored in rounds] == ["complete"] * 3 + ["failed"]
    with PopulationLedger.existing(tmp_path / LEDGERS, "people") as ledger:
        assert ledger.balance().epsilon() <= 8.0 * (1 + 1e-6)


def test_clients_tell_their_accuracy_with_noise_when_the_plan_pays_for_it(tmp_path: Path) -> None:
    """One bounded number a client, released through the ledger, never the client's own."""
    document = plan(CENTRAL).model_dump(mode="json")
    document["evaluation"] = {"on": "clients", "every": 3}
    document["privacy"]["evaluation_share"] = 0.5
    people = federation()
    parts = {
        name: (people.train.of(i).x, people.train.of(i).y) for i, name in enumerate(people.names)
    }
    work = prepare(plan_from(document), Federation.from_arrays(parts, test=parts))
    run_id = go(work, tmp_path)
    with Store.open(tmp_path) as store:
        rounds = store.rounds(run_id)[1:]
    told = [stored.metrics["accuracy"] for stored in rounds if "accuracy" in stored.metrics]
    assert len(told) == 2
    assert all(0 <= accuracy <= 1 for accuracy in told)
    assert not [n for stored in rounds for n in stored.client_columns if n.startswith("metric.")]
    with PopulationLedger.existing(tmp_path / LEDGERS, "people") as ledger:
        balance = ledger.balance()
    purposes = [release.reserved.purpose for release in balance.runs[run_id].releases.values()]
    assert purposes.count("evaluation") == 2
    assert balance.epsilon() <= 8.0 * (1 + 1e-6)
    task = Task(TaskKind.EVALUATE, 1, 0, "c00", 1, "t")
    reply = execute(
        work.program, task, {"model": work.program.base}, None, work.federation.train.of(0)
    )
    assert set(reply.update.scalars) == {"score"}
    assert not reply.update.vectors


# Noise of the clients behind masks, with a norm that follows --------------------------------------


def test_behind_masks_the_norm_follows_a_count_that_nobody_saw(tmp_path: Path) -> None:
    """The bit is one more coordinate of the masked sum; the round costs what was planned."""
    mechanism = {
        "kind": "distributed",
        "clip": {"kind": "adaptive", "initial": 50.0, "rate": 0.5, "count_noise": 1},
        "dropout_share": 0.1, "corrupt_share": 0.0, "noise_multiplier": 1.0,
    }  # fmt: skip
    document = plan(mechanism).model_dump(mode="json", exclude={"name", "secure_aggregation"})
    document |= {"name": "masked", "secure_aggregation": {"minimum": 9}}
    document["privacy"]["epsilon"] = 20.0
    document["rounds"] |= {"count": 2, "cohort": 10}
    masked = plan_from(document)
    work = prepare(masked, federation())
    assert work.program.mechanism is not None
    (section,) = work.program.mechanism.sections()
    assert section.length == work.program.dim + 1
    run_id = go(work, tmp_path)
    with Store.open(tmp_path) as store:
        rounds = store.rounds(run_id)[1:]
    clips = [stored.metrics["clip_norm"] for stored in rounds]
    shares = [stored.metrics["unclipped_share"] for stored in rounds]
    assert clips[0] == 50.0
    assert all(share > 0.7 for share in shares), "no update is as long as that"
    for (before, after), share in zip(pairwise(clips), shares, strict=False):
        moved = np.exp(-0.5 * (min(max(share, 0.0), 1.0) - 0.5))
        assert after == pytest.approx(before * moved, rel=1e-6)
    with PopulationLedger.existing(tmp_path / LEDGERS, "people") as ledger:
        balance = ledger.balance()
    assert len(balance.runs[run_id].releases) == 2
    assert 0 < balance.epsilon() <= 20.0
