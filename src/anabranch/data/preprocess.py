"""From a table to features: imputation, scaling, indicators, all from summed statistics.

The preprocessor is fitted on the total over all sites and is the same at every site. What fewer
than ``min_count`` subjects contribute to is withheld: the column gets a neutral default and is
named in ``withheld``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from anabranch.data.federation import Examples
from anabranch.data.schema import Column, DataSchema
from anabranch.data.statistics import code_places, wide_sum
from anabranch.data.table import Table
from anabranch.data.vocabulary import VocabularyRules
from anabranch.updates.sections import Statistics
from anabranch.updates.total import Total
from anabranch.values import Value

__all__ = [
    "CategoryStep",
    "FlagStep",
    "NumberStep",
    "PreprocessRules",
    "Preprocessor",
    "StatisticRelease",
    "fit_preprocessor",
]

Features = NDArray[np.float32]


class PreprocessRules(Value):
    """What may be learnt from the sites, and what is made of it."""

    min_count: int = Field(default=10, ge=1, json_schema_extra={"unit": "subjects"})
    """Subjects that must contribute to a statistic before it is used."""
    indicators: bool = True
    """Whether a column with missing cells gets a second feature that says so."""
    vocabulary: VocabularyRules = VocabularyRules()
    """How codes that the contract does not list are learnt."""


@dataclass(frozen=True)
class StatisticRelease:
    """A total of statistics that leaves the sites; the caller passes it through the release door.

    Attributes:
        name: what it is for.
        total: the sums.
        withheld: what was not used because too few subjects contributed.
        mechanism: the noise in it, in words; empty where there is none.
    """

    name: str
    total: Total
    withheld: tuple[str, ...] = ()
    mechanism: str = ""

    @property
    def description(self) -> str:
        """One sentence for people."""
        size = self.total.sections.size
        kept = f"; withheld: {', '.join(self.withheld)}" if self.withheld else ""
        return f"{self.name}: {size} sums over {self.total.contributors} clients{kept}"


class NumberStep(Value):
    """(value - mean) / scale; missing becomes 0."""

    kind: Literal["number"] = "number"
    column: str
    """Name in the contract."""
    mean: float
    """Subtracted; also what a missing cell is taken for."""
    scale: float = Field(gt=0)
    """Divided by: the standard deviation over all sites."""
    indicator: bool
    """Whether a second feature says "missing"."""

    @property
    def features(self) -> tuple[str, ...]:
        return (self.column,)

    def encode(self, cells: NDArray[np.generic]) -> Features:
        """Features of the column, shape (n, 1)."""
        scaled = (cells.astype(np.float64) - self.mean) / self.scale
        return np.nan_to_num(scaled, nan=0.0).astype(np.float32)[:, None]

    def missing(self, cells: NDArray[np.generic]) -> NDArray[np.bool_]:
        return np.isnan(cells.astype(np.float64))


class FlagStep(Value):
    """0 or 1; missing becomes the more frequent one."""

    kind: Literal["flag"] = "flag"
    column: str
    """Name in the contract."""
    fill: int = Field(ge=0, le=1)
    """What a missing cell is taken for."""
    indicator: bool
    """Whether a second feature says "missing"."""

    @property
    def features(self) -> tuple[str, ...]:
        return (self.column,)

    def encode(self, cells: NDArray[np.generic]) -> Features:
        """Features of the column, shape (n, 1)."""
        filled = np.nan_to_num(cells.astype(np.float64), nan=float(self.fill))
        return filled.astype(np.float32)[:, None]

    def missing(self, cells: NDArray[np.generic]) -> NDArray[np.bool_]:
        return np.isnan(cells.astype(np.float64))


class CategoryStep(Value):
    """One feature for each code; missing becomes the most frequent code.

    A code that is not in the vocabulary has 0 in every feature.
    """

    kind: Literal["category"] = "category"
    column: str
    """Name in the contract."""
    labels: tuple[str, ...]
    """The vocabulary, in the order of the features."""
    fill: str
    """The code that a missing cell is taken for; empty for none."""
    indicator: bool
    """Whether a further feature says "missing"."""

    @property
    def features(self) -> tuple[str, ...]:
        return tuple(f"{self.column}={label}" for label in self.labels)

    def encode(self, cells: NDArray[np.generic]) -> Features:
        """Features of the column, shape (n, codes)."""
        filled = np.where(cells == "", self.fill, cells)
        carried = filled[:, None] == np.array(self.labels, np.str_)[None, :]
        return np.asarray(carried, np.float32)

    def missing(self, cells: NDArray[np.generic]) -> NDArray[np.bool_]:
        return np.asarray(cells == "", np.bool_)


Step = Annotated[NumberStep | FlagStep | CategoryStep, Field(discriminator="kind")]


class Preprocessor(Value):
    """Turns tables of one schema into features; equal at every site, stored with the model."""

    steps: tuple[Step, ...]
    """One for each column of the schema, in its order."""
    withheld: tuple[str, ...] = ()
    """Columns with a neutral default because too few subjects contributed."""

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features: those of the columns first, then the indicators."""
        names = [name for step in self.steps for name in step.features]
        return (*names, *(f"{step.column} is missing" for step in self.steps if step.indicator))

    def apply(self, table: Table) -> Examples:
        """Features, shape (n, len(features)) float32, and targets."""
        blocks = [step.encode(table.columns[step.column]) for step in self.steps]
        blocks += [
            step.missing(table.columns[step.column]).astype(np.float32)[:, None]
            for step in self.steps
            if step.indicator
        ]
        return Examples(np.ascontiguousarray(np.concatenate(blocks, axis=1)), table.y)


