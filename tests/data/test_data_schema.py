"""Schemas and site mappings: what they accept and refuse."""

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from anabranch.data import Column, DataSchema, SiteMapping, Target, load_mapping
from anabranch.errors import AnabranchError

SCHEMA = DataSchema(
    columns=(
        Column(name="age", unit="years", range=(0, 120)),
        Column(name="sex", type="category", codes={"Male": 1, "Female": 0, "M": 1}),
    ),
    target=Target(column="num", rule="> 0"),
)


def test_labels_are_ordered_by_number_and_named_by_the_first_spelling() -> None:
    assert SCHEMA.column("sex").labels == ("Female", "Male")


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ("> 0", [0, 0, 1]),
        (">= 0", [0, 1, 1]),
        ("< 0", [1, 0, 0]),
        ("<= 0", [1, 1, 0]),
        ("== 0", [0, 1, 0]),
        ("!= 0", [1, 0, 1]),
    ],
)
def test_rules(rule: str, wanted: list[int]) -> None:
    values = np.array([-1.0, 0.0, 1.0])
    assert Target(column="y", rule=rule).decide(values).tolist() == wanted


@pytest.mark.parametrize(
    "wrong",
    [
        {"column": "y", "rule": "num > 0"},
        {"column": "y", "rule": "> 0", "classes": ("a", "b")},
        {"column": "y", "classes": ("a",)},
        {"column": "y", "classes": ("a", "a")},
    ],
)
def test_targets_with_two_meanings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Target.model_validate(wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "a", "codes": {"x": 1}},
        {"name": "a", "type": "flag", "codes": {"x": 1, "y": 2}},
        {"name": "a", "range": (2, 1)},
        {"name": "a", "colour": "red"},
    ],
)
def test_columns_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Column.model_validate(wrong)


def test_a_column_cannot_be_input_and_target() -> None:
    with pytest.raises(ValidationError, match="used twice"):
        DataSchema(columns=(Column(name="y"),), target=Target(column="y"))


def test_a_schema_survives_json() -> None:
    assert DataSchema.model_validate_json(SCHEMA.model_dump_json()) == SCHEMA


def test_mapping_is_read(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_text(
        '[file]\ndelimiter = ";"\n[columns.age]\ncolumn = "alter"\nfactor = 2\n', "utf-8"
    )
    mapping = load_mapping(path, SCHEMA)
    assert mapping.file.delimiter == ";"
    assert mapping.site_name("age") == "alter"
    assert mapping.site_name("sex") == "sex"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[columns", "not valid TOML"),
        ("[columns.age]\ncolour = 1", "columns.age.colour"),
        ("[columns.agee]\nfactor = 2", "did you mean 'age'"),
    ],
)
def test_wrong_mappings_are_ab_213(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "site.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(AnabranchError, match="AB-213") as caught:
        load_mapping(path, SCHEMA)
    assert says in str(caught.value)


def test_an_empty_mapping_changes_nothing() -> None:
    assert SiteMapping().of("age").factor == 1.0
