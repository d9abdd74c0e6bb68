"""Secure aggregation in whole runs: simulated, over the network, with clients that vanish."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from drawn_runs import on_drawn_rows, silent, simulated

from anabranch.api.conduct import conduct, new_record
from anabranch.api.prepare import Prepared, prepare
from anabranch.api.run import Run
from anabranch.client.secure import secure_session
from anabranch.coordinator.events import Event, RoundCommitted
from anabranch.coordinator.store import Store
from anabranch.data.federation import Federation
from anabranch.errors import AnabranchError
from anabranch.plan import Plan, trust_line
from anabranch.runtimes.http import ClientData, HttpLimits, HttpRuntime, JoinOptions, join
from anabranch.runtimes.local import InlineRuntime

NAMES = tuple("abcdefg")
TABLES: dict[str, object] = {
    "name": "summed",
    "seed": 5,
    "data": {"source": "arrays"},
    "model": {"name": "logistic"},
    "local": {"batch_size": 4, "epochs": 1, "learning_rate": 0.1},
    "aggregation": {"weighting": {"kind": "examples", "cap": 100}},
    "rounds": {"count": 3, "quorum": 3},
    "evaluation": {"on": "both"},
    "runtime": {"kind": "inline", "engine": "numpy"},
}
FINE: dict[str, object] = {"bits": 64, "bound": 4.0}


def prepared(**tables: object) -> Prepared:
    return on_drawn_rows(NAMES, {**TABLES, **tables})


def same(one: Run, other: Run) -> bool:
    mine, theirs = one.parameters(), other.parameters()
    return all(np.array_equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.parametrize("kind", ["inline", "fork"])
def test_behind_masks_the_model_is_that_of_the_clear_fold_bit_for_bit(
    tmp_path: Path, kind: str
) -> None:
    runtime = {"kind": kind, "engine": "numpy", "workers": 2 if kind == "fork" else "auto"}
    clear = simulated(prepared(), tmp_path / "clear")
    secure = simulated(prepared(secure_aggregation=FINE, runtime=runtime), tmp_path / "secure")
    assert same(clear, secure)
    assert [r.metrics for r in clear.history] == [r.metrics for r in secure.history]
    # What the clear run stores of single clients does not exist behind masks.
    assert all("metric.loss" not in r.client_columns for r in secure.history)
    line = trust_line(prepared(secure_aggregation=FINE).plan)
    assert line.startswith("the coordinator can read only sums of 3 or more updates")


def test_scaffold_behind_masks_is_scaffold_in_the_clear(tmp_path: Path) -> None:
    tables = {"algorithm": {"name": "scaffold"}, "aggregation": {"weighting": {"kind": "uniform"}}}
    clear = simulated(prepared(**tables), tmp_path / "clear")
    secure = simulated(prepared(**tables, secure_aggregation=FINE), tmp_path / "secure")
    assert same(clear, secure)


def test_few_bits_round_to_the_public_step_and_no_more(tmp_path: Path) -> None:
    clear = simulated(prepared(rounds={"count": 1}), tmp_path / "clear")
    coarse = {"bits": 20, "bound": 0.5}
    secure = simulated(
        prepared(rounds={"count": 1}, secure_aggregation=coarse), tmp_path / "secure"
    )
    # 7 clients, weights to 100: terms to 50 in 2^19 / 7 steps; half a step each, 154 examples.
    step = 2.0 ** np.ceil(np.log2(50 / ((2**19 - 1) // 7)))
    mine, theirs = clear.parameters(), secure.parameters()
    largest = max(float(np.abs(mine[name] - theirs[name]).max()) for name in mine)
    assert 0 < largest <= 7 * step / 2 / 154 + 1e-6


@dataclass
class Members:
    """Threads of clients that come over HTTP; a `RemoteRuntime` for `conduct`."""

    made: Prepared
    directory: Path
    absent: Sequence[str] = ()
    threads: list[threading.Thread] = field(default_factory=list)
    limits: HttpLimits = field(
        default_factory=lambda: HttpLimits(poll_seconds=2.0, farewell_seconds=1.0)
    )

    def serve(self, made: Prepared) -> HttpRuntime:
        own = InlineRuntime(made.simulant(None))
        names, sections = made.federation.names, made.program.broadcast_sections
        runtime = HttpRuntime(names, sections, own=own, limits=self.limits)
        for name in names:
            if name not in self.absent:
                thread = threading.Thread(target=self._work, args=(name, runtime.url), daemon=True)
                thread.start()
                self.threads.append(thread)
        return runtime

    def _work(self, name: str, url: str) -> None:
        plan = self.made.plan
        mine = prepared(secure_aggregation=plan.secure_aggregation, rounds=plan.rounds)
        folder = self.directory / name
        session = secure_session(self.made.plan, mine.program, name, folder)
        data = ClientData.of(mine.federation, name)
        options = JoinOptions(wait=2.0, timeout=10.0, patience=1.0)
        with suppress(AnabranchError):  # the server may go before the client has heard of it
            join(url, name, mine.program, data, folder, options, session=session)


def networked(made: Prepared, path: Path, members: Members) -> Run:
    with Store.open(path) as store:
        run = store.create_run(new_record(made))
        finished = conduct(made, store, run, silent, remote=members.serve)
    for thread in members.threads:
        thread.join(10.0)
    return finished


def test_over_the_network_the_model_is_that_of_the_simulation(tmp_path: Path) -> None:
    made = prepared(secure_aggregation=FINE)
    over = networked(made, tmp_path / "over", Members(made, tmp_path / "members"))
    assert same(over, simulated(made, tmp_path / "simulated"))
    # A client remembers what it took part in, and who the others are.
    kept = tmp_path / "members" / "a" / "secure-sums"
    assert kept.stat().st_mode & 0o777 == 0o600


def test_a_client_that_is_never_there_costs_the_round_its_update_and_nothing_else(
    tmp_path: Path,
) -> None:
    table = {**FINE, "dropout_share": 0.15, "corrupt_share": 0.1, "stage_seconds": 3.0}
    made = prepared(secure_aggregation=table, rounds={"count": 1, "quorum": 3})
    members = Members(made, tmp_path / "members", absent=["d"])
    run = networked(made, tmp_path / "over", members)
    fates = dict(
        zip(
            run.history[-1].client_columns["client"],
            run.history[-1].client_columns["fate"],
            strict=True,
        )
    )
    assert fates.pop("d") in ("too late", "refused", "lost")
    assert set(fates.values()) == {"merged"}


WAITING: dict[str, object] = {
    "count": 4,
    "quorum": 3,
    "asynchronous": {"buffer": 5, "concurrency": 7, "max_staleness": 4},
}


def fates_of(run: Run) -> list[list[str]]:
    return [[str(f) for f in r.client_columns["fate"]] for r in run.history if r.round]


def test_over_the_network_updates_wait_for_their_sum(tmp_path: Path) -> None:
    made = prepared(secure_aggregation=FINE, rounds=WAITING)
    run = networked(made, tmp_path / "over", Members(made, tmp_path / "members"))
    assert run.status == "complete"
    merged = [[fate for fate in row if fate.startswith("merged")] for row in fates_of(run)]
    assert [len(row) for row in merged] == [5] * 4
    assert "merged late" in {fate for row in merged for fate in row}
    # The update itself is on the client's disk, for its owner alone.
    held = tmp_path / "members" / "a" / "held-update"
    assert held.stat().st_mode & 0o777 == 0o600


def test_a_client_that_is_never_there_does_not_stop_the_buffers(tmp_path: Path) -> None:
    table = {**FINE, "dropout_share": 0.1, "stage_seconds": 3.0}
    made = prepared(secure_aggregation=table, rounds={**WAITING, "count": 2})
    run = networked(made, tmp_path / "over", Members(made, tmp_path / "members", absent=["d"]))
    assert run.status == "complete"
    assert [sum(fate.startswith("merged") for fate in row) for row in fates_of(run)] == [5, 5]


def test_buffers_of_simulated_devices_go_on_after_a_kill_as_if_nothing_happened(
    tmp_path: Path,
) -> None:
    draw = np.random.default_rng(4)
    clients = {}
    for client in range(60):
        x = draw.normal(size=(20, 4)).astype(np.float32)
        clients[f"c{client:03d}"] = (x, (np.arange(20) % 2).astype(np.int64))
    federation = Federation.from_arrays(clients, holdout=clients["c000"])
    tables = {
        **TABLES,
        "rounds": {
            "count": 4,
            "quorum": 4,
            "asynchronous": {"buffer": 8, "concurrency": 14, "max_staleness": 6},
        },
        "evaluation": {"on": "holdout"},
        "devices": {},
        "secure_aggregation": {**FINE, "corrupt_share": 0.05, "stage_seconds": 900.0},
    }
    made = prepare(Plan.model_validate(tables), federation)
    whole = simulated(made, tmp_path / "whole")
    with Store.open(tmp_path / "broken") as store:
        name = store.create_run(new_record(made))
        with suppress(Stopped):
            conduct(made, store, name, StopAfter(2))
    with Store.open(tmp_path / "broken") as store:
        resumed = conduct(made, store, name, silent)
    assert same(whole, resumed)
    assert fates_of(whole) == fates_of(resumed)
    assert any("merged late" in row for row in fates_of(whole))


class Stopped(Exception):  # noqa: N818  # it is no error
    """The coordinator ends in the middle."""


@dataclass
class StopAfter:
    """A listener that ends the coordinator when a round is told."""

    rounds: int

    def __call__(self, event: Event) -> None:
        if isinstance(event, RoundCommitted) and event.round == self.rounds:
            raise Stopped


def test_behind_devices_that_go_away_the_model_is_the_same_every_time(tmp_path: Path) -> None:
    draw = np.random.default_rng(4)
    clients = {}
    for client in range(150):
        x = draw.normal(size=(20, 4)).astype(np.float32)
        clients[f"c{client:03d}"] = (x, (np.arange(20) % 2).astype(np.int64))
    federation = Federation.from_arrays(clients, holdout=clients["c000"])
    table = {"bits": 40, "bound": 2.0, "corrupt_share": 0.05, "dropout_share": 0.3}
    tables = {
        **TABLES,
        "rounds": {"count": 1, "cohort": 12, "quorum": 4},
        "evaluation": {"on": "holdout"},
        "devices": {},
        "secure_aggregation": {**table, "stage_seconds": 900.0},
    }
    runs = [
        simulated(prepare(Plan.model_validate(tables), federation), tmp_path / f"{number}")
        for number in range(2)
    ]
    assert same(*runs)
    fates = [list(r.client_columns["fate"]) for r in runs[0].history if r.round]
    assert any("merged" in row for row in fates)
    assert [list(r.client_columns["fate"]) for r in runs[1].history if r.round] == fates
