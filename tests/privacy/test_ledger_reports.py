"""A private run from the command line: status, report, verify, export; and the plan before it."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import pytest
from ledger_parts import DELTA, OPENED, a_round, allotment, request
from typer.testing import CliRunner, Result

from anabranch.cli.app import app
from anabranch.privacy.accounting import exact_epsilon
from anabranch.privacy.ledger import Balance, allot, reserve
from anabranch.privacy.planning import Question, tradeoff
from anabranch.privacy.report import Claim, RunFacts, claim_sentence, report_of

PLAN = """
schema = 1
name = "writers"
[data]
source = "digits"
partition = { kind = "iid", clients = 60 }
holdout_fraction = 0.2
[model]
name = "logistic"
[rounds]
count = 3
cohort = 30
[evaluation]
on = "holdout"
every = 3
[aggregation]
weighting = { kind = "uniform" }
[privacy]
epsilon = 20.0
delta = 1e-3
population = "writers"
population_epsilon = 30.0
[privacy.mechanism]
kind = "ftrl"
participations = 2
clip = { kind = "fixed", norm = 1.0 }
"""

FACTS = RunFacts(
    run="r",
    plan="p",
    contract_digest="c",
    trust_line="the coordinator can read every update",
    status="complete",
    mechanism="ftrl",
    sampling="none",
    selector="uniform",
    clients=10_000,
    cohort=100,
    participations=2,
    separation=50,
    natural_clients=False,
    simulated=True,
    secure_aggregation=False,
    corrupt_share=0.0,
    dropout_share=0.0,
    clip="L2 norm 1, fixed",
    holdout_from_clients=True,
)


def call(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("private")
    (folder / "plan.toml").write_text(PLAN)
    call("simulate", str(folder / "plan.toml"), "--store", str(folder / "runs"), "--quiet")
    return folder / "runs"


def test_status_over_all_runs(store: Path) -> None:
    found = json.loads(call("privacy", "status", "writers", "--store", str(store), "--json").output)
    assert (found["unit"], found["relation"], found["size"]) == ("client", "zero-out", 60)
    assert found["spent"] == pytest.approx(20.0, rel=1e-6)
    assert 10 < found["left"] < 20, "costs of Gaussian releases add up like squares"
    (run,) = found["runs"]
    assert (run["state"], run["releases"], run["unsettled"]) == ("closed", 3, 0)
    listed = json.loads(call("privacy", "status", "--store", str(store), "--json").output)
    assert listed == [found]
    assert "20 of 30 spent" in call("privacy", "status", "--store", str(store)).output


def test_a_second_run_does_not_fit(store: Path) -> None:
    result = call(
        "simulate", str(store.parent / "plan.toml"), "--store", str(store), "--quiet", code=1
    )
    assert "AB-916" in result.output
    found = json.loads(call("privacy", "status", "writers", "--store", str(store), "--json").output)
    assert len(found["runs"]) == 1
    newest = json.loads(call("runs", "list", "--store", str(store), "--json").output)[0]
    assert (newest["status"], newest["rounds"]) == ("failed", 0)


def test_report_of_a_run(store: Path, tmp_path: Path) -> None:
    page, data = tmp_path / "p.html", tmp_path / "p.json"
    status = call("privacy", "status", "writers", "--store", str(store), "--json").output
    run = json.loads(status)["runs"][0]["run"]
    call("privacy", "report", run, "--store", str(store), "-o", str(page))
    call("privacy", "report", run, "--store", str(store), "--json", str(data))
    report = json.loads(data.read_text())
    names = [item["name"] for item in report["items"]]
    assert names == [
        "guarantee",
        "unit",
        "mechanism",
        "rounds",
        "sampling",
        "releases",
        "population",
        "utility",
        "implementation",
        "trust",
        "not-covered",
    ]
    by_name = {item["name"]: item for item in report["items"]}
    deltas = [float(row[0]) for row in by_name["guarantee"]["tables"][0]["rows"]]
    assert deltas == [1e-3, 1e-4, 1e-5]
    rounds = by_name["rounds"]["tables"][0]["rows"]
    assert [row[0] for row in rounds] == ["1", "2", "3"]
    assert {row[2] for row in rounds} == {"30"}
    assert {row[5] for row in rounds} == {"released"}
    assert by_name["utility"]["tables"][0]["rows"]
    text = page.read_text()
    assert report["claim"][1:] in text
    assert "<script" not in text
    assert "http" not in text.split("<body>")[1]


def test_verify_and_export(store: Path, tmp_path: Path) -> None:
    said = call("privacy", "verify", "writers", "--store", str(store)).output
    head = next(line for line in said.splitlines() if line.startswith("head ")).split()[1]
    call("privacy", "verify", "writers", "--store", str(store), "--head", head)
    file = tmp_path / "ledger.json"
    call("privacy", "export", "writers", "--store", str(store), "--to", str(file))
    found = json.loads(call("privacy", "verify", str(file), "--head", head, "--json").output)
    assert (found["runs"], found["releases"]) == (1, 3)
    document = json.loads(file.read_text())
    document["entries"][3]["entry"]["round"] = 9
    file.write_text(json.dumps(document))
    assert "AB-914" in call("privacy", "verify", str(file), code=1).output
    sequence, digest = head.split(":")
    for other in (f"{sequence}:{digest[::-1]}", f"{int(sequence) + 1}:{digest}"):
        result = call(
            "privacy", "verify", "writers", "--store", str(store), "--head", other, code=1
        )
        assert "turned back or forked" in result.output
    result = call("privacy", "verify", "writers", "--store", str(store), "--head", "x", code=1)
    assert "AB-913" in result.output


def test_a_ledger_that_was_cut_off_is_found_by_a_kept_head(store: Path, tmp_path: Path) -> None:
    said = call("privacy", "verify", "writers", "--store", str(store)).output
    head = next(line for line in said.splitlines() if line.startswith("head ")).split()[1]
    copy = tmp_path / "ledgers" / "writers.ledger"
    copy.parent.mkdir()
    with (
        sqlite3.connect(store / "ledgers" / "writers.ledger") as source,
        sqlite3.connect(copy) as target,
    ):
        source.backup(target)
        target.execute("DELETE FROM entries WHERE sequence > 4")
    call("privacy", "verify", "writers", "--store", str(tmp_path))
    call("privacy", "verify", "writers", "--store", str(tmp_path), "--head", head, code=1)


def test_releases_of_the_store_that_the_ledger_does_not_know(store: Path, tmp_path: Path) -> None:
    """Somebody put back a ledger from before the run: the run's own record disagrees."""
    assert (
        "Compared with 1 runs" in call("privacy", "verify", "writers", "--store", str(store)).output
    )
    shutil.copytree(store, tmp_path / "runs")
    with sqlite3.connect(tmp_path / "runs" / "ledgers" / "writers.ledger") as ledger:
        ledger.execute("DELETE FROM entries WHERE sequence > 5")
    result = call("privacy", "verify", "writers", "--store", str(tmp_path / "runs"), code=1)
    assert "the ledger has no such release" in result.output


