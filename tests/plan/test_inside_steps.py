"""What noise inside sites costs each site, before training: numbers by hand, and the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from anabranch.cli.app import app
from anabranch.plan import Plan, parse_plan
from anabranch.plan.inside import site_steps
from anabranch.plan.promise import promise_of

TEXT = """
schema = 1
name = "persons"
[data]
source = "folder"
path = "nowhere"
[data.table]
subject = "person"
columns = [{ name = "age", range = [0, 120] }]
target = { column = "ill", rule = "> 0" }
[model]
name = "logistic"
[aggregation]
weighting = { kind = "uniform" }
[local]
steps = 3
[rounds]
count = 5
[evaluation]
on = "nowhere"
[privacy]
epsilon = 50.0
delta = 1e-3
population = "patients"
unit = "subject"
open_statistics = "a test"
[privacy.mechanism]
kind = "dp-sgd"
batch = 20
noise_multiplier = 2.0
disjoint = true
units = { south = 10, north = 80 }
clip = { kind = "fixed", norm = 1.0 }
"""


def plan() -> Plan:
    return parse_plan(TEXT)


def test_the_numbers_of_every_site_by_hand() -> None:
    found = site_steps(plan(), promise_of(plan(), 2, {"south": 10, "north": 80}), 25)
    assert [(one.site, one.rate, one.steps, one.noise, one.ratio) for one in found] == [
        ("north", 0.25, 15, 2.0, 2.0 * 5 / 20),
        ("south", 1.0, 15, 2.0, 2.0 * 5 / 20),
    ]


def test_a_plan_without_such_noise_has_no_such_steps() -> None:
    central = TEXT.partition("[privacy]")[0]
    with pytest.raises(ValueError, match="no noise inside sites"):
        site_steps(parse_plan(central), promise_of(plan(), 2, {"south": 10}), 25)


def test_the_command_answers_for_sites_and_not_for_the_fleet(tmp_path: Path) -> None:
    file, page = tmp_path / "plan.toml", tmp_path / "plan.html"
    file.write_text(TEXT)
    asked = ["privacy", "plan", str(file), "--parameters", "25"]
    said = CliRunner().invoke(app, [*asked, "--html", str(page)])
    assert said.exit_code == 0, said.output
    assert "for one subject" in said.output
    assert "not reachable" not in said.output.lower()
    assert "north" in page.read_text()
    told = json.loads(CliRunner().invoke(app, [*asked, "--json"]).stdout)
    assert [one["site"] for one in told["sites"]] == ["north", "south"]
    assert told["sites"][0]["ratio"] == 0.5
