"""Commands that run nothing: help, errors, exit codes, plans, sources, templates."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from anabranch.cli.app import app
from anabranch.cli.init import Template, written_by
from anabranch.data.check import check_site
from anabranch.data.sources.heart import HEART_SCHEMA
from anabranch.plan import parse_plan
from anabranch.runtimes.http.client.operator import Operator
from anabranch.runtimes.http.status import RunStatus

runner = CliRunner()

PLAN = 'schema = 1\nname = "try"\ndata.source = "heart"\nmodel.name = "logistic"\n'


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "plan.toml"
    path.write_text(PLAN)
    return path


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )


def test_help_imports_nothing_heavy() -> None:
    heavy = ["torch", "matplotlib", "sqlalchemy", "numpy", "pydantic", "rich", "jinja2"]
    code = (
        "import sys; from anabranch.cli import main; sys.argv[1:] = ['--help']\n"
        "try: main()\n"
        f"finally: print([m for m in {heavy} if m in sys.modules], file=sys.stderr)"
    )
    result = python(code)
    assert "simulate" in result.stdout
    assert result.stderr.strip() == "[]"


def test_without_typer_the_extra_is_named() -> None:
    result = python(
        "import sys; sys.modules['typer'] = None; from anabranch.cli import main; main()"
    )
    assert result.returncode == 1
    assert result.stderr.startswith("AB-801 [command] the command line needs typer")
    assert 'pip install "anabranch[cli]"' in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "words",
    [["nonsense"], ["simulate"], ["simulate", "p", "--workers", "0"], ["init", "moon", "x"]],
)
def test_wrong_usage_is_exit_code_2(words: list[str]) -> None:
    assert runner.invoke(app, words).exit_code == 2


def test_every_command_has_help_and_a_meaning() -> None:
    import typer

    pending: list[tuple[Any, list[str]]] = [(typer.main.get_command(app), [])]
    while pending:
        command, path = pending.pop()
        assert command.help, path
        assert runner.invoke(app, [*path, "--help"]).exit_code == 0
        for name, inner in getattr(command, "commands", {}).items():
            pending.append((inner, [*path, name]))


def test_help_says_what_an_argument_is() -> None:
    """Some versions of click drop it; the extra `cli` asks for those that do not."""
    assert "The plan, a TOML file." in runner.invoke(app, ["simulate", "--help"]).stdout
    assert "Where; made when absent." in runner.invoke(app, ["init", "--help"]).stdout


def test_an_error_is_one_line_on_stderr(tmp_path: Path) -> None:
    result = runner.invoke(app, ["plan", "check", str(tmp_path / "none.toml")])
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("AB-101 [plan] ")
    assert "Fix: " in result.stderr
    assert result.stderr.rstrip().endswith("See docs/errors/AB-101.md")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("place", [0, 2, 3])
def test_debug_anywhere_shows_the_traceback(place: int, tmp_path: Path) -> None:
    words = ["plan", "check", str(tmp_path / "none.toml")]
    words.insert(place, "--debug")
    result = runner.invoke(app, words)
    assert result.exit_code == 1
    assert "Traceback (most recent call last)" in result.stderr
    assert "AB-101" in result.stderr


def test_an_unknown_error_is_named_and_not_swallowed(
    plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object) -> None:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr("anabranch.plan.load_plan", broken)
    result = runner.invoke(app, ["plan", "check", str(plan)])
    assert result.exit_code == 1
    assert "AB-802 [command]" in result.stderr
    assert "ZeroDivisionError: by nothing" in result.stderr
    assert "Traceback" not in result.stderr


def test_plan_check_accepts_and_refuses(plan: Path) -> None:
    accepted = runner.invoke(app, ["plan", "check", str(plan), "--json"])
    assert accepted.exit_code == 0
    assert json.loads(accepted.stdout)["accepted"] is True
    changes = ["--set", 'algorithm={name="scaffold"}', "--set", "clients.memory=false"]
    refused = runner.invoke(app, ["plan", "check", str(plan), *changes])
    assert refused.exit_code == 1
    assert refused.stdout.startswith("Refused.")
    assert "instead: " in refused.stdout
    document = json.loads(
        runner.invoke(app, ["plan", "check", str(plan), *changes, "--json"]).stdout
    )
    assert document["refusals"][0]["alternatives"]


@pytest.mark.parametrize(
    ("change", "part", "code"),
    [
        ("rounds.cohort=50", "fleet", "AB-112"),
        ("stop.metric=f1", "metrics", "AB-114"),
        ("evaluation.on=holdout", "metrics", "AB-115"),
        ('model.freeze=["nothing*"]', "model", "AB-116"),
        ('model.freeze=["*"]', "model", "AB-117"),
        ('model.name="mlpp"', "model", "AB-303"),
        ("data.source=hart", "data", "AB-205"),
    ],
)
def test_plan_check_finds_what_would_stop_a_run(
    plan: Path, change: str, part: str, code: str
) -> None:
    """Data, fleet, model and metrics are checked as a run checks them, before it starts."""
    words = ["plan", "check", str(plan), "--set", change]
    result = runner.invoke(app, words)
    assert result.exit_code == 1
    assert result.stdout.startswith("Refused.")
    assert f"wrong  {part}: {code} " in result.stdout
    document = json.loads(runner.invoke(app, [*words, "--json"]).stdout)
    assert document["accepted"] is False
    assert [c["code"] for c in document["checks"] if not c["fits"]] == [code]
    without = runner.invoke(app, [*words, "--without-data"])
    assert without.exit_code == 0  # the options alone are fine


def test_a_wrong_key_is_refused_with_a_suggestion(plan: Path) -> None:
    result = runner.invoke(app, ["plan", "check", str(plan), "--set", "local.epoch=2"])
    assert result.exit_code == 1
    assert "epochs" in result.stderr


def test_plan_explain_says_it_in_words_and_key_by_key(
    plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = runner.invoke(app, ["plan", "explain", str(plan)]).stdout
    assert "can read every update" in words
    monkeypatch.setenv("ANABRANCH_LOCAL__EPOCHS", "4")
    keys = runner.invoke(app, ["plan", "explain", str(plan), "--keys", "--set", "seed=3"]).stdout
    lines = {line.split()[0]: line for line in keys.splitlines() if line.strip()}
    assert lines["seed"].split()[1:] == ["3", "command", "line"]
    assert "ANABRANCH_LOCAL__EPOCHS" in lines["local.epochs"]
    assert lines["local.batch_size"].endswith("default")


def test_plan_schema_is_json() -> None:
    schema = json.loads(runner.invoke(app, ["plan", "schema"]).stdout)
    assert "rounds" in schema["properties"]


def test_plan_migrate_writes_a_plan_that_means_the_same(plan: Path, tmp_path: Path) -> None:
    out = tmp_path / "new.toml"
    result = runner.invoke(app, ["plan", "migrate", str(plan), "-o", str(out)])
    assert result.exit_code == 0
    assert parse_plan(out.read_text()) == parse_plan(PLAN)


@pytest.mark.parametrize("template", list(Template))
def test_templates_are_plans(template: Template, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    result = runner.invoke(app, ["init", template.value, str(folder)])
    assert result.exit_code == 0
    assert sorted(p.name for p in folder.iterdir()) == sorted(written_by(template, "new"))
    check = ["plan", "check", str(folder / "plan.toml")]
    check += ["--without-data"] if template is Template.DEVICE else []  # pictures may be absent
    assert runner.invoke(app, check).exit_code == 0
    assert (folder / "plan.toml").read_text().startswith("# ")  # it is commented
    assert (folder / "README.md").read_text().startswith("# new\n")


def test_init_replaces_nothing_unasked(tmp_path: Path) -> None:
    words = ["init", "silo", str(tmp_path)]
    assert runner.invoke(app, words).exit_code == 0
    (tmp_path / "plan.toml").write_text("mine")
    again = runner.invoke(app, words)
    assert again.exit_code == 1
    assert "AB-805" in again.stderr
    assert (tmp_path / "plan.toml").read_text() == "mine"
    assert runner.invoke(app, [*words, "--force"]).exit_code == 0
    assert (tmp_path / "plan.toml").read_text() != "mine"


SITE_ROW = "63;m;typical angina;145;6,03;FALSE;normal;150;FALSE;2,3;flat;0;normal;{num}\n"
SITE_HEAD = "age;sex;cp;trestbps;cholesterin;fbs;restecg;thalch;exang;oldpeak;slope;ca;thal;num\n"


def site(folder: Path, rows: str) -> Path:
    folder.mkdir()
    (folder / "data.csv").write_text(SITE_HEAD + rows)
    (folder / "site.toml").write_text(written_by(Template.SILO, "x")["site.toml"])
    return folder


def test_the_sample_site_file_maps_a_real_file(plan: Path, tmp_path: Path) -> None:
    folder = site(tmp_path / "va", "".join(SITE_ROW.format(num=i % 2) for i in range(20)))
    assert check_site(HEART_SCHEMA, folder).fits
    result = runner.invoke(app, ["check", str(plan), "--data", str(folder)])
    assert result.exit_code == 0, result.stdout
    assert "fit the contract" in result.stdout


def test_check_names_what_does_not_fit_without_its_value(plan: Path, tmp_path: Path) -> None:
    bad = SITE_ROW.format(num=1).replace(";m;", ";secret-code;")
    folder = site(tmp_path / "va", SITE_ROW.format(num=0) * 12 + bad)
    result = runner.invoke(app, ["check", str(plan), "--data", str(folder), "--json"])
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert document["fits"] is False
    assert [p["column"] for p in document["problems"]] == ["sex"]
    assert "secret-code" not in result.stdout + result.stderr


def test_check_needs_a_schema(plan: Path, tmp_path: Path) -> None:
    words = ["check", str(plan), "--data", str(tmp_path), "--set", "data.source=folder"]
    result = runner.invoke(app, [*words, "--set", "data.path=sites"])
    assert result.exit_code == 1
    assert "AB-809" in result.stderr


def test_data_commands() -> None:
    listed = runner.invoke(app, ["data", "list"])
    assert listed.exit_code == 0
    assert "heart" in listed.stdout
    card = json.loads(runner.invoke(app, ["data", "card", "heart", "--json"]).stdout)
    assert card["partition"] == "natural"
    assert card["licence"] in runner.invoke(app, ["data", "card", "heart"]).stdout
    unknown = runner.invoke(app, ["data", "card", "hart"])
    assert unknown.exit_code == 1
    assert "'heart'" in unknown.stderr


def test_data_describe_a_source_and_a_plan(plan: Path, tmp_path: Path) -> None:
    picture = tmp_path / "clients.svg"
    source = runner.invoke(app, ["data", "describe", "heart", "--picture", str(picture)])
    assert source.exit_code == 0
    assert "4 clients" in source.stdout
    assert "<svg" in picture.read_text()
    changes = ["--set", 'data.partition={kind="iid", clients=3}']
    planned = runner.invoke(app, ["data", "describe", str(plan), *changes])
    assert "3 clients" in planned.stdout
    misspelt = runner.invoke(app, ["data", "describe", "hart"])
    assert misspelt.exit_code == 1
    assert "AB-205" in misspelt.stderr
    assert "use 'heart'" in misspelt.stderr
    named = runner.invoke(app, ["data", "describe", "heart", *changes])
    assert "3 clients" in named.stdout


def test_version_names_what_computes() -> None:
    result = runner.invoke(app, ["version"])
    assert result.stdout.startswith("anabranch ")
    assert "numpy " in result.stdout


def test_no_store_is_an_error_that_says_where(tmp_path: Path) -> None:
    result = runner.invoke(app, ["runs", "list", "--store", str(tmp_path / "none")])
    assert result.exit_code == 1
    assert "AB-617" in result.stderr
    assert not (tmp_path / "none").exists()


def commands(group: click.Group, before: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for name, command in group.commands.items():
        path = (*before, name)
        found += commands(command, path) if isinstance(command, click.Group) else [path]
    return found


def test_every_command_stands_on_the_reference_page() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "cli.md").read_text("utf-8")
    told = [re.findall(r"[a-z-]+", line.split("` |")[0]) for line in page.splitlines()]
    group = get_command(app)
    assert isinstance(group, click.Group)
    for path in commands(group):
        assert any(words[:2] == ["anabranch", path[0]] and path[-1] in words for words in told), (
            path
        )


@pytest.mark.parametrize(
    ("state", "words"), [("complete", "is over already: complete"), ("waiting", "after round 4")]
)
def test_stop_says_what_it_did(monkeypatch: pytest.MonkeyPatch, state: str, words: str) -> None:
    def stopped(self: Operator, run: str) -> RunStatus:
        return RunStatus(run=run, name="heart", state=state, round=3, rounds=9)

    monkeypatch.setattr(Operator, "__init__", lambda self, store: None)
    monkeypatch.setattr(Operator, "__exit__", lambda self, *error: None)
    monkeypatch.setattr(Operator, "stop", stopped)
    result = runner.invoke(app, ["stop", "heart-1"])
    assert words in result.output
