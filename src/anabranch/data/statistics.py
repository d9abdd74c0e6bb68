"""What a client tells about its columns: sums that add up, declared before anything is computed.

No extremes, no values, no lists: for each column how many cells are known, from how many subjects,
their sum and the sum of their squares; for each code of the contract how many rows and subjects
carry it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from anabranch.data.schema import Column, DataSchema
from anabranch.data.table import Table
from anabranch.updates.sections import Kind, Section, Sections, Statistics, Update, Weighting
from anabranch.updates.total import Total

__all__ = [
    "code_places",
    "local_statistics",
    "statistic_sections",
    "wide_sum",
    "withhold_small",
]

_QUANTA = (2.0**24, 2.0**-8, 2.0**-40)
"""A sum travels as three parts on quanta 2^32 apart. Each part stays in the fold's exact range for
up to 2^20 clients, so columns in any unit (10^-6 or 10^8) add up without loss."""


def statistic_sections(schema: DataSchema) -> Sections:
    """The sections of one client's statistics; those of length 0 are left out."""
    columns, numbers = len(schema.columns), len(schema.numbers) + len(schema.flags)
    codes = sum(len(column.labels) for column in schema.categories)
    counts = {
        "rows": 1,
        "subjects": 1,
        "known_rows": columns,
        "known_subjects": columns,
        "unknown_subjects": columns,
        "code_rows": codes,
        "code_subjects": codes,
    }
    sections = [Section.count(name, length) for name, length in counts.items() if length]
    for name in ("sum", "squares") if numbers else ():
        sections += [
            Section(f"{name}_{part}", numbers, Kind.STATISTIC, Weighting.UNIFORM, quantum=quantum)
            for part, quantum in enumerate(_QUANTA)
        ]
    return Sections(tuple(sections))


def local_statistics(schema: DataSchema, table: Table) -> Update:
    """One client's statistics over ``table``, in the sections of `statistic_sections`."""
    columns = [table.columns[column.name] for column in schema.columns]
    known = [_known(column, cells) for column, cells in zip(schema.columns, columns, strict=True)]
    measured = _measured(schema)
    values = [np.nan_to_num(table.columns[column.name].astype(np.float64)) for column in measured]
    parts = {
        "rows": [float(len(table))],
        "subjects": [_subjects(table, np.ones(len(table), np.bool_))],
        "known_rows": [float(mask.sum()) for mask in known],
        "known_subjects": [_subjects(table, mask) for mask in known],
        "unknown_subjects": [_subjects(table, ~mask) for mask in known],
        **_code_counts(schema, table),
        **_split("sum", [float(v.sum()) for v in values]),
        **_split("squares", [float((v * v).sum()) for v in values]),
    }
    sections = statistic_sections(schema)
    return Update(
        {s.name: np.asarray(parts[s.name], np.float64) for s in sections.vectors},
        {s.name: float(parts[s.name][0]) for s in sections.scalars},
    )


def wide_sum(total: Total, name: str) -> Statistics:
    """The sum of ``sum`` or ``squares`` over all clients, put together from its parts."""
    return total.sums[f"{name}_0"] + total.sums[f"{name}_1"] + total.sums[f"{name}_2"]


def withhold_small(schema: DataSchema, total: Total, min_count: int) -> Total:
    """The total with 0 wherever fewer than ``min_count`` subjects contribute.

    This is primary suppression: the number of rows minus a large count may still tell a small one.
    A preprocessor fitted on the result is the one fitted on ``total``.
    """
    sums = {name: values.copy() for name, values in total.sums.items()}
    few = sums["known_subjects"] < min_count
    sums["known_rows"][few] = sums["known_subjects"][few] = 0.0
    sums["unknown_subjects"][sums["unknown_subjects"] < min_count] = 0.0
    if "code_rows" in sums:
        rare = sums["code_subjects"] < min_count
        sums["code_rows"][rare] = sums["code_subjects"][rare] = 0.0
    measured = [place for place, c in enumerate(schema.columns) if c.type != "category"]
    for name in sums:
        if name.startswith(("sum_", "squares_")):
            sums[name][few[measured]] = 0.0
    return Total(total.sections, sums, total.contributors)


def code_places(schema: DataSchema) -> dict[str, slice]:
    """Where the codes of each category stand in ``code_rows`` and ``code_subjects``."""
    places, start = {}, 0
    for column in schema.categories:
        places[column.name] = slice(start, start + len(column.labels))
        start += len(column.labels)
    return places


def _measured(schema: DataSchema) -> tuple[Column, ...]:
    return tuple(column for column in schema.columns if column.type != "category")


def _known(column: Column, cells: NDArray[np.generic]) -> NDArray[np.bool_]:
    return cells != "" if column.type == "category" else ~np.isnan(cells.astype(np.float64))


def _subjects(table: Table, rows: NDArray[np.bool_]) -> float:
    if table.schema.subject is None:
        return float(rows.sum())
    return float(len(np.unique(table.subjects[rows])))


def _code_counts(schema: DataSchema, table: Table) -> dict[str, list[float]]:
    rows: list[float] = []
    subjects: list[float] = []
    for column in schema.categories:
        for label in column.labels:
            carried = table.columns[column.name] == label
            rows.append(float(carried.sum()))
            subjects.append(_subjects(table, carried))
    return {"code_rows": rows, "code_subjects": subjects}


def _split(name: str, sums: Sequence[float]) -> dict[str, list[float]]:
    rest = np.asarray(sums, np.float64)
    parts: dict[str, list[float]] = {}
    for number, quantum in enumerate(_QUANTA):
        part = np.rint(rest / quantum) * quantum
        parts[f"{name}_{number}"] = part.tolist()
        rest = rest - part
    return parts
