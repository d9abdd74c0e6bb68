"""Statistics, vocabularies and preprocessing: equal to the pooled ones, and withheld when small."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anabranch.aggregation import Accumulator, FoldPlan
from anabranch.data import (
    Column,
    DataSchema,
    Preprocessor,
    PreprocessRules,
    Table,
    Target,
    VocabularyRules,
    fit_preprocessor,
    fit_vocabulary,
    local_statistics,
    local_vocabulary,
    statistic_sections,
    vocabulary_sections,
)
from anabranch.data.statistics import wide_sum, withhold_small
from anabranch.errors import AnabranchError
from anabranch.updates import Total

SCHEMA = DataSchema(
    columns=(
        Column(name="age", range=(0, 100)),
        Column(name="flag", type="flag"),
        Column(name="kind", type="category", codes={"a": 0, "b": 1, "c": 2}),
    ),
    target=Target(column="y", rule="> 0"),
)
OPEN = DataSchema(
    columns=(Column(name="ward", type="category"), Column(name="drug", type="category")),
    target=Target(column="y", rule="> 0"),
)


def table(schema: DataSchema, subjects: list[int] | None = None, **columns: object) -> Table:
    cells = {
        name: np.array(value, np.str_ if schema.column(name).type == "category" else np.float64)
        for name, value in columns.items()
    }
    n = len(next(iter(cells.values())))
    people = np.arange(n) if subjects is None else np.array(subjects)
    return Table(schema, cells, np.zeros(n, np.int64), people, np.arange(n))


def total_of(schema: DataSchema, tables: list[Table]) -> Total:
    fold = Accumulator(FoldPlan(statistic_sections(schema), len(tables)))
    for number, part in enumerate(tables):
        fold.add(local_statistics(schema, part), f"client {number}")
    return fold.total()


def vocabulary_of(
    tables: list[Table], rules: VocabularyRules, schema: DataSchema = OPEN
) -> dict[str, tuple[str, ...]]:
    fold = Accumulator(FoldPlan(vocabulary_sections(schema, rules), len(tables)))
    for number, part in enumerate(tables):
        fold.add(local_vocabulary(part, rules, f"client {number}"), f"client {number}")
    return dict(fit_vocabulary(schema, fold.total(), rules))


NAN = float("nan")
FIRST = table(SCHEMA, age=[10, 20, NAN], flag=[1, 1, NAN], kind=["a", "b", ""])
SECOND = table(SCHEMA, age=[60], flag=[0], kind=["b"])
ONE = PreprocessRules(min_count=1)


def test_the_preprocessor_by_hand() -> None:
    fitted = fit_preprocessor(SCHEMA, total_of(SCHEMA, [FIRST, SECOND]), ONE)
    deviation = np.sqrt((100 + 400 + 3600) / 3 - 30**2)
    assert fitted.features == (
        "age",
        "flag",
        "kind=a",
        "kind=b",
        "kind=c",
        "age is missing",
        "flag is missing",
        "kind is missing",
    )
    wanted = [
        [-20 / deviation, 1, 1, 0, 0, 0, 0, 0],
        [-10 / deviation, 1, 0, 1, 0, 0, 0, 0],
        [0, 1, 0, 1, 0, 1, 1, 1],  # mean, more frequent flag and code, indicators
    ]
    assert fitted.apply(FIRST).x == pytest.approx(np.array(wanted), rel=1e-6)
    assert fitted.apply(FIRST).x.dtype == np.float32
    assert fitted.withheld == ()


@settings(max_examples=50, deadline=None)
@given(
    values=st.lists(st.floats(-1e9, 1e9, width=32), min_size=2, max_size=40),
    cuts=st.integers(1, 6),
)
def test_any_division_gives_the_same_sums(values: list[float], cuts: int) -> None:
    schema = SCHEMA.replace(columns=(Column(name="age"),))
    parts = [p for p in np.array_split(np.array(values), cuts) if len(p)]
    tables = [table(schema, age=part) for part in parts]
    total = total_of(schema, tables)
    again = total_of(schema, tables[::-1])
    assert total.sums["rows"] == len(values)
    for name, exact in (("sum", np.array(values)), ("squares", np.square(values))):
        assert wide_sum(total, name)[0] == wide_sum(again, name)[0]
        slack = 1e-12 * max(float(np.abs(exact).sum()), 1.0)
        assert wide_sum(total, name)[0] == pytest.approx(exact.sum(), abs=slack)


@pytest.mark.parametrize("scale", [1e-5, 1.0, 1e8])
def test_units_do_not_matter(scale: float) -> None:
    schema = SCHEMA.replace(columns=(Column(name="age"),))
    values = np.random.default_rng(0).normal(3, 1, 400) * scale
    tables = [table(schema, age=part) for part in np.array_split(values, 4)]
    fitted = fit_preprocessor(schema, total_of(schema, tables), ONE)
    x = np.concatenate([fitted.apply(part).x for part in tables])
    assert x.mean() == pytest.approx(0, abs=1e-4)
    assert x.std() == pytest.approx(1, abs=1e-3)


def test_small_statistics_are_withheld_and_named() -> None:
    total = total_of(SCHEMA, [FIRST, SECOND])
    fitted = fit_preprocessor(SCHEMA, total, PreprocessRules(min_count=4))
    assert fitted.withheld == ("age", "flag", "kind")
    x = fitted.apply(FIRST).x
    # Neutral defaults from the contract's range: centre 50, quarter width 25; no fill at all.
    assert x.tolist() == [
        [-1.600000023841858, 1, 1, 0, 0],
        [-1.2000000476837158, 1, 0, 1, 0],
        [0, 0, 0, 0, 0],
    ]


@pytest.mark.parametrize("min_count", [1, 2, 3, 4])
def test_withheld_sums_are_gone_and_change_nothing(min_count: int) -> None:
    total = total_of(SCHEMA, [FIRST, SECOND])
    released = withhold_small(SCHEMA, total, min_count)
    rules = PreprocessRules(min_count=min_count)
    assert fit_preprocessor(SCHEMA, released, rules) == fit_preprocessor(SCHEMA, total, rules)
    for name in ("known_subjects", "unknown_subjects", "code_subjects"):
        assert all(value == 0 or value >= min_count for value in released.sums[name])
    assert bool(wide_sum(released, "sum").any()) == (min_count <= 3)


def test_minimum_counts_are_of_subjects_not_of_rows() -> None:
    schema = SCHEMA.replace(columns=(Column(name="age"),), subject="who")
    twenty_rows_of_two = table(schema, [0, 1] * 10, age=list(range(20)))
    total = total_of(schema, [twenty_rows_of_two])
    assert fit_preprocessor(schema, total, PreprocessRules(min_count=3)).withheld == ("age",)
    assert fit_preprocessor(schema, total, PreprocessRules(min_count=2)).withheld == ()


def test_no_section_holds_an_extreme() -> None:
    base = total_of(SCHEMA, [FIRST])
    names = {section.name for section in base.sections}
    assert not any("min" in name or "max" in name for name in names)


def test_constant_columns_are_not_blown_up() -> None:
    schema = SCHEMA.replace(columns=(Column(name="age"),))
    part = table(schema, age=[0.1] * 30)
    x = fit_preprocessor(schema, total_of(schema, [part]), ONE).apply(part).x
    assert np.abs(x).max() < 1e-6


def test_a_preprocessor_survives_json() -> None:
    fitted = fit_preprocessor(SCHEMA, total_of(SCHEMA, [FIRST, SECOND]), ONE)
    again = Preprocessor.model_validate_json(fitted.model_dump_json())
    assert again == fitted
    assert np.array_equal(again.apply(FIRST).x, fitted.apply(FIRST).x)


def test_codes_need_enough_subjects_at_enough_sites() -> None:
    rules = VocabularyRules(min_subjects=2, min_sites=2)
    tables = [
        table(OPEN, ward=["x", "x", "y", "z", "z"], drug=["é"] * 5),
        table(OPEN, ward=["x", "x", "y", "y", "q"], drug=["é"] * 5),
        table(OPEN, ward=["y", "y", "z", "q", ""], drug=["only here"] * 5),
    ]
    # x: sites 1 and 2; y: sites 2 and 3; z: twice at site 1 only; q: never twice.
    assert vocabulary_of(tables, rules) == {"ward": ("x", "y"), "drug": ("é",)}


def test_one_subject_with_many_rows_proposes_nothing() -> None:
    schema = OPEN.replace(subject="who")
    rules = VocabularyRules(min_subjects=2, min_sites=1)
    part = table(schema, [0] * 9, ward=["x"] * 9, drug=["d"] * 9)
    assert vocabulary_of([part], rules, schema) == {"ward": (), "drug": ()}


@settings(max_examples=20, deadline=None)
@given(
    sites=st.lists(
        st.sets(
            st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12),
            max_size=40,
        ),
        min_size=1,
        max_size=5,
    )
)
def test_the_lookup_table_finds_every_code(sites: list[set[str]]) -> None:
    rules = VocabularyRules(min_subjects=1, min_sites=1, max_codes=256)
    tables = [table(OPEN, ward=sorted(codes), drug=[""] * len(codes)) for codes in sites if codes]
    if not tables:
        return
    carried = {str(cell) for part in tables for cell in part.columns["ward"]} - {""}
    assert vocabulary_of(tables, rules)["ward"] == tuple(sorted(carried))


def test_the_lookup_table_is_read_up_to_its_promised_size() -> None:
    rules = VocabularyRules(min_subjects=1, min_sites=1, max_codes=512)
    for trial in range(20):
        codes = [f"code {trial} {number}" for number in range(512)]
        part = table(OPEN, ward=codes, drug=[""] * 512)
        assert len(vocabulary_of([part], rules)["ward"]) == 512


def test_too_many_and_too_long_codes_are_ab_224() -> None:
    rules = VocabularyRules(min_subjects=1, min_sites=1, max_codes=8)
    many = table(OPEN, ward=[f"code {n}" for n in range(200)], drug=[""] * 200)
    with pytest.raises(AnabranchError, match="AB-224"):
        vocabulary_of([many], rules)
    long = table(OPEN, ward=["x" * 49], drug=[""])
    with pytest.raises(AnabranchError, match="AB-224"):
        local_vocabulary(long, rules, "va")


def test_rare_codes_become_missing_in_the_closed_table() -> None:
    part = table(OPEN, ward=["x", "rare", ""], drug=["d", "d", "d"])
    closed = part.closed(OPEN.with_codes({"ward": ("x",), "drug": ("d",)}))
    assert closed.columns["ward"].tolist() == ["x", "", ""]
    assert closed.schema.open == ()


def test_a_column_without_learnt_codes_gives_no_features() -> None:
    part = table(OPEN, ward=["x"], drug=["d"])
    closed = part.closed(OPEN.with_codes({"ward": (), "drug": ("d",)}))
    fitted = fit_preprocessor(closed.schema, total_of(closed.schema, [closed]), ONE)
    assert fitted.features == ("drug=d", "ward is missing")
