"""Reading one column of cells: numbers, flags, codes; and the problems met on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anabranch.data.raw import RawTable
from anabranch.data.schema import FLAG_CODES, Column, Marker
from anabranch.data.site import ColumnMapping
from anabranch.errors import AnabranchError

__all__ = ["Problem", "read_codes", "read_flags", "read_numbers", "texts_of"]

Cells = NDArray[np.generic]
Texts = NDArray[np.str_]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in a site's data that does not fit the contract; holds no value of a person.

    Attributes:
        code: error code.
        column: contract name; empty for the file as a whole.
        what: what is wrong ("is text"); a whole sentence for the file as a whole.
        wanted: what the contract asks for.
        fix: what to do.
        index: place of the first such row in what was read; -1 for the whole column.
        row: its number in the file; 0 for the whole column.
        count: number of such rows.
    """

    code: str
    column: str
    what: str
    wanted: str
    fix: str
    index: int = -1
    row: int = 0
    count: int = 0

    @staticmethod
    def at(code: str, column: Column, bad: Mask, raw: RawTable, what: str, fix: str) -> Problem:
        """A problem in the rows where ``bad`` is true (at least one)."""
        index = int(np.argmax(bad))
        row, count = int(raw.rows[index]), int(bad.sum())
        return Problem(code, column.name, what, column.wanted, fix, index, row, count)

    @property
    def sentence(self) -> str:
        """One sentence without the client's name."""
        if not self.column:
            return self.what
        place = f" in row {self.row}" if self.row else ""
        return f"column {self.column!r} {self.what}{place} (wanted: {self.wanted})."

    def error(self, client: str) -> AnabranchError:
        """The problem as an error of ``client``."""
        message = f"client {client!r}: {self.sentence}"
        return AnabranchError(self.code, message, fix=self.fix, kept="Nothing was sent.")


def texts_of(cells: Cells) -> Texts:
    """Cells as text without surrounding blanks; whole numbers lose their ".0".

    >>> texts_of(np.array([1.0, 2.5, np.nan])).tolist()
    ['1', '2.5', '']
    """
    if not np.issubdtype(cells.dtype, np.floating):
        return np.char.strip(cells.astype(np.str_))
    texts = np.array([f"{number:.15g}" for number in cells.tolist()], np.str_)
    return np.where(np.isnan(cells.astype(np.float64)), "", texts).astype(np.str_)


def _is_missing(texts: Texts, markers: Sequence[Marker]) -> Mask:
    plain = [marker for marker in markers if isinstance(marker, str)]
    return np.isin(texts, ["", *plain])


def read_numbers(
    column: Column,
    cells: Cells,
    raw: RawTable,
    mapping: ColumnMapping,
    markers: Sequence[Marker],
) -> tuple[NDArray[np.float64], list[Problem]]:
    """Numbers in the contract's unit, NaN where missing."""
    problems: list[Problem] = []
    if np.issubdtype(cells.dtype, np.floating):
        values = np.array(cells, np.float64)
    else:
        texts = texts_of(cells)
        absent = _is_missing(texts, (*markers, *mapping.missing))
        values, wrong = _parse(texts, absent, raw.decimal)
        if wrong.any():
            fix = "correct the cell, or map the column in site.toml."
            problems.append(Problem.at("AB-214", column, wrong, raw, "is text", fix))
    numeric = [marker for marker in mapping.missing if isinstance(marker, float | int)]
    values[np.isin(values, numeric)] = np.nan
    values = values * mapping.factor + mapping.offset
    # The contract's numeric markers are in the contract's unit: compare after the conversion.
    numeric = [marker for marker in markers if isinstance(marker, float | int)]
    values[np.isin(values, numeric)] = np.nan
    infinite = np.isinf(values)
    if infinite.any():
        fix = "correct the cell, or leave it empty when the value is not known."
        problems.append(Problem.at("AB-218", column, infinite, raw, "is infinite", fix))
        values[infinite] = np.nan
    problems += _outside(column, values, raw)
    return values, problems


