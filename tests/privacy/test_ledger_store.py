"""The durable ledger: shared, killed at every step, tampered with, out of disk."""

from __future__ import annotations

import errno
import multiprocessing
import os
import sqlite3
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from ledger_parts import ONE, OPENED, a_round, allotment, gaussian, request
from ledger_toy_run import (
    CHARGE,
    KILLED,
    LIMIT,
    ROUNDS,
    end_of,
    in_child,
    other_inputs,
    run_toy,
    shown,
)

from anabranch.coordinator.store.ledger import (
    LEDGER_POINTS,
    PopulationLedger,
    RunLedger,
    populations,
)
from anabranch.coordinator.store.secrets import RunSecret
from anabranch.errors import AnabranchError
from anabranch.privacy.accounting import exact_epsilon
from anabranch.privacy.budget import ParticipationLimit
from anabranch.privacy.ledger import Allotted, Line
from anabranch.privacy.ledger.export import balance_of, exported, imported
from anabranch.privacy.ledger.statement import statement
from anabranch.testing.faults import FailAt, KillAt, Trace


@pytest.fixture(scope="module")
def counts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    trace = Trace()
    run_toy(tmp_path_factory.mktemp("traced"), trace)
    return dict(trace.counts)


def test_points_are_exactly_those_reached(counts: dict[str, int]) -> None:
    assert set(counts) == set(LEDGER_POINTS)


@pytest.mark.parametrize("point", LEDGER_POINTS)
def test_kill_at_every_point(point: str, tmp_path: Path, counts: dict[str, int]) -> None:
    """At every time it is reached: one release a round, all settled, one noise, nothing kept."""
    for nth in range(1, counts[point] + 1):
        folder = tmp_path / str(nth)
        assert in_child(folder, KillAt(point, nth)) == KILLED, f"{point} not reached {nth} times"
        before = shown(folder)
        assert in_child(folder, Trace()) is None
        end = end_of(folder)
        assert (end.rounds, end.releases, end.settled) == (ROUNDS, ROUNDS, ROUNDS)
        assert end.spent == pytest.approx(1.0)
        assert before <= set(end.outputs), "a replay showed another output of the same round"
        assert not list((folder / "ledgers" / "icu.secrets").iterdir()), "the secret was kept"


def test_what_was_reserved_before_a_kill_counts_when_the_inputs_change(tmp_path: Path) -> None:
    assert in_child(tmp_path, KillAt("ledger.reserve.commit.after")) == KILLED
    assert other_inputs(tmp_path) == 2


def test_what_was_not_reserved_before_a_kill_does_not(tmp_path: Path) -> None:
    assert in_child(tmp_path, KillAt("ledger.reserve.commit.before")) == KILLED
    assert other_inputs(tmp_path) == 1


@pytest.fixture
def ledger(tmp_path: Path) -> PopulationLedger:
    return PopulationLedger.open(tmp_path, OPENED)


def test_a_replay_has_the_same_noise_key_and_every_release_its_own(
    ledger: PopulationLedger, tmp_path: Path
) -> None:
    with ledger:
        run = ledger.begin(allotment())
        first = run.reserve(request(1))
    with PopulationLedger.open(tmp_path, OPENED) as again:
        run = again.begin(allotment())
        replay, other = run.reserve(request(1)), run.reserve(request(2))
        coins = run.coins(1)
    assert (first.replayed, replay.replayed, other.replayed) == (False, True, False)
    assert first.noise_key == replay.noise_key
    assert len({first.noise_key, other.noise_key, coins}) == 3
    assert first.noise_key.hex() not in repr(first)


def test_the_secret_is_for_its_owner_only_and_erased_at_the_end(
    ledger: PopulationLedger, tmp_path: Path
) -> None:
    path = tmp_path / "icu.secrets" / "r.key"
    run = ledger.begin(allotment())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    run.finish("stopped", final=False)
    assert path.exists(), "a run that may go on keeps its secret"
    run = ledger.begin(allotment())
    run.finish("complete")
    assert not path.exists()
    with pytest.raises(ValueError, match="erased"):
        run.coins(1)
    run.finish("complete")


def test_a_lost_secret_makes_a_replay_a_new_release(
    ledger: PopulationLedger, tmp_path: Path
) -> None:
    run = ledger.begin(allotment())
    first = run.reserve(request(1))
    run.finish("stopped", final=False)
    (tmp_path / "icu.secrets" / "r.key").unlink()
    again = ledger.begin(allotment()).reserve(request(1))
    assert not again.replayed
    assert again.release != first.release
    assert len(ledger.balance().runs["r"].releases) == 2


def test_a_running_run_without_its_secret_is_refused(
    ledger: PopulationLedger, tmp_path: Path
) -> None:
    ledger.begin(allotment())
    (tmp_path / "icu.secrets" / "r.key").unlink()
    with pytest.raises(AnabranchError, match="AB-918"):
        ledger.begin(allotment())


