"""What a plan says of itself: descriptions, the reference page, the schema, the explanation."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from test_algebra_pairs import AXES, BASE

from anabranch.algorithms import ALGORITHMS
from anabranch.data import Federation
from anabranch.plan import (
    Facts,
    Plan,
    changed,
    check,
    dump_toml,
    explain,
    json_schema,
    judge,
    parse_plan,
    reference_page,
    schema_json,
    trust_line,
)
from anabranch.plan.document import parse_toml
from anabranch.plan.explain import equation_of
from anabranch.plan.fields import fields_of, type_text, unit_of, values_below
from anabranch.plan.rules import RULES

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted(path.name for path in files("anabranch.plan").joinpath("examples").iterdir())


def example(name: str) -> Plan:
    return parse_plan(files("anabranch.plan").joinpath("examples", name).read_text("utf-8"), name)


@pytest.mark.parametrize("value", values_below(Plan), ids=lambda v: v.__name__)
def test_every_field_of_every_value_is_described(value: type[Plan]) -> None:
    assert value.__doc__
    silent = [
        name
        for name, field in fields_of(value).items()
        if not field.description and name not in ("kind", "name")
    ]
    assert silent == []


def test_the_walk_reaches_every_room() -> None:
    names = {value.__name__ for value in values_below(Plan)}
    assert {"SGD", "Adam", "Clip", "Dirichlet", "Custom", "Cosine", "Column", "Limits"} <= names
    assert {kind.__name__ for kind in ALGORITHMS.values()} <= names


def test_quantities_with_a_unit_say_it() -> None:
    counted = {"seconds": "seconds", "bytes": "bytes"}
    for value in values_below(Plan):
        for name, field in fields_of(value).items():
            for ending, unit in counted.items():
                if name.endswith(ending):
                    assert unit in unit_of(field), f"{value.__name__}.{name}"


def test_the_reference_page_is_up_to_date() -> None:
    page = (ROOT / "docs" / "reference" / "plan.md").read_text("utf-8")
    assert page == reference_page(), (
        "write anabranch.plan.reference_page() to docs/reference/plan.md"
    )


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_follow_the_json_schema(name: str) -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    text = files("anabranch.plan").joinpath("examples", name).read_text("utf-8")
    jsonschema.validate(parse_toml(text, name), schema)
    jsonschema.validate(parse_toml(dump_toml(parse_plan(text)), name), schema)


@pytest.mark.parametrize(
    "wrong",
    [
        {"schema": 2},
        {"local": {"epoch": 1}},
        {"local": {"learning_rate": 0}},
        {"algorithm": {"name": "fedporx"}},
        {"algorithm": {"name": "fedprox", "nu": 1}},
        {"updates": {"stages": [{"kind": "clip", "max_norm": -1}]}},
    ],
)
def test_the_json_schema_refuses(wrong: dict[str, object]) -> None:
    good = {"schema": 1, "data": {}, "model": {}}
    jsonschema.validate(good, json_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**good, **wrong}, json_schema())


def test_schema_json_is_the_schema() -> None:
    assert json.loads(schema_json()) == json_schema()


def test_types_in_words() -> None:
    fields = fields_of(Plan.model_fields["rounds"].annotation)
    shown = type_text(fields["cohort"].annotation, tuple(fields["cohort"].metadata))
    assert shown == "integer >= 1 or number > 0, <= 1"


def test_explanation_of_the_demo() -> None:
    plan = example("silo.toml")
    text = explain(plan, Facts(clients=4, dim=33))
    for part in (
        "the coordinator can read every update; no differential privacy",
        f"{plan.rounds.count} rounds; in each, every client of 4",
        "w  <- w + eta_s * sum_i p_i Delta_i",
        "delta: 132 bytes",
        "Clients keep nothing between rounds",
        "examples never do",
        f"min_participation = {plan.limits.min_participation}",
    ):
        assert part in text
    assert max(map(len, text.splitlines())) <= 100


def test_explanation_without_facts_claims_no_numbers() -> None:
    text = explain(example("device.toml"))
    assert "4 bytes a trained coordinate" in text
    assert "10 clients, drawn anew each time" in text
    assert "1.2 times as many are asked" in text


@pytest.mark.parametrize("axis", AXES)
def test_everything_can_be_explained(axis: str) -> None:
    """Each option changes the text, unless it only says the default aloud."""
    first, *others = [explain(changed(BASE, setting)) for setting in AXES[axis].values()]
    assert all(text.split("\n", 1)[1] != first.split("\n", 1)[1] for text in others)


def test_refusals_are_explained() -> None:
    plan = changed(BASE, {"algorithm": {"name": "scaffold"}, "clients.memory": False})
    text = explain(plan)
    assert "Refused, AB-401" in text
    assert "--set clients.memory=true" in text


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_shows_its_equation(name: str) -> None:
    equation = equation_of(ALGORITHMS[name]())
    assert "w" in equation
    assert "<-" in equation


def test_trust_line_is_true_of_plain_plans() -> None:
    for name in EXAMPLES:
        line = trust_line(example(name))
        assert line == "the coordinator can read every update; no differential privacy"


@pytest.mark.parametrize("code", [rule.code for rule in RULES])
def test_examples_on_the_pages_of_rules_are_true(code: str) -> None:
    """The refused table names the rule, the accepted one is accepted."""
    page = (ROOT / "docs" / "errors" / f"{code}.md").read_text("utf-8")
    refused, accepted = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    verdicts = [judge(_completed(text)) for text in (refused, accepted)]
    assert [refusal.code for refusal in verdicts[0].refusals] == [code]
    assert verdicts[1].accepted


def _completed(text: str) -> Plan:
    tables = parse_toml(text, "the page")
    return Plan.model_validate({"data": {}, "model": {}, **tables})


def small() -> Federation:
    rng = np.random.default_rng(0)
    clients = {
        name: (rng.normal(size=(8, 3)).astype(np.float32), np.arange(8) % 2) for name in "abcd"
    }
    return Federation.from_arrays(clients, test=clients)


LOGISTIC = changed(BASE, {"model.name": "logistic", "runtime.engine": "numpy"})


def test_a_good_plan_has_no_findings_that_are_wrong() -> None:
    report = check(LOGISTIC, small())
    assert report.errors == ()
    assert [finding.part for finding in report.findings] == [
        "options",
        "data",
        "fleet",
        "model",
        "metrics",
    ]
    assert (report.facts.clients, report.facts.dim) == (4, 4)
    assert "4 parameters, 4 are shared" in report.text()


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"rounds.cohort": 9}, "AB-112"),
        ({"stop.metric": "rmse"}, "AB-114"),
        ({"evaluation.on": "holdout"}, "AB-115"),
        ({"model.keep_local": ["head.*"]}, "AB-116"),
        ({"model.freeze": ["layer"]}, "AB-116"),
        ({"algorithm": {"name": "fednova"}, "local.optimizer": {"kind": "adam"}}, "AB-404"),
        ({"model.name": "mpl"}, "AB-303"),
    ],
)
def test_check_finds_what_is_wrong(changes: dict[str, object], code: str) -> None:
    report = check(changed(LOGISTIC, changes), small())
    assert [error.code for error in report.errors] == [code]
    assert code in report.text()


def test_check_goes_as_far_as_it_can_without_data() -> None:
    plan = changed(LOGISTIC, {"clients.memory": False, "algorithm": {"name": "feddyn"}})
    report = check(plan)  # its data were given in Python
    assert [error.code for error in report.errors] == ["AB-401", "AB-222"]