def test_a_run_without_a_promise_has_no_privacy_report(store: Path, tmp_path: Path) -> None:
    plan, _, _ = PLAN.partition("[privacy]")
    (tmp_path / "open.toml").write_text(plan)
    other = str(tmp_path / "runs")
    call("simulate", str(tmp_path / "open.toml"), "--store", other, "--quiet")
    assert "AB-927" in call("privacy", "report", "--store", other, code=1).output


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ["DP-FTRL", "the coordinator adds the noise", "could remove it", "no assumption"]),
        ({"mechanism": "distributed"}, ["the clients add the noise", "10% of a cohort"]),
        ({"mechanism": "dp-sgd"}, ["each site adds the noise", "secret coins"]),
        ({"sampling": "poisson"}, ["independent secret coin", "nobody"]),
        ({"natural_clients": True, "simulated": False}, ["natural clients on machines"]),
        ({"natural_clients": None}, ["10000 clients simulated"]),
        ({"participations": 0}, ["may take part in every round"]),
        ({"participations": 1, "separation": 1}, ["at most 1 round a client;"]),
    ],
)
def test_every_epsilon_carries_what_it_means_nothing_without(
    changes: dict[str, object], words: list[str]
) -> None:
    facts = RunFacts(**{**vars(FACTS), "corrupt_share": 0.1, **changes})  # type: ignore[arg-type]  # one field each
    claim = Claim(1.0, 1e-5, "client", "zero-out", 10_000)
    said = claim_sentence(claim, facts)
    for word in ["epsilon 1 at delta 1e-05", "delta x N = 0.1", "client", "zero-out", *words]:
        assert word in said
    assert said.count(".") == said.count("0.") + 1, "one sentence"


