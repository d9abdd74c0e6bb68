r"""Column statistics that one unit of privacy can move by a known amount, and what is made of them.

Every row becomes one vector v of coordinates that the contract alone bounds. With half the width h
and the middle m of a column's range, s = (x - m) / h cut to [-1, 1]:

- one coordinate that is 1 in every row: their sum is the number of units;
- a number: (0, s, 2 s^2 - 1), or (1, 0, 0) where the cell is missing: |.|^2 <= 2;
- a flag: (0, +1 or -1), or (1, 0): |.|^2 = 1;
- a category: one coordinate for each code and one for "missing": |.|^2 = 1.

A unit with several rows counts with their mean, which is no longer. So the sum over units moves by
at most ``bound(schema)`` when one unit is there or not, whatever is in its cells; noise in
proportion to it makes the sum a release (`anabranch.privacy.mechanisms.BoundedSums`).

What is noisy is not believed more than it deserves: the mean of a column is shrunk towards the
middle of its range and its variance towards that of a quarter of the range, by the ratio of what
such columns vary to what the noise varies.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anabranch.data.preprocess import (
    CategoryStep,
    FlagStep,
    NumberStep,
    Preprocessor,
    PreprocessRules,
)
from anabranch.data.schema import Column, DataSchema
from anabranch.data.table import Table
from anabranch.errors import AnabranchError

__all__ = [
    "NoisyStatistics",
    "bound",
    "bounded_rows",
    "fit_noisy",
    "length",
    "neutral",
    "require_bounds",
    "unit_means",
]

Rows = NDArray[np.float64]

_MEAN_SPREAD = 0.25
"""How far means of columns lie from the middle of their range, in half ranges: the prior."""

_PRIOR_VARIANCE, _VARIANCE_SPREAD = 0.25, 0.15
"""A column's variance, in squared half ranges, before anything is known, and how it varies."""

_LEAST_VARIANCE = 0.0025
"""A standard deviation of a twentieth of half the range."""

_SURE = 3.0
"""Standard deviations above which a count is not the noise's."""


def require_bounds(schema: DataSchema) -> None:
    """Refuse columns that only the data could bound.

    Raises:
        AnabranchError: AB-989 a number without a range, or a category without codes.
    """
    wanting = [c.name for c in schema.columns if c.type == "number" and c.range is None]
    what = "no range" if wanting else "no codes"
    wanting = wanting or [column.name for column in schema.open]
    if wanting:
        raise AnabranchError(
            "AB-989",
            f"columns {', '.join(map(repr, wanting))} have {what} in the contract, so that no "
            "noise can cover what one cell does to their statistics.",
            fix="state ranges of numbers and codes of categories in the schema (from what is "
            "published, not from the data), or leave these columns out.",
            kept="Nothing was computed and nothing was sent.",
        )


def bound(schema: DataSchema) -> float:
    """The largest norm of a row's vector.

    >>> age = Column(name="age", range=(0, 100))
    >>> largest = bound(DataSchema(columns=(age,), target={"column": "ill", "rule": "> 0"}))
    >>> round(largest**2, 9)
    3.0
    """
    return math.sqrt(1 + sum(2 if c.type == "number" else 1 for c in schema.columns))


def length(schema: DataSchema) -> int:
    """Coordinates of a row's vector."""
    return 1 + sum(_width(column) for column in schema.columns)


def bounded_rows(table: Table) -> Rows:
    """One vector a row, shape (rows, length); the schema is the table's.

    Raises:
        AnabranchError: AB-989 as `require_bounds`.
    """
    require_bounds(table.schema)
    blocks = [np.ones((len(table), 1))]
    blocks += [_block(column, table.columns[column.name]) for column in table.schema.columns]
    return np.concatenate(blocks, axis=1)


def unit_means(rows: Rows, units: NDArray[np.int64] | None, most: int = 1) -> Rows:
    """One vector a unit: the mean of at most its first ``most`` rows.

    Args:
        rows: vectors, shape (rows, length).
        units: unit of each row; None when every row is one.
        most: rows of a unit that count, in the table's order.
    """
    if units is None or not len(rows):
        return rows
    order = np.argsort(units, kind="stable")
    first = np.flatnonzero(np.r_[True, np.diff(units[order]) != 0])
    place = np.arange(len(order)) - np.repeat(first, np.diff(np.r_[first, len(order)]))
    kept = order[place < most]
    starts = np.flatnonzero(np.r_[True, np.diff(units[kept]) != 0])
    counts = np.diff(np.r_[starts, len(kept)])
    return np.asarray(np.add.reduceat(rows[kept], starts, axis=0) / counts[:, None])


