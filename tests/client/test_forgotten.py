"""A client whose folder is an old copy: the coordinator knows of more rounds than its own count."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from anabranch.client.home import ClientHome
from anabranch.client.policy import ClientPolicy, PrivacyRules
from anabranch.client.spending import ClientSpending
from anabranch.client.task import TaskKind
from anabranch.client.vault import FileKey
from anabranch.errors import AnabranchError
from anabranch.plan import Plan, plan_from
from anabranch.runtimes.http.client.counting import Counting
from anabranch.runtimes.http.messages import LedgerShown, TaskOffer
from anabranch.runtimes.http.server.spool import Answer, Spool
from anabranch.runtimes.http.statements import Checker
from anabranch.runtimes.http.versions import AMENDMENTS, ENCODED, document_as_of

SHA = "ab" * 32


def plan() -> Plan:
    return plan_from(
        {
            "name": "p",
            "data": {"source": "heart"},
            "model": {"name": "logistic"},
            "rounds": {"count": 9},
            "aggregation": {"weighting": {"kind": "uniform"}},
            "evaluation": {"on": "nowhere"},
            "privacy": {
                "epsilon": 300.0,
                "delta": 1e-2,
                "population": "sites",
                "unit": "site",
                "population_size": 4,
                "open_statistics": "public",
                "mechanism": {
                    "kind": "ftrl",
                    "participations": 9,
                    "clip": {"kind": "fixed", "norm": 1.0},
                },
            },
        }
    )


class Shown:
    """A coordinator's line that shows the ledger, with what it knows of the client."""

    def __init__(self, given: int) -> None:
        self.given, self.checker = given, Checker("va", None)

    def send(self, *path: object, **query: object) -> httpx.Response:
        shown = LedgerShown(
            population="sites",
            sequence=3,
            digest=SHA,
            epsilon="1.0",
            budget="300.0",
            delta="0.01",
            given=self.given,
        )
        return httpx.Response(200, content=shown.model_dump_json().encode())


def offer(run: str, round_: int) -> TaskOffer:
    return TaskOffer(
        task=f"{round_:032x}",
        kind=TaskKind.TRAIN,
        round=round_,
        broadcast=SHA,
        bytes=0,
        run=run,
        contract=SHA,
    )


def counted(
    folder: Path,
    given: int,
    round_: int,
    forgotten: int = 0,
    run: str = "r",
    cap: float | None = None,
) -> None:
    """One task of a client that the coordinator knows ``given`` rounds of."""
    rules = PrivacyRules(forgotten=forgotten, max_total_epsilon=cap, total_delta=1e-2)
    policy = ClientPolicy(privacy=rules)
    with ClientHome(folder, FileKey(folder.with_suffix(".key")), policy) as home:
        Counting(home, "va").before(plan(), offer(run, round_), lambda: None, Shown(given))  # type: ignore[arg-type]  # stands in


def test_a_client_that_knows_of_all_its_rounds_goes_on(tmp_path: Path) -> None:
    for round_ in (1, 2, 3):
        counted(tmp_path / "home", given=round_ - 1, round_=round_)
    counted(
        tmp_path / "home", given=3, round_=3
    )  # asked again after a kill: it counted before it computed
    counted(tmp_path / "home", given=3, round_=1, run="another")
    with ClientSpending(tmp_path / "home" / "spending.sqlite") as spending:
        assert spending.given() == 4


@pytest.mark.parametrize(("forgotten", "goes_on"), [(0, False), (1, False), (2, True)])
def test_an_old_folder_declines_until_the_site_owns_up(
    tmp_path: Path, forgotten: int, goes_on: bool
) -> None:
    counted(tmp_path / "home", given=0, round_=1)
    if goes_on:
        counted(tmp_path / "home", 3, 4, forgotten)
        return
    with pytest.raises(AnabranchError, match=r"forgotten = 2\)") as refused:
        counted(tmp_path / "home", 3, 4, forgotten)
    assert refused.value.code == "AB-992"


def test_the_coordinator_counts_a_round_once_and_for_good(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    try:
        for task, run, round_ in (("a", "r", 1), ("b", "r", 1), ("c", "r", 2), ("d", "s", None)):
            spool.add(run, Answer(task * 32, "va", SHA, 1, 0, b"x"), round_).result()
        spool.add("r", Answer("a" * 32, "other", SHA, 1, 0, b"x"), 1).result()
        spool.end("r")
        spool.flush()
        assert (spool.given("va"), spool.given("other"), spool.given("nobody")) == (2, 1, 0)
    finally:
        spool.close()
    again = Spool(tmp_path)
    try:
        assert again.given("va") == 2
    finally:
        again.close()


def test_older_clients_are_not_told() -> None:
    shown = LedgerShown(
        population="p", sequence=0, digest=SHA, epsilon="0", budget="1", delta="0", given=7
    )
    assert document_as_of(shown, ENCODED)["given"] == 7
    assert "given" not in document_as_of(shown, AMENDMENTS)


def old_copy(tmp_path: Path) -> Path:
    """The folder of before a run that used the site's cap up."""
    counted(tmp_path / "home", given=0, round_=1, cap=350.0)
    with pytest.raises(AnabranchError, match="AB-929"):
        counted(tmp_path / "home", given=1, round_=1, run="second", cap=350.0)
    (tmp_path / "home" / "spending.sqlite").unlink()
    return tmp_path / "home"


def test_an_old_folder_does_not_spend_the_cap_twice(tmp_path: Path) -> None:
    with pytest.raises(AnabranchError, match="AB-992"):
        counted(old_copy(tmp_path), given=1, round_=1, run="second", cap=350.0)


def test_control_a_client_that_is_not_told_spends_its_cap_twice(tmp_path: Path) -> None:
    counted(old_copy(tmp_path), given=0, round_=1, run="second", cap=350.0)
