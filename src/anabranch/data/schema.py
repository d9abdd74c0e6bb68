"""The data schema: which columns a federation learns from, and what their cells mean.

The schema is part of the plan's contract: equal for all sites, digested and signed. A site whose
files look different maps them in its own ``site.toml`` (`anabranch.data.site`).
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from anabranch.values import Value

__all__ = ["FLAG_CODES", "MISSING_MARKERS", "Column", "DataSchema", "Marker", "Target"]

Marker: TypeAlias = float | str
"""A cell that stands for "not known": a text, or a number such as 0 or -9."""

MISSING_MARKERS: tuple[Marker, ...] = ("", "?", "NA", "N/A", "NaN", "nan", "null", "None")
FLAG_CODES: Mapping[str, int] = {
    **dict.fromkeys(("true", "t", "yes", "y", "1"), 1),
    **dict.fromkeys(("false", "f", "no", "n", "0"), 0),
}
"""How flags may be written, in any case of letters, when a column lists no codes."""

_RULE = re.compile(r"^\s*(>=|<=|==|!=|>|<)\s*(-?\d+(?:\.\d+)?)\s*$")
_COMPARE: dict[str, Callable[[NDArray[np.float64], float], NDArray[np.bool_]]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}


class Column(Value):
    """One input column.

    >>> Column(name="chol", unit="mg/dl", missing=(0,)).wanted
    'number, mg/dl'
    """

    name: str = Field(min_length=1)
    """Name in the contract."""
    type: Literal["number", "category", "flag"] = "number"
    """What the cells are: a measurement, one of several codes, or yes/no."""
    unit: str = ""
    """Unit of a number, as it is written in messages and reports."""
    range: tuple[float, float] | None = None
    """Smallest and largest plausible number, in ``unit``, both included."""
    outside: Literal["refuse", "missing"] = "refuse"
    """What a number outside ``range`` is: an error, or a missing value."""
    codes: dict[str, int] = Field(default_factory=dict)
    """What is written in a cell, and its number (two spellings may share one). Empty for a
    category: the codes are learnt from federated statistics."""
    unknown: Literal["refuse", "missing"] = "refuse"
    """What a code outside ``codes`` is: an error, or a missing value."""
    missing: tuple[Marker, ...] = ()
    """Further cells that mean "not known", besides the schema's own markers."""
    optional: bool = False
    """Whether a site may lack the column; it then counts as missing in all its rows."""

    @model_validator(mode="after")
    def _codes_fit(self) -> Column:
        if self.type == "number" and self.codes:
            raise ValueError(f"column {self.name!r}: numbers have no codes; use type 'category'")
        if self.type == "flag" and self.codes and set(self.codes.values()) != {0, 1}:
            raise ValueError(f"column {self.name!r}: the codes of a flag are 0 and 1")
        if self.range is not None and self.range[0] >= self.range[1]:
            raise ValueError(f"column {self.name!r}: range needs a smaller and a larger number")
        return self

    @property
    def labels(self) -> tuple[str, ...]:
        """The distinct codes of a category by number; the first spelling names each."""
        first: dict[int, str] = {}
        for text, number in self.codes.items():
            first.setdefault(number, text)
        return tuple(first[number] for number in sorted(first))

    @property
    def open(self) -> bool:
        """Whether the codes are still to be learnt from federated statistics."""
        return self.type == "category" and not self.codes

    @property
    def wanted(self) -> str:
        """What a cell should be, for messages."""
        if self.type == "number":
            return f"number, {self.unit}" if self.unit else "number"
        if self.type == "flag":
            return "flag: " + " or ".join(self.codes or ("true", "false"))
        return "one of the contract's codes" if self.codes else "category"