@dataclass(frozen=True)
class NoisyStatistics:
    """What was released.

    Attributes:
        sums: over all units, shape (length,).
        deviation: standard deviation of the noise in each of them.
    """

    sums: Rows
    deviation: float

    @property
    def units(self) -> float:
        """How many there are, by the noisy count; at least one."""
        return max(1.0, float(self.sums[0]))


def neutral(schema: DataSchema, rules: PreprocessRules) -> Preprocessor:
    """What the contract alone says: used until statistics are there, to know shapes roughly."""
    require_bounds(schema)
    nothing = NoisyStatistics(np.zeros(length(schema)), math.inf)
    return fit_noisy(schema, nothing, rules)


def fit_noisy(schema: DataSchema, found: NoisyStatistics, rules: PreprocessRules) -> Preprocessor:
    """The preprocessor from noisy sums; it knows nothing but these and the contract.

    A column counts as withheld when it is known of too few units to say anything; a second feature
    says "missing" where more cells are missing than the noise could make.
    """
    steps: list[NumberStep | FlagStep | CategoryStep] = []
    withheld: list[str] = []
    for column, values in _split(schema, found.sums):
        unknown = float(values[-1] if column.type == "category" else values[0])
        known = found.units - unknown
        sure = known >= max(rules.min_count, _SURE * found.deviation)
        missing = unknown >= max(rules.min_count, _SURE * found.deviation)
        indicator = rules.indicators and (missing or not math.isfinite(found.deviation))
        if not sure:
            withheld.append(column.name)
        if column.type == "number":
            steps.append(_number(column, values, known if sure else 0.0, found, indicator))
        elif column.type == "flag":
            fill = int(sure and float(values[1]) > 0)
            steps.append(FlagStep(column=column.name, fill=fill, indicator=indicator))
        else:
            steps.append(_category(column, values[:-1], rules, found, indicator))
    return Preprocessor(steps=tuple(steps), withheld=tuple(withheld))


def _number(
    column: Column, values: Rows, known: float, found: NoisyStatistics, indicator: bool
) -> NumberStep:
    middle, half = _scale(column)
    mean, variance = 0.0, _PRIOR_VARIANCE
    if known > 0:
        error = found.deviation / known
        believed = _MEAN_SPREAD**2 / (_MEAN_SPREAD**2 + error**2)
        seen = min(max(float(values[1]) / known, -1.0), 1.0)
        mean = believed * seen
        square = min(max((float(values[2]) / known + 1) / 2, 0.0), 1.0)
        # Of (t + 1) / 2 - m^2, with independent noise in t and m.
        spread = error * math.sqrt(0.25 + 4 * seen**2)
        believed = _VARIANCE_SPREAD**2 / (_VARIANCE_SPREAD**2 + spread**2)
        variance = believed * (square - seen**2) + (1 - believed) * _PRIOR_VARIANCE
    deviation = half * math.sqrt(max(variance, _LEAST_VARIANCE))
    return NumberStep(
        column=column.name, mean=middle + half * mean, scale=deviation, indicator=indicator
    )


def _category(
    column: Column, counts: Rows, rules: PreprocessRules, found: NoisyStatistics, indicator: bool
) -> CategoryStep:
    labels, fill = column.labels, ""
    if float(counts.max()) >= max(rules.min_count, _SURE * found.deviation):
        fill = labels[int(np.argmax(counts))]
    return CategoryStep(column=column.name, labels=labels, fill=fill, indicator=indicator)


def _split(schema: DataSchema, sums: Rows) -> Iterator[tuple[Column, Rows]]:
    start = 1
    for column in schema.columns:
        yield column, sums[start : start + _width(column)]
        start += _width(column)


def _width(column: Column) -> int:
    return {"number": 3, "flag": 2, "category": len(column.labels) + 1}[column.type]


def _scale(column: Column) -> tuple[float, float]:
    """Middle and half width of the contract's range."""
    assert column.range is not None  # `require_bounds`
    low, high = column.range
    return (low + high) / 2, (high - low) / 2


def _block(column: Column, cells: NDArray[np.generic]) -> Rows:
    if column.type == "category":
        marks = [cells == label for label in column.labels]
        return np.stack([*marks, ~np.any(marks, axis=0)], axis=1).astype(np.float64)
    x = cells.astype(np.float64)
    unknown = ~np.isfinite(x)
    if column.type == "flag":
        value = np.where(unknown, 0.0, np.where(x > 0.5, 1.0, -1.0))
        return np.stack([unknown.astype(np.float64), value], axis=1)
    middle, half = _scale(column)
    s = np.where(unknown, 0.0, np.clip((x - middle) / half, -1.0, 1.0))
    square = np.where(unknown, 0.0, 2 * s * s - 1)
    return np.stack([unknown.astype(np.float64), s, square], axis=1)