def test_a_report_counts_what_was_not_settled_and_given_back() -> None:
    balance = Balance(OPENED)
    entry = allot(balance, allotment())
    assert entry is not None
    balance = balance.after(entry)
    for number in (1, 2):
        balance = balance.after(reserve(balance, "r", request(number))[0])
    report = report_of(balance, FACTS, (3, "d"))
    items = {item.name: item for item in report.items}
    assert items["guarantee"].tables[0].rows[0][1] == "1"
    assert [row[5] for row in items["rounds"].tables[0].rows] == ["not settled, counted"] * 2
    assert any("2 releases are not settled" in text for text in items["not-covered"].texts)
    assert any("not protected" in text for text in items["not-covered"].texts)
    lower = [float(row[2]) for row in items["guarantee"].tables[0].rows]
    assert lower[1] == pytest.approx(exact_epsilon(a_round().noise / 2, DELTA / 10), rel=1e-4)


def test_the_published_anchor_of_ten_thousand_clients_is_reachable() -> None:
    """(1, 1e-5), 100 rounds of 100 out of 10,000, 10^4 parameters: z = 0.903 by coins."""
    found = tradeoff(Question(1.0, 1e-5, 10_000, 100, 100, 10_000))
    noise = {route.kind: route.noise for route in found.routes}
    assert noise["poisson"] == pytest.approx(0.903, rel=0.02)
    assert noise["ftrl"] == pytest.approx(0.944, rel=1e-3)
    assert noise["limited"] == pytest.approx(3.731, rel=1e-3)
    assert found.reachable
    assert not found.changes


def test_four_hospitals_are_told_what_would_make_it_reachable() -> None:
    found = tradeoff(Question(1.0, 1e-5, 4, 4, 20, 33))
    assert not found.reachable
    assert "Not reachable with this many clients" in found.recommendation
    keys = {change.key: change.value for change in found.changes}
    assert "privacy.unit" in keys
    larger = Question(1.0, 1e-5, int(keys["clients"]), int(keys["clients"]), 20, 33)
    assert tradeoff(larger).reachable


def test_each_change_alone_makes_it_reachable() -> None:
    asked = Question(1.0, 1e-5, 3_000, 30, 100, 7_850)
    found = tradeoff(asked)
    assert not found.reachable
    values = {change.key: change.value for change in found.changes}
    clients = int(values["clients"])
    for other in (
        Question(1.0, 1e-5, clients, -(-clients // 100), 100, 7_850),
        Question(1.0, 1e-5, 3_000, 30, 100, int(values["model"] * 0.98)),
        Question(values["privacy.epsilon"] * 1.02, 1e-5, 3_000, 30, 100, 7_850),
    ):
        assert tradeoff(other).reachable


def test_plan_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(PLAN)
    plan, page = str(tmp_path / "plan.toml"), tmp_path / "plan.html"
    sizes = ["--clients", "5000", "--parameters", "650"]
    said = json.loads(call("privacy", "plan", plan, *sizes, "--json").output)
    assert said["reachable"]
    assert said["question"]["dim"] == 650
    text = call("privacy", "plan", plan, "--html", str(page)).output
    assert "noise ratio" in text
    assert page.read_text().count("<svg") == 4
    (tmp_path / "open.toml").write_text(PLAN.partition("[privacy]")[0])
    result = call("privacy", "plan", str(tmp_path / "open.toml"), *sizes, code=1)
    assert "AB-913" in result.output