class Target(Value):
    """What is predicted.

    With ``rule`` the target is yes/no (``num > 0``); with ``classes`` it is one of several texts;
    otherwise it is a number.
    """

    column: str = Field(min_length=1)
    """Name of the target column in the contract."""
    rule: str = ""
    """A comparison with a number, such as ``> 0``: true is class 1, false class 0."""
    classes: tuple[str, ...] = ()
    """Cells of a classification target, in the order of class numbers."""
    unit: str = ""
    """Unit of a numeric target."""
    range: tuple[float, float] | None = None
    """Smallest and largest plausible number, both included."""
    missing: Literal["refuse", "drop"] = "refuse"
    """What happens to rows without a target."""

    @field_validator("rule")
    @classmethod
    def _rule_reads(cls, rule: str) -> str:
        if rule and not _RULE.match(rule):
            raise ValueError(f"rule {rule!r} is not a comparison with a number, such as '> 0'")
        return rule

    @model_validator(mode="after")
    def _one_meaning(self) -> Target:
        if self.rule and self.classes:
            raise ValueError("give a rule or classes, not both")
        if len(self.classes) == 1 or len(set(self.classes)) != len(self.classes):
            raise ValueError("classes need at least two different texts")
        return self

    @property
    def count(self) -> int:
        """Number of classes; 0 for regression."""
        return 2 if self.rule else len(self.classes)

    def decide(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        """Apply the rule to numbers of any shape.

        >>> Target(column="num", rule="> 0").decide(np.array([0.0, 3.0])).tolist()
        [0, 1]
        """
        match = _RULE.match(self.rule)
        if match is None:
            raise ValueError("the target has no rule")
        return _COMPARE[match[1]](values, float(match[2])).astype(np.int64)

    def as_column(self) -> Column:
        """The target as a column, so that cells are read by the same code."""
        kind: Literal["number", "category"] = "category" if self.classes else "number"
        codes = {text: number for number, text in enumerate(self.classes)}
        return Column(name=self.column, type=kind, unit=self.unit, range=self.range, codes=codes)


class DataSchema(Value):
    """Everything a site must provide, equal for all sites.

    >>> schema = DataSchema(
    ...     columns=(Column(name="age", unit="years", range=(0, 120)),),
    ...     target=Target(column="num", rule="> 0"),
    ... )
    >>> schema.names, schema.target.count
    (('age',), 2)
    """

    columns: tuple[Column, ...] = Field(min_length=1)
    """The inputs, in the order of the features."""
    target: Target
    """What is predicted."""
    subject: str | None = None
    """Column that says which person a row belongs to; splits never divide a subject."""
    client: str | None = None
    """Column that says which client a row belongs to, when one table holds several."""
    missing: tuple[Marker, ...] = MISSING_MARKERS
    """Cells that mean "not known" in every column."""

    @model_validator(mode="after")
    def _names_differ(self) -> DataSchema:
        names = [*self.names, self.target.column]
        names += [name for name in (self.subject, self.client) if name is not None]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"columns {twice} are used twice in the schema")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the input columns."""
        return tuple(column.name for column in self.columns)

    @property
    def numbers(self) -> tuple[Column, ...]:
        """The columns of numbers."""
        return tuple(column for column in self.columns if column.type == "number")

    @property
    def flags(self) -> tuple[Column, ...]:
        """The columns of yes/no."""
        return tuple(column for column in self.columns if column.type == "flag")

    @property
    def categories(self) -> tuple[Column, ...]:
        """The columns of codes."""
        return tuple(column for column in self.columns if column.type == "category")

    @property
    def open(self) -> tuple[Column, ...]:
        """The categories whose codes are not in the contract."""
        return tuple(column for column in self.columns if column.open)

    def column(self, name: str) -> Column:
        """The input column called ``name``."""
        return next(column for column in self.columns if column.name == name)

    def markers(self, column: Column) -> tuple[Marker, ...]:
        """Every cell that means "not known" in ``column``."""
        return self.missing + column.missing

    def with_codes(self, codes: Mapping[str, tuple[str, ...]]) -> DataSchema:
        """The schema with learnt codes for its open columns; codes not learnt become missing."""
        closed = tuple(
            column.replace(
                codes={text: i for i, text in enumerate(codes[column.name])}, unknown="missing"
            )
            if column.name in codes
            else column
            for column in self.columns
        )
        return self.replace(columns=closed)
