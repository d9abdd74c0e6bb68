"""Interpreting cells by the schema: numbers with units, flags, codes, targets, subjects.

Problems are found for whole columns at once and say where (column and row) and what was wanted;
they never say what was found, because that is a value of a person.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anabranch.data.cells import Problem, read_codes, read_flags, read_numbers, texts_of
from anabranch.data.raw import RawTable, read_raw
from anabranch.data.schema import Column, DataSchema
from anabranch.data.site import SiteMapping
from anabranch.errors import AnabranchError

__all__ = ["Table", "concatenate", "interpret", "read_table"]

Cells = NDArray[np.generic]


@dataclass(frozen=True)
class Table:
    """Rows that fit a schema.

    Attributes:
        schema: what the columns mean.
        columns: by contract name; numbers and flags float64 with NaN where missing, categories
            text with "" where missing.
        y: int64 classes, or float32 values for regression; shape (n,).
        subjects: int64 number of the person behind each row; all different without a subject
            column.
        rows: number of each row in its file.
    """

    schema: DataSchema
    columns: Mapping[str, Cells]
    y: Cells
    subjects: NDArray[np.int64]
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.y)

    def take(self, index: NDArray[np.int64] | NDArray[np.bool_] | slice) -> Table:
        """Some of the rows, in the order of ``index``."""
        columns = {name: cells[index] for name, cells in self.columns.items()}
        return Table(self.schema, columns, self.y[index], self.subjects[index], self.rows[index])

    def closed(self, schema: DataSchema) -> Table:
        """The table under a schema whose open codes were learnt; codes too rare become missing."""
        columns = dict(self.columns)
        for column in self.schema.open:
            cells = columns[column.name]
            known = np.isin(cells, np.array(schema.column(column.name).labels, np.str_))
            columns[column.name] = np.where(known, cells, "")
        return replace(self, schema=schema, columns=columns)


def read_table(
    schema: DataSchema, path: Path, client: str, mapping: SiteMapping | None = None
) -> Table:
    """Read one client's file.

    Raises:
        AnabranchError: AB-206 to AB-209 when the file cannot be read, AB-211 when it has no rows,
            AB-212 and AB-214 to AB-218 for the first problem of its columns.
    """
    mapping = mapping or SiteMapping()
    table, problems = interpret(schema, read_raw(path, mapping.file), mapping)
    if problems:
        raise problems[0].error(client)
    if not len(table):
        raise AnabranchError(
            "AB-211",
            f"client {client!r}: file {path.name!r} has no usable rows.",
            fix="give the client data, or leave it out of the federation.",
            kept="Nothing was sent.",
        )
    return table


def interpret(
    schema: DataSchema, raw: RawTable, mapping: SiteMapping | None = None
) -> tuple[Table, tuple[Problem, ...]]:
    """Every column of the contract out of ``raw``, and everything that does not fit.

    A column with problems has missing values where they are, so that a report can go on.
    """
    mapping = mapping or SiteMapping()
    problems: list[Problem] = []
    columns = {
        column.name: _column(schema, column, raw, mapping, problems) for column in schema.columns
    }
    y, usable = _target(schema, raw, mapping, problems)
    table = Table(schema, columns, y, _subjects(schema, raw, mapping, problems), raw.rows)
    return (table if usable.all() else table.take(usable)), tuple(problems)


def _column(
    schema: DataSchema,
    column: Column,
    raw: RawTable,
    mapping: SiteMapping,
    problems: list[Problem],
) -> Cells:
    cells = raw.columns.get(mapping.site_name(column.name))
    if cells is None:
        if not column.optional:
            problems.append(_absent(column, mapping, raw))
        empty = "" if column.type == "category" else np.nan
        return np.full(len(raw), empty)
    read = {"number": read_numbers, "flag": read_flags, "category": read_codes}[column.type]
    values, found = read(column, cells, raw, mapping.of(column.name), schema.markers(column))
    problems.extend(found)
    return values


def _absent(column: Column, mapping: SiteMapping, raw: RawTable) -> Problem:
    fix = "add the column, or name the site's own column for it in site.toml."
    header = next(iter(raw.columns), "")
    other = next((mark for mark in ";\t|" if len(raw.columns) == 1 and mark in header), "")
    if other:
        fix = f"the header is one single column: set [file] delimiter = {other!r} in site.toml."
    site_name = mapping.site_name(column.name)
    called = "" if site_name == column.name else f" (here called {site_name!r})"
    return Problem(
        "AB-212",
        column.name,
        f"is not in the file{called}",
        column.wanted,
        fix=fix,
    )


def _target(
    schema: DataSchema, raw: RawTable, mapping: SiteMapping, problems: list[Problem]
) -> tuple[Cells, NDArray[np.bool_]]:
    target, column = schema.target, schema.target.as_column()
    cells = _column(schema, column, raw, mapping, problems)
    if target.classes:
        lookup = {text: number for number, text in enumerate(target.classes)}
        numbers = np.array([lookup.get(str(cell), -1) for cell in cells.tolist()], np.int64)
        known = numbers >= 0
        y: Cells = numbers
    else:
        values = cells.astype(np.float64)
        known = ~np.isnan(values)
        y = target.decide(values) if target.rule else values.astype(np.float32)
    faulty = any(problem.column == target.column for problem in problems)
    if target.missing == "refuse" and not known.all() and not faulty:
        problems.append(
            Problem.at(
                "AB-216",
                column,
                ~known,
                raw,
                "is missing",
                "drop these rows, or set missing = 'drop' in the schema's target.",
            )
        )
    return y, known


def _subjects(
    schema: DataSchema, raw: RawTable, mapping: SiteMapping, problems: list[Problem]
) -> NDArray[np.int64]:
    if schema.subject is None:
        return np.arange(len(raw), dtype=np.int64)
    column = Column(name=schema.subject, type="category")
    cells = raw.columns.get(mapping.site_name(column.name))
    if cells is None:
        problems.append(_absent(column, mapping, raw))
        return np.arange(len(raw), dtype=np.int64)
    texts = texts_of(cells)
    if (texts == "").any():
        problems.append(
            Problem.at(
                "AB-210",
                column,
                texts == "",
                raw,
                "is missing",
                "say for every row which person it belongs to.",
            )
        )
    return np.unique(texts, return_inverse=True)[1].astype(np.int64)


def concatenate(tables: Sequence[Table]) -> Table:
    """Tables of one schema one after the other; subjects of different tables stay different."""
    schema = tables[0].schema
    columns = {
        name: np.concatenate([table.columns[name] for table in tables])
        for name in tables[0].columns
    }
    largest = [int(table.subjects.max(initial=-1)) + 1 for table in tables]
    starts = np.concatenate([[0], np.cumsum(largest)[:-1]])
    return Table(
        schema,
        columns,
        np.concatenate([table.y for table in tables]),
        np.concatenate(
            [table.subjects + start for table, start in zip(tables, starts, strict=True)]
        ),
        np.concatenate([table.rows for table in tables]),
    )