def fit_preprocessor(schema: DataSchema, total: Total, rules: PreprocessRules) -> Preprocessor:
    """The preprocessor from the statistics of all sites.

    Args:
        schema: with the codes that the statistics were counted by.
        total: the folded updates of `local_statistics`.
        rules: minimum counts and whether to add indicators.
    """
    known = total.sums["known_subjects"]
    unknown = total.sums["unknown_subjects"]
    steps: list[NumberStep | FlagStep | CategoryStep] = []
    withheld: list[str] = []
    for place, column in enumerate(schema.columns):
        enough = bool(known[place] >= rules.min_count)
        if not enough:
            withheld.append(column.name)
        indicator = rules.indicators and bool(unknown[place] >= rules.min_count)
        if column.type == "category":
            steps.append(_category(schema, column, total, rules, indicator))
        else:
            steps.append(_measured(schema, column, place, total, enough, indicator))
    return Preprocessor(steps=tuple(steps), withheld=tuple(withheld))


def _measured(
    schema: DataSchema, column: Column, place: int, total: Total, enough: bool, indicator: bool
) -> NumberStep | FlagStep:
    mean, scale = _neutral(column)
    if enough:
        number = [c.name for c in schema.columns if c.type != "category"].index(column.name)
        mean, scale = _moments(
            wide_sum(total, "sum"),
            wide_sum(total, "squares"),
            number,
            float(total.sums["known_rows"][place]),
        )
    if column.type == "flag":
        return FlagStep(column=column.name, fill=int(enough and mean > 0.5), indicator=indicator)
    return NumberStep(column=column.name, mean=mean, scale=scale, indicator=indicator)


def _moments(
    sums: Statistics, squares: Statistics, number: int, count: float
) -> tuple[float, float]:
    mean = float(sums[number]) / count
    variance = max(float(squares[number]) / count - mean * mean, 0.0)
    # A constant column leaves rounding noise of the order of mean^2 * 1e-16: no scale at all.
    constant = variance <= 1e-12 * mean * mean or variance == 0.0
    return mean, 1.0 if constant else math.sqrt(variance)


def _neutral(column: Column) -> tuple[float, float]:
    """Centre and quarter width of the contract's range: knows nothing about anybody."""
    if column.range is None:
        return 0.0, 1.0
    low, high = column.range
    return (low + high) / 2, (high - low) / 4


def _category(
    schema: DataSchema, column: Column, total: Total, rules: PreprocessRules, indicator: bool
) -> CategoryStep:
    labels = column.labels
    fill = ""
    if labels:
        place = code_places(schema)[column.name]
        rows, subjects = total.sums["code_rows"][place], total.sums["code_subjects"][place]
        counted = np.where(subjects >= rules.min_count, rows, 0.0)
        fill = labels[int(np.argmax(counted))] if counted.any() else ""
    return CategoryStep(column=column.name, labels=labels, fill=fill, indicator=indicator)
