"""Asynchronous rounds behind masks: updates wait at their clients until a sum is formed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from drawn_runs import on_drawn_rows, simulated
from numpy.typing import NDArray

from anabranch.aggregation.fold import Accumulator, FoldPlan
from anabranch.aggregation.staleness import PolynomialStaleness, damped
from anabranch.api.prepare import Prepared
from anabranch.api.secure import secure_runtime
from anabranch.client.secure import broadcast_digest, terms_of
from anabranch.client.task import Fate, TaskKind
from anabranch.coordinator.runtime import Outcome, Partial, Payload, RuntimeEvent, Work
from anabranch.coordinator.secure import SecureRuntime
from anabranch.coordinator.secure_journal import FileSumJournal, SumRecord
from anabranch.errors import AnabranchError
from anabranch.privacy.secure_aggregation.bases import Base, Bases
from anabranch.privacy.secure_aggregation.session import MemoryKeeper
from anabranch.runtimes.local import InlineRuntime
from anabranch.runtimes.local.secured import SecureSimulation, SimulatedMembers
from anabranch.updates.sections import Update
from anabranch.updates.wire import unpack

NAMES = tuple("abcdefghij")
BUFFER = 6
TABLES: dict[str, object] = {
    "name": "waiting",
    "seed": 5,
    "data": {"source": "arrays"},
    "model": {"name": "logistic"},
    "local": {"batch_size": 4, "epochs": 1, "learning_rate": 0.1},
    "aggregation": {"weighting": {"kind": "examples", "cap": 100}},
    "rounds": {"count": 4, "asynchronous": {"buffer": BUFFER, "concurrency": 8}},
    "evaluation": {"on": "both"},
    "runtime": {"kind": "inline", "engine": "numpy"},
    "secure_aggregation": {"bits": 64, "bound": 4.0},
}
ROOT = PolynomialStaleness(exponent=0.5)


def prepared(**tables: object) -> Prepared:
    return on_drawn_rows(NAMES, {**TABLES, **tables})


class Recording(InlineRuntime):
    """Keeps a copy of what clients compute, before it goes behind masks."""

    updates: dict[tuple[str, int], bytes]

    def poll(self, timeout: float | None) -> Sequence[RuntimeEvent]:
        events = super().poll(timeout)
        for event in events:
            if isinstance(event, Payload):
                self.updates[event.task, event.client] = bytes(event.content)
        return events


@dataclass
class Sums:
    """A secure runtime of simulated clients, asked without the loop."""

    made: Prepared = field(default_factory=prepared)
    journal: Path | None = None

    def __post_init__(self) -> None:
        program = self.made.program
        terms = terms_of(self.made.plan, program)
        self.members = SimulatedMembers(self.made.federation.names, terms, os.urandom)
        self.inner = Recording(self.made.simulant(None))
        self.inner.updates = {}
        self.restart()
        self.fold = FoldPlan(program.sections, len(NAMES))
        self.model = program.base[: program.dim].copy()

    def restart(self) -> None:
        """A coordinator that knows nothing but its journal; the clients are the same."""
        simulation = SecureSimulation(self.inner, self.members)
        self.runtime: SecureRuntime = secure_runtime(
            self.made, "run", simulation, self.members.identity, self.journal
        )

    def train(self, version: int, *clients: int, shift: float = 0.0) -> Work:
        name = f"{version:016x}{clients[0]:016x}"
        broadcast = {"model": self.model + np.float32(shift)}
        work = Work(TaskKind.TRAIN, version, clients, broadcast, self.fold, task=name, draw=version)
        self.runtime.submit(work)
        return work

    def until_something(self) -> tuple[list[Partial], list[Outcome]]:
        events = self.runtime.poll(0.0)
        for _ in range(200):
            if events:
                break
            events = self.runtime.poll(0.0)
        sums = [event for event in events if isinstance(event, Partial)]
        return sums, [event for event in events if isinstance(event, Outcome)]

    def expected(self, version: int, works: Sequence[Work]) -> NDArray[np.float64]:
        """The fold in the clear of the updates, damped by how stale each is."""
        alone = Accumulator(self.fold)
        for work in works:
            for client in work.clients:
                content = self.inner.updates[work.task, client]
                update = unpack(content, self.fold.sections, NAMES[client])
                factor = ROOT.factor(version - work.round)
                alone.add(damped(update, factor, self.fold.sections), NAMES[client])
        total: NDArray[np.float64] = alone.total().sums["delta"]
        return total


def test_the_sum_is_the_clear_fold_of_updates_damped_by_their_staleness() -> None:
    sums = Sums()
    works = [sums.train(1, 0, 1), sums.train(2, 2, 3, shift=0.5), sums.train(4, 4, 5, shift=1.0)]
    sums.runtime.begin_round(4)
    (partial,), outcomes = sums.until_something()
    assert set(partial.clients) == set(range(BUFFER))
    assert {o.fate for o in outcomes} == {Fate.MERGED}
    assert {(o.task, o.client) for o in outcomes} == {(w.task, c) for w in works for c in w.clients}
    assert np.array_equal(partial.total.sums["delta"], sums.expected(4, works))
    fresh = sums.expected(4, [replace(work, round=4) for work in works if work.round == 4])
    assert not np.array_equal(partial.total.sums["delta"], fresh)


def test_a_whole_run_counts_late_updates_and_repeats_itself(tmp_path: Path) -> None:
    first = simulated(prepared(), tmp_path / "first")
    second = simulated(prepared(), tmp_path / "second")
    assert first.status == "complete"
    mine, theirs = first.parameters(), second.parameters()
    assert all(np.array_equal(mine[name], theirs[name]) for name in mine)
    fates = [record.client_columns["fate"] for record in first.history if record.round]
    merged = (Fate.MERGED.value, Fate.MERGED_LATE.value)
    assert [sum(fate in merged for fate in listed) for listed in fates] == [BUFFER] * 4
    assert any(Fate.MERGED_LATE.value in listed for listed in fates)


def test_one_version_gives_one_sum_and_the_rest_waits_for_the_next() -> None:
    sums = Sums()
    first = sums.train(1, *range(8))
    sums.runtime.begin_round(1)
    (partial,), outcomes = sums.until_something()
    assert len(partial.clients) == len(outcomes) == BUFFER
    more = sums.train(2, 8, 9, 0, 1, shift=0.5)
    assert sums.until_something() == ([], [])  # this version has its sum
    sums.runtime.begin_round(2)
    (partial,), outcomes = sums.until_something()
    # Those who have waited longest come first.
    assert {(o.task, o.client) for o in outcomes} >= {(first.task, 6), (first.task, 7)}
    assert sum(o.task == more.task for o in outcomes) == BUFFER - 2


def test_work_that_is_given_up_leaves_no_update_behind() -> None:
    sums = Sums()
    old = sums.train(1, 0, 1, 2)
    sums.runtime.begin_round(1)
    assert sums.until_something() == ([], [])
    late = sums.runtime.abandon(old.task)
    assert {(o.client, o.fate) for o in late} == {(c, Fate.TOO_LATE) for c in (0, 1, 2)}
    new = sums.train(2, 3, 4, 5, 6, 7, 8)
    sums.runtime.begin_round(2)
    (partial,), _ = sums.until_something()
    assert set(partial.clients) == set(new.clients)


def update(sums: Sums, client: int) -> Update:
    content = next(v for (_, c), v in sums.inner.updates.items() if c == client)
    return unpack(content, sums.fold.sections, NAMES[client])


def test_an_update_goes_behind_masks_once() -> None:
    sums = Sums()
    work = sums.train(1, *range(BUFFER))
    sums.runtime.begin_round(1)
    assert sums.until_something()[0]
    session = sums.members.session(0)
    base = Base(work.task, 1, broadcast_digest(work.broadcast))
    with pytest.raises(AnabranchError, match="AB-990"):
        session.hold(base, update(sums, 0))  # the same task once more, after a restart perhaps


def test_a_model_that_was_summed_up_is_not_summed_up_again() -> None:
    """A coordinator that goes back asks for the same model under another name of the task."""
    sums = Sums()
    sums.train(1, *range(BUFFER))
    sums.runtime.begin_round(1)
    assert sums.until_something()[0]
    again = Work(
        TaskKind.TRAIN, 1, tuple(range(BUFFER)), {"model": sums.model}, sums.fold, task="f" * 32
    )
    sums.runtime.submit(again)
    sums.runtime.begin_round(1)
    partials, outcomes = sums.until_something()
    assert not partials
    assert all("AB-967" in o.detail for o in outcomes)
    assert len(outcomes) == BUFFER


def test_one_version_can_not_be_shown_as_two_models() -> None:
    one, two = Base("0" * 32, 3, bytes(32)), Base("1" * 32, 3, b"\1" * 32)
    with pytest.raises(AnabranchError, match="AB-952"):
        Bases(4, {"a": one, "b": two})
    with pytest.raises(AnabranchError, match="AB-952"):
        Bases(2, {"a": one})


def test_a_client_refuses_a_sum_that_names_another_base_than_its_update_has() -> None:
    sums = Sums()
    work = sums.train(1, *range(BUFFER))
    told = replace(work, broadcast={"model": sums.model + np.float32(1)})
    sums.runtime.begin_round(1)
    # The coordinator shows a model that nobody trained from.
    assert sums.runtime._held is not None
    sums.runtime._held._digests[work.task] = broadcast_digest(told.broadcast)
    partials, outcomes = sums.until_something()
    assert not partials
    assert outcomes
    assert all("AB-990" in o.detail or o.fate is Fate.LOST for o in outcomes)


def test_control_clients_that_forget_let_two_sums_tell_an_update_apart() -> None:
    sums = Sums()
    first = sums.train(1, *range(BUFFER))
    sums.runtime.begin_round(1)
    (one,), _ = sums.until_something()
    for client in range(BUFFER):  # the broken variant: nothing is remembered
        sums.members.session(client)._keeper = MemoryKeeper()
    sums.train(1, *range(1, BUFFER))
    sybil = sums.train(1, BUFFER)  # one that the coordinator made takes the place of client 0
    sums.runtime.begin_round(1)
    (other,), _ = sums.until_something()
    assert set(one.clients) - set(other.clients) == {0}
    difference = one.total.sums["delta"] - other.total.sums["delta"]
    alone = sums.expected(1, [replace(first, clients=(0,))])
    assert np.array_equal(difference + sums.expected(1, [sybil]), alone)


class Killed(Exception):  # noqa: N818  # it is no error
    """The coordinator ends here."""


@pytest.mark.parametrize("asked", [False, True], ids=["before anybody was asked", "after"])
def test_a_sum_that_was_being_opened_is_opened_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    sums = Sums(journal=tmp_path)
    old = sums.train(1, 0, 1)
    sums.runtime.begin_round(2)
    assert sums.until_something() == ([], [])
    new = sums.train(2, 2, 3, 4, 5, shift=0.5)
    save, answer = FileSumJournal.save, SecureSimulation.poll

    def die_after(journal: FileSumJournal, purpose: str, record: SumRecord) -> None:
        save(journal, purpose, record)
        if record.reveals and not asked:
            raise Killed

    def die_when_all_have_revealed(
        runtime: SecureSimulation, timeout: float | None
    ) -> Sequence[RuntimeEvent]:
        record = FileSumJournal(tmp_path).load("train", 0)
        events = answer(runtime, timeout)
        if record is not None and record.reveals:
            raise Killed
        return events

    with monkeypatch.context() as killing:
        killing.setattr(FileSumJournal, "save", die_after)
        if asked:
            killing.setattr(SecureSimulation, "poll", die_when_all_have_revealed)
        with pytest.raises(Killed):
            sums.until_something()
    sums.restart()
    sums.runtime.submit(old)  # it was open at the last commit
    members = sums.runtime.begin_round(2)
    assert members == {old.task: (0, 1), new.task: (2, 3, 4, 5)}
    sums.runtime.submit(new)
    (partial,), outcomes = sums.until_something()
    assert {(o.task, o.client, o.fate) for o in outcomes} == {
        (work.task, client, Fate.MERGED) for work in (old, new) for client in work.clients
    }
    assert np.array_equal(partial.total.sums["delta"], sums.expected(2, [old, new]))
    assert sums.runtime.begin_round(3) == {}
