"""Reading files into tables: every kind of bad cell is named by column and row, never by value."""

from pathlib import Path

import numpy as np
import pytest

from anabranch.data import (
    Column,
    ColumnMapping,
    DataSchema,
    FileFormat,
    SiteMapping,
    Table,
    Target,
    read_table,
)
from anabranch.data.raw import parse_csv, read_raw
from anabranch.data.table import concatenate, interpret
from anabranch.errors import AnabranchError

SCHEMA = DataSchema(
    columns=(
        Column(name="chol", unit="mg/dl", range=(50, 800), missing=(0,)),
        Column(name="fbs", type="flag"),
        Column(name="sex", type="category", codes={"Female": 0, "Male": 1}),
    ),
    target=Target(column="num", rule="> 0"),
)
HEADER = "chol,fbs,sex,num\n"
SECRET = "98765"


def table_of(text: str, schema: DataSchema = SCHEMA, mapping: SiteMapping | None = None) -> Table:
    table, problems = interpret(schema, parse_csv(text.encode(), "va.csv"), mapping)
    assert problems == ()
    return table


def refused(tmp_path: Path, text: str, schema: DataSchema = SCHEMA) -> AnabranchError:
    path = tmp_path / "va.csv"
    path.write_text(text, "utf-8")
    with pytest.raises(AnabranchError) as caught:
        read_table(schema, path, "va")
    return caught.value


def test_cells_are_read_as_the_schema_says() -> None:
    table = table_of(HEADER + "200, TRUE ,Male,0\n,no,,2\n0,?,Female,1\n")
    assert np.array_equal(table.columns["chol"], [200, np.nan, np.nan], equal_nan=True)
    assert np.array_equal(table.columns["fbs"], [1, 0, np.nan], equal_nan=True)
    assert table.columns["sex"].tolist() == ["Male", "", "Female"]
    assert table.y.tolist() == [0, 1, 1]
    assert table.rows.tolist() == [2, 3, 4]


def test_text_in_a_number_column_says_column_row_and_what_was_wanted(tmp_path: Path) -> None:
    rows = "200,TRUE,Male,0\n" * 15 + f"x{SECRET},TRUE,Male,0\n"
    error = refused(tmp_path, HEADER + rows)
    assert str(error).startswith(
        "AB-214 [data] client 'va': column 'chol' is text in row 17 (wanted: number, mg/dl). "
        "Nothing was sent."
    )
    assert SECRET not in str(error)


@pytest.mark.parametrize(
    ("row", "code", "column"),
    [
        (f"{SECRET},1,Male,0", "AB-215", "chol"),
        ("inf,1,Male,0", "AB-218", "chol"),
        (f"200,{SECRET},Male,0", "AB-217", "fbs"),
        (f"200,1,{SECRET},0", "AB-217", "sex"),
        ("200,1,Male,", "AB-216", "num"),
        ("200,1,Male,nan", "AB-216", "num"),
        (f"200,1,Male,x{SECRET}", "AB-214", "num"),
    ],
)
def test_bad_cells(tmp_path: Path, row: str, code: str, column: str) -> None:
    error = refused(tmp_path, HEADER + "200,1,Male,0\n" + row + "\n")
    assert error.code == code
    assert f"column {column!r}" in error.message
    assert "row 3" in error.message
    assert SECRET not in str(error)


def test_unseen_class_labels_are_refused(tmp_path: Path) -> None:
    schema = SCHEMA.replace(target=Target(column="num", classes=("0", "1")))
    error = refused(tmp_path, HEADER + "200,1,Male,0\n200,1,Male,2\n", schema)
    assert error.code == "AB-217"


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    error = refused(tmp_path, "chol,sex,num\n200,Male,0\n")
    assert error.code == "AB-212"
    assert "'fbs'" in error.message


def test_optional_columns_may_be_absent() -> None:
    columns = (*SCHEMA.columns, Column(name="ca", optional=True))
    table = table_of(HEADER + "200,1,Male,0\n", SCHEMA.replace(columns=columns))
    assert np.isnan(table.columns["ca"]).all()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        (HEADER + "1,2\n", "2 cells in row 2, but 4 columns"),
        ("chol,chol,sex,num\n", "same name: chol"),
        (HEADER + '"200,1,Male,0\n', "not a valid .csv"),
    ],
)
def test_malformed_csv(tmp_path: Path, text: str, says: str) -> None:
    error = refused(tmp_path, text)
    assert error.code == "AB-208"
    assert says in error.message


