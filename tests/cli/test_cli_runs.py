"""Real small runs through the command line: simulate, resume, report, runs, demo."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from anabranch.cli.app import app
from anabranch.coordinator.store import Store

runner = CliRunner()

PLAN = """schema = 1
name = "heart"
rounds.count = 4
data = { source = "heart", test_fraction = 0.3 }
model.name = "logistic"
evaluation.baselines = ["local-only", "pooled"]
"""
HOSPITALS = ("Cleveland", "Hungary", "Switzerland", "VA Long Beach")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan and a store with two seeds of it and one run with more epochs."""
    path = tmp_path_factory.mktemp("runs")
    (path / "plan.toml").write_text(PLAN)
    for changes in ([], ["--set", "seed=1"], ["--set", "local.epochs=3"]):
        result = simulate(path, "-q", *changes)
        assert result.exit_code == 0, result.stderr
    return path


def simulate(folder: Path, *words: str) -> Result:
    given = ["simulate", f"{folder}/plan.toml", "--store", f"{folder}/st"]
    return runner.invoke(app, [*given, *words])


def in_store(folder: Path, *words: str) -> Result:
    return runner.invoke(app, [*words, "--store", f"{folder}/st"])


@pytest.fixture(scope="module")
def ids(folder: Path) -> list[str]:
    """In the order in which they were started."""
    with Store.open(folder / "st") as store:
        return [run.id for run in reversed(store.runs())]