@pytest.mark.parametrize("content", [b"", b"short", bytes(33)])
def test_a_file_that_is_no_secret(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "r.key").write_bytes(content)
    with pytest.raises(AnabranchError, match="AB-925"):
        RunSecret(tmp_path / "r.key").obtain()


def test_two_openers_see_each_other(ledger: PopulationLedger, tmp_path: Path) -> None:
    with PopulationLedger.open(tmp_path, OPENED) as second:
        ledger.begin(allotment("one"))
        with pytest.raises(AnabranchError, match="AB-916"):
            second.begin(allotment("two"))
    assert populations(tmp_path) == ("icu",)


def _spend(folder: Path, name: int, started: multiprocessing.Queue[str]) -> None:
    with PopulationLedger.open(folder, OPENED) as ledger:
        try:
            run = ledger.begin(allotment(f"run{name}"))
        except AnabranchError as error:
            started.put(error.code)
            return
        for number in range(1, 5):
            run.settle(run.reserve(request(number)).release, a_round(), "out")
        started.put("started")


def test_processes_cannot_spend_the_same_budget(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    said: multiprocessing.Queue[str] = context.Queue()
    children = [context.Process(target=_spend, args=(tmp_path, n, said)) for n in range(6)]
    for child in children:
        child.start()
    answers = sorted(said.get(timeout=60) for _ in children)
    for child in children:
        child.join()
    assert answers == ["AB-916"] * 5 + ["started"]
    with PopulationLedger.existing(tmp_path, "icu") as ledger:
        assert ledger.balance().epsilon() == pytest.approx(1.0)
        assert len(ledger.links()) == 1 + 1 + 8


TAMPERING = {
    "less spent": "UPDATE entries SET document = replace(document, '\"rounds\":4', '\"rounds\":1')",
    "removed": "DELETE FROM entries WHERE sequence = 2",
    "moved": "UPDATE entries SET sequence = 99 WHERE sequence = 2",
    "another time": "UPDATE entries SET at = at + 1 WHERE sequence = 3",
    "no JSON": "UPDATE entries SET document = '{' WHERE sequence = 3",
    "no entry": 'UPDATE entries SET document = \'{"kind":"gift"}\' WHERE sequence = 3',
    "another digest": "UPDATE entries SET digest = previous WHERE sequence = 1",
}


@pytest.mark.parametrize("how", TAMPERING)
def test_tampering_is_found(how: str, ledger: PopulationLedger, tmp_path: Path) -> None:
    with ledger:
        run = ledger.begin(allotment())
        for number in (1, 2, 3):
            run.settle(run.reserve(request(number)).release, a_round(), "out")
        assert len(ledger.links()) == 8
    with sqlite3.connect(tmp_path / "icu.ledger") as connection:
        assert connection.execute(TAMPERING[how]).rowcount >= 1
    with pytest.raises(AnabranchError, match="AB-914"):
        PopulationLedger.existing(tmp_path, "icu")
    with pytest.raises(AnabranchError, match="AB-914"):
        PopulationLedger.open(tmp_path, OPENED)


def test_a_rewritten_chain_is_found_by_whoever_kept_a_head(tmp_path: Path) -> None:
    """The chain alone cannot tell that its end was cut off, or that all of it was made anew."""
    for name in ("true", "false"):
        with PopulationLedger.open(tmp_path / name, OPENED) as ledger:
            run = ledger.begin(allotment())
            if name == "true":
                run.reserve(request(1))
                kept = ledger.head
            links = ledger.links()
    assert all(link.digest != kept.digest for link in links)
    assert len(links) <= kept.sequence


def test_an_export_can_be_checked_elsewhere(ledger: PopulationLedger) -> None:
    run = ledger.begin(allotment())
    run.reserve(request(1))
    document = exported("icu", ledger.links())
    population, links = imported(document)
    assert population == "icu"
    assert links == ledger.links()
    assert balance_of(links) == ledger.balance()
    entries = document["entries"]
    assert isinstance(entries, list)
    for bad in (
        {**document, "format": "other"},
        {**document, "population": "other"},
        {**document, "entries": "none"},
        {**document, "entries": entries[1:]},
        {**document, "entries": [*entries[:-1], {**entries[-1], "at": 0}]},
        {**document, "entries": ["x"]},
        {**document, "entries": [{}]},
    ):
        with pytest.raises(AnabranchError, match="AB-914"):
            imported(bad)
    with pytest.raises(AnabranchError, match="AB-914"):
        balance_of(())


def test_statement(ledger: PopulationLedger) -> None:
    half = Allotted("r", (Line("model", (gaussian(ONE * 2**0.5, 1),)),), 1.0, 1e-5, "trial 3")
    run = ledger.begin(half)
    run.reserve(request(1, gaussian(ONE * 2**0.5)))
    found = statement(ledger.balance())
    assert found.spent == pytest.approx(exact_epsilon(ONE * 2**0.5, 1e-5))
    assert found.left == pytest.approx(found.spent, rel=1e-3)
    (line,) = found.runs
    assert (line.state, line.releases, line.unsettled, line.label) == ("open", 1, 1, "trial 3")
    run.finish("complete")
    assert statement(ledger.balance()).runs[0].reason == "complete"


def test_a_statement_projects_how_long_the_budget_lasts(ledger: PopulationLedger) -> None:
    """Four rounds were planned; with half the share a round the budget would last for eight."""
    run = ledger.begin(allotment())
    assert statement(ledger.balance()).runs[0].lasts == 0
    run.reserve(request(1))
    assert statement(ledger.balance()).runs[0].lasts == 4
    quieter = gaussian(a_round().noise * 2**0.5)
    run.reserve(request(2, quieter))
    # one round of 1/4 and then rounds of 1/8: 1 + 6
    assert statement(ledger.balance()).runs[0].lasts == 7
    run.finish("complete")
    assert statement(ledger.balance()).runs[0].lasts == 0


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_disk_that_fails_leaves_the_ledger_as_it_was(number: int, tmp_path: Path) -> None:
    faults = FailAt("ledger.reserve.commit.before", number=number)
    code = {errno.ENOSPC: "AB-602", errno.EROFS: "AB-603", errno.EIO: "AB-613"}[number]
    with PopulationLedger.open(tmp_path, OPENED, faults) as ledger:
        run = ledger.begin(allotment())
        with pytest.raises(AnabranchError, match=code):
            run.reserve(request(1))
        assert not ledger.balance().runs["r"].releases
        assert not run.reserve(request(1)).replayed
        assert len(ledger.links()) == 3


def test_a_file_that_is_no_ledger(tmp_path: Path) -> None:
    (tmp_path / "icu.ledger").write_bytes(b"not a database, but long enough to look at" * 100)
    with pytest.raises(AnabranchError, match="AB-612"):
        PopulationLedger.open(tmp_path, OPENED)


def test_a_population_without_a_ledger(tmp_path: Path) -> None:
    PopulationLedger.open(tmp_path, OPENED).close()
    with pytest.raises(AnabranchError, match="AB-922") as caught:
        PopulationLedger.existing(tmp_path, "icv")
    assert "icu" in caught.value.message


def test_an_empty_database_is_no_ledger(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "icu.ledger").close()
    (tmp_path / "icu.ledger").touch()
    with pytest.raises(AnabranchError, match=r"AB-914|AB-613"):
        PopulationLedger.existing(tmp_path, "icu")


def _run(tmp_path: Path) -> RunLedger:
    return PopulationLedger.open(tmp_path, OPENED).begin(allotment())


def test_participations_are_reserved_and_checked(tmp_path: Path) -> None:
    limit = ParticipationLimit(most=2, separation=3)
    counted = _run(tmp_path).participations
    counted.reserve(["a", "b"], 1, limit)
    counted.reserve(["a", "b"], 1, limit)  # a replay
    assert counted.eligible(["a", "b", "c"], 2, limit) == ("c",)
    assert counted.eligible(["a", "b", "c"], 4, limit) == ("a", "b", "c")
    with pytest.raises(AnabranchError, match="AB-923"):
        counted.reserve(["c", "a"], 3, limit)
    assert "c" not in counted.rounds(), "all or none"
    counted.reserve(["a"], 4, limit)
    assert counted.eligible(["a"], 40, limit) == ()
    counted.forgo(["b"], 1)
    assert counted.eligible(["b"], 2, limit) == ("b",)
    counted.require(["a"], 4, limit)
    for clients, round_ in ((["a"], 2), (["b"], 1), (["c"], 4)):
        with pytest.raises(AnabranchError, match="AB-923"):
            counted.require(clients, round_, limit)


def test_participations_survive_a_kill(tmp_path: Path) -> None:
    assert in_child(tmp_path, KillAt("ledger.cohort.commit.after", 2)) == KILLED
    with PopulationLedger.open(tmp_path / "ledgers", OPENED) as ledger:
        counted = ledger.begin(replace(allotment(rounds=ROUNDS))).participations
        assert counted.rounds() == {"a": (1, 2), "b": (1, 2)}
        tight = replace(LIMIT, most=2)
        assert counted.eligible(["a", "c"], 3, tight) == ("c",)


def test_a_forked_reader_does_not_disturb(ledger: PopulationLedger, tmp_path: Path) -> None:
    run = ledger.begin(allotment())
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    run.settle(run.reserve(request(1)).release, a_round(), "out")
    assert CHARGE.noise > 0
    assert len(ledger.links()) == 4