def test_files_that_are_not_there_or_not_text_or_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(AnabranchError, match="AB-207"):
        read_raw(tmp_path / "no.csv")
    (tmp_path / "latin.csv").write_bytes(b"age\n\xff\n")
    with pytest.raises(AnabranchError, match="AB-208"):
        read_raw(tmp_path / "latin.csv")
    (tmp_path / "a.xlsx").write_bytes(b"")
    with pytest.raises(AnabranchError, match="AB-209"):
        read_raw(tmp_path / "a.xlsx")
    for name in ("broken.npz", "broken.parquet"):
        (tmp_path / name).write_bytes(b"PK\3\4 nothing")
        with pytest.raises(AnabranchError, match="AB-208"):
            read_raw(tmp_path / name)


def test_a_pickle_inside_npz_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", chol=np.array([{"run": "code"}], object))
    with pytest.raises(AnabranchError, match="AB-208"):
        read_raw(tmp_path / "a.npz")


def test_no_rows(tmp_path: Path) -> None:
    assert refused(tmp_path, HEADER).code == "AB-211"


def test_csv_parquet_and_npz_give_the_same_table(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "a.csv").write_text(HEADER + "200,true,Male,0\n250,false,Female,1\n,,,1\n")
    columns = {
        "chol": [200, 250, None],
        "fbs": [True, False, None],
        "sex": ["Male", "Female", None],
        "num": [0, 1, 1],
    }
    parquet.write_table(arrow.table(columns), tmp_path / "b.parquet")
    np.savez(
        tmp_path / "c.npz",
        chol=np.array([200.0, 250.0, np.nan]),
        fbs=np.array(["true", "false", ""]),
        sex=np.array(["Male", "Female", ""]),
        num=np.array([0, 1, 1]),
    )
    first, *others = [
        read_table(SCHEMA, tmp_path / n, "c") for n in ("a.csv", "b.parquet", "c.npz")
    ]
    for other in others:
        assert np.array_equal(first.y, other.y)
        for name, cells in first.columns.items():
            equal_nan = cells.dtype.kind == "f"
            assert np.array_equal(cells, other.columns[name], equal_nan=equal_nan)


def test_a_site_may_use_its_own_names_units_codes_and_format() -> None:
    mapping = SiteMapping(
        file=FileFormat(delimiter=";", decimal=","),
        columns={
            "chol": ColumnMapping(column="cholesterin", factor=38.67, missing=(-9,)),
            "sex": ColumnMapping(codes={"m": "Male", "w": "Female"}),
        },
    )
    text = "cholesterin;fbs;sex;num\n5,0;ja;m;1\n-9;ja;w;0\n"
    flags = Column(name="fbs", type="flag", codes={"ja": 1, "nein": 0})
    schema = SCHEMA.replace(columns=(SCHEMA.columns[0], flags, SCHEMA.columns[2]))
    raw = parse_csv(text.encode(), "de.csv", mapping.file)
    table, problems = interpret(schema, raw, mapping)
    assert problems == ()
    assert table.columns["chol"][0] == pytest.approx(193.35)
    assert np.isnan(table.columns["chol"][1])
    assert table.columns["fbs"].tolist() == [1, 1]
    assert table.columns["sex"].tolist() == ["Male", "Female"]


def test_whole_codes_may_have_become_fractions() -> None:
    column = Column(name="sex", type="category", codes={"0": 0, "1": 1})
    schema = SCHEMA.replace(columns=(column,))
    assert table_of("sex,num\n1.0,1\n0,0\n", schema).columns["sex"].tolist() == ["1", "0"]


def test_rows_without_a_target_can_be_dropped() -> None:
    schema = SCHEMA.replace(target=Target(column="num", rule="> 0", missing="drop"))
    table = table_of(HEADER + "200,1,Male,\n210,1,Male,3\n", schema)
    assert table.columns["chol"].tolist() == [210]
    assert table.rows.tolist() == [3]


def test_values_outside_can_count_as_missing() -> None:
    columns = (Column(name="chol", range=(50, 800), outside="missing"),)
    table = table_of("chol,num\n9999,1\n", SCHEMA.replace(columns=columns))
    assert np.isnan(table.columns["chol"]).all()


def test_subjects_are_numbered_and_stay_different_between_tables() -> None:
    schema = SCHEMA.replace(subject="who")
    text = "who,chol,fbs,sex,num\nanna,200,1,Female,0\nbert,200,1,Male,0\nanna,210,1,Female,1\n"
    table = table_of(text, schema)
    assert table.subjects[0] == table.subjects[2] != table.subjects[1]
    both = concatenate([table, table])
    assert len(np.unique(both.subjects)) == 4


def test_a_missing_subject_is_refused(tmp_path: Path) -> None:
    schema = SCHEMA.replace(subject="who")
    assert refused(tmp_path, "who,chol,fbs,sex,num\n,200,1,Male,0\n", schema).code == "AB-210"