def _parse(texts: Texts, absent: Mask, decimal: str) -> tuple[NDArray[np.float64], Mask]:
    if decimal != ".":
        texts = np.char.replace(texts, decimal, ".")
    values = np.full(len(texts), np.nan)
    wrong = np.zeros(len(texts), np.bool_)
    try:
        values[~absent] = texts[~absent].astype(np.float64)
    except ValueError:
        for index in np.flatnonzero(~absent):
            try:
                values[index] = float(texts[index])
            except ValueError:
                wrong[index] = True
    return values, wrong


def _outside(column: Column, values: NDArray[np.float64], raw: RawTable) -> list[Problem]:
    if column.range is None:
        return []
    low, high = column.range
    outside = (values < low) | (values > high)
    if not outside.any():
        return []
    values[outside] = np.nan
    if column.outside == "missing":
        return []
    what = f"is outside {low:g} to {high:g}"
    fix = "correct the cell; if the site measures in another unit, give factor and offset in "
    return [Problem.at("AB-215", column, outside, raw, what, fix + "site.toml.")]


def read_flags(
    column: Column,
    cells: Cells,
    raw: RawTable,
    mapping: ColumnMapping,
    markers: Sequence[Marker],
) -> tuple[NDArray[np.float64], list[Problem]]:
    """1 for yes, 0 for no, NaN where missing."""
    codes = dict(column.codes) if column.codes else dict(FLAG_CODES)
    labels = {number: text for text, number in reversed(codes.items())}
    texts, problems = _coded(column, cells, raw, mapping, markers, codes, not column.codes)
    values = np.full(len(texts), np.nan)
    values[texts == labels[1]] = 1.0
    values[texts == labels[0]] = 0.0
    return values, problems


def read_codes(
    column: Column,
    cells: Cells,
    raw: RawTable,
    mapping: ColumnMapping,
    markers: Sequence[Marker],
) -> tuple[Texts, list[Problem]]:
    """The contract's first spelling of each code, "" where missing."""
    return _coded(column, cells, raw, mapping, markers, column.codes, False)


def _coded(
    column: Column,
    cells: Cells,
    raw: RawTable,
    mapping: ColumnMapping,
    markers: Sequence[Marker],
    codes: dict[str, int],
    fold_case: bool,
) -> tuple[Texts, list[Problem]]:
    distinct, places = np.unique(texts_of(cells), return_inverse=True)
    absent = _is_missing(distinct, _as_texts((*markers, *mapping.missing)))
    first = {number: text for text, number in reversed(codes.items())}
    spelt: list[str] = []
    unknown = np.zeros(len(distinct), np.bool_)
    for index, site_text in enumerate(distinct.tolist()):
        text = "" if absent[index] else mapping.codes.get(site_text, site_text)
        text = text.lower() if fold_case else text
        if codes and text:
            number = codes.get(text, codes.get(_whole(text)))
            unknown[index] = number is None
            text = "" if number is None else first[number]
        spelt.append(text)
    texts = np.array(spelt or [""], np.str_)[places]
    bad = unknown[places]
    if not bad.any() or column.unknown == "missing":
        return texts, []
    fix = "map the site's code in site.toml, add it to the contract's codes, or set unknown = "
    what = "has a code that the contract does not know"
    return texts, [Problem.at("AB-217", column, bad, raw, what, fix + "'missing' there.")]


def _as_texts(markers: Sequence[Marker]) -> list[Marker]:
    return [marker if isinstance(marker, str) else f"{marker:.15g}" for marker in markers]


def _whole(text: str) -> str:
    """``3.0`` as ``3``: data frames turn whole codes with gaps into fractions."""
    whole, dot, fraction = text.partition(".")
    return whole if dot and fraction and not fraction.strip("0") else text