def test_simulate_tells_on_stderr_and_answers_on_stdout(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(PLAN)
    result = simulate(tmp_path, "--json", f"{tmp_path}/out.json", "--kind", "inline")
    assert result.exit_code == 0
    assert result.stderr.startswith("Trust: ")
    assert "round 4/4  mean AUC 0." in result.stderr
    assert "Trust" not in result.stdout
    table = result.stdout.splitlines()
    assert table[2].split() == [
        *("client", "test", "n", "federated", "local", "only", "pooled", "gain", "over", "local")
    ]
    assert [line.split("  ")[0] for line in table[4:9]] == [*HOSPITALS, "mean"]
    written = json.loads((tmp_path / "out.json").read_text())
    wanted = {"run", "rounds", "seconds", "metrics", "limits", "model", "model_sha256"}
    assert wanted <= set(written)
    assert written["rounds"] == 4
    assert written["limits"] == []
    assert set(written["clients"]) == set(HOSPITALS)
    model = Path(written["model"]).read_bytes()
    assert written["model_sha256"] == hashlib.sha256(model).hexdigest()


def test_quiet_still_says_why_the_exit_code_is_not_0(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(PLAN)
    limit = ["--set", "limits={max_update_bytes=150}", "--set", "evaluation.baselines=[]"]
    missed = simulate(tmp_path, "-q", *limit)
    assert missed.exit_code == 3
    assert missed.stderr.startswith("Limit missed: max_update_bytes (wanted ")
    diverging = simulate(tmp_path, "-q", "--set", "local.learning_rate=1e38")
    assert diverging.exit_code == 1
    assert diverging.stderr.startswith("Run failed: ")
    assert "AB-50" in diverging.stderr
    assert "Traceback" not in diverging.stderr


def test_quiet_json_on_stdout_is_json_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(PLAN)
    kinds = (["--kind", "inline"], ["--kind", "spawn", "--workers", "2"])
    results = [simulate(tmp_path, "-q", "--json", "-", *kind) for kind in kinds]
    assert [r.stderr for r in results] == ["", ""]
    first, second = (json.loads(r.stdout) for r in results)
    assert first["model_sha256"] == second["model_sha256"]  # workers change no bit
    assert first["run"] != second["run"]


def test_missed_limits_are_exit_code_3(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(PLAN)
    result = simulate(tmp_path, "--set", "limits.max_update_bytes=150", "--json", "-")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["limits"][0]["met"] is False
    assert "Limit missed: max_update_bytes (wanted <= 150 bytes, measured 180)" in result.stderr


def test_a_plan_that_the_algebra_refuses_starts_no_run(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(PLAN)
    changes = ["--set", 'algorithm={name="scaffold"}', "--set", "clients.memory=false"]
    result = simulate(tmp_path, *changes)
    assert result.exit_code == 1
    assert "[algebra]" in result.stderr
    assert not (tmp_path / "st").exists()


def test_runs_are_listed_newest_first(folder: Path, ids: list[str]) -> None:
    listed = json.loads(in_store(folder, "runs", "list", "--json").stdout)
    assert [fact["run"] for fact in listed] == ids[::-1]
    assert {fact["status"] for fact in listed} == {"complete"}
    assert [fact["seed"] for fact in listed] == [0, 1, 0]
    text = in_store(folder, "runs", "list").stdout
    assert all(run_id in text for run_id in ids)


def test_show_by_beginning_and_last(folder: Path, ids: list[str]) -> None:
    last = in_store(folder, "runs", "show")
    assert last.stdout.startswith("Trust: ")
    assert f"Run {ids[-1]}: complete, all rounds done" in last.stdout
    first = json.loads(in_store(folder, "runs", "show", ids[0][:-1], "--json").stdout)
    assert first["run"] == ids[0]
    ambiguous = in_store(folder, "runs", "show", "heart")
    assert ambiguous.exit_code == 1
    assert "AB-804" in ambiguous.stderr
    assert "AB-608" in in_store(folder, "runs", "show", "haert").stderr


def test_compare_by_plan_with_the_seeds_as_repeats(folder: Path, ids: list[str]) -> None:
    document = json.loads(in_store(folder, "runs", "compare", *ids, "--json").stdout)
    assert document["metric"] == "auc"
    first, second = document["variants"]
    assert first["seeds"] == [0, 1]
    assert second["label"] == "local.epochs=3"
    runs = [json.loads(in_store(folder, "runs", "show", i, "--json").stdout) for i in ids]
    values = [run["final"]["metrics"]["auc"] for run in runs]
    assert first["metric"]["mean"] == pytest.approx(sum(values[:2]) / 2)
    assert second["advantage"]["mean"] == pytest.approx(values[2] - values[0])
    over_clients = in_store(folder, "runs", "compare", *ids, "--mean", "--json")
    clients = [m["auc"] for m in runs[2]["final"]["clients"].values()]
    mean = json.loads(over_clients.stdout)["variants"][1]["metric"]["mean"]
    assert mean == pytest.approx(sum(clients) / 4)
    text = in_store(folder, "runs", "compare", *ids).stdout
    assert "local.epochs=3" in text
    wrong = in_store(folder, "runs", "compare", *ids, "--metric", "rmse")
    assert "AB-808" in wrong.stderr


def test_diff_of_plans(folder: Path, ids: list[str]) -> None:
    differences = json.loads(in_store(folder, "runs", "diff", ids[1], ids[2], "--json").stdout)
    assert [d["key"] for d in differences] == ["local.epochs", "seed"]
    assert "equal" in in_store(folder, "runs", "diff", ids[0], ids[0]).stdout


def test_exports(folder: Path, ids: list[str], tmp_path: Path) -> None:
    rounds = in_store(folder, "runs", "export", "last", "--format", "csv").stdout
    assert len(list(csv.DictReader(io.StringIO(rounds)))) == 4
    target = tmp_path / "deep" / "clients.csv"
    in_store(folder, "runs", "export", ids[0], "--format", "clients", "-o", str(target))
    rows = list(csv.DictReader(io.StringIO(target.read_text())))
    assert {row["client"] for row in rows} == set(HOSPITALS)
    events = in_store(folder, "runs", "export", "--format", "events").stdout.splitlines()
    assert {"card", "evaluation", "model"} <= {json.loads(line)["event"] for line in events}
    assert json.loads(in_store(folder, "runs", "export").stdout)["run"] == ids[-1]


def test_report_prints_its_place_and_nothing_else(folder: Path, ids: list[str]) -> None:
    result = in_store(folder, "report", ids[0])
    assert result.exit_code == 0
    path = Path(result.stdout.strip())
    assert path == folder / "st" / f"{ids[0]}.html"
    text = path.read_text()
    assert "mean over 2 seeds" in text
    assert "CC BY 4.0" in text
    refused = in_store(folder, "report", "last", "-o", str(folder / "plan.toml" / "x.html"))
    assert refused.exit_code == 1
    assert "AB-806" in refused.stderr


def test_an_empty_store_is_an_empty_list(tmp_path: Path) -> None:
    Store.open(tmp_path / "st").close()
    assert "No runs yet" in in_store(tmp_path, "runs", "list").stdout
    assert json.loads(in_store(tmp_path, "runs", "list", "--json").stdout) == []
    assert "AB-803" in in_store(tmp_path, "report", "last").stderr


def test_ctrl_c_ends_the_round_and_resume_finishes_bit_for_bit(tmp_path: Path) -> None:
    """A real process, a real signal: the stopped run is listed, resumed, and ends the same."""
    (tmp_path / "plan.toml").write_text(PLAN)
    changes = ("rounds.count=600", "evaluation.every=0", "evaluation.baselines=[]")
    many = ["--kind", "inline", *(word for change in changes for word in ("--set", change))]
    command = [sys.executable, "-c", "from anabranch.cli import main; main()", "simulate"]
    process = subprocess.Popen(
        [*command, f"{tmp_path}/plan.toml", "--store", f"{tmp_path}/st", *many],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("Run "):
            time.sleep(0.05)  # some rounds, and by far not all of them
            process.send_signal(signal.SIGINT)
            break
    rest = process.stderr.read()
    assert "Stopping after this round" in rest
    assert process.wait() == 130
    listed = json.loads(in_store(tmp_path, "runs", "list", "--json").stdout)
    assert listed[0]["status"] == "stopped"
    assert listed[0]["rounds"] < 600
    resumed = in_store(tmp_path, "resume", "last", "--json", "-")
    assert resumed.exit_code == 0, resumed.stderr
    assert ("going on at round" in resumed.stderr) == (listed[0]["rounds"] > 0)
    straight = json.loads(simulate(tmp_path, *many, "-q", "--json", "-").stdout)
    assert json.loads(resumed.stdout)["model_sha256"] == straight["model_sha256"]
    again = in_store(tmp_path, "resume", listed[0]["run"])
    assert again.exit_code == 1
    assert "AB-609" in again.stderr


def test_demo_prints_hospitals_with_intervals_and_writes_the_report(tmp_path: Path) -> None:
    result = runner.invoke(app, ["demo", "--store", str(tmp_path / "d"), "--repeats", "2"])
    assert result.exit_code == 0, result.stderr
    assert result.stderr.startswith("Trust: ")
    assert "repeat 2 of 2" in result.stderr
    for hospital in HOSPITALS:
        line = next(x for x in result.stdout.splitlines() if x.startswith(hospital))
        assert line.count("[") == 2  # federated and gain
    report = Path(result.stdout.rsplit("Report: ", 1)[1].strip())
    assert "mean over 2 seeds with 95 % interval" in report.read_text()
