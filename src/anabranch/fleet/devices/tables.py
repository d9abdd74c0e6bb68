"""Tables of devices and traces: CSV or Parquet, checked cell by cell, as NumPy columns.

A problem names the file, the column, the row as it stands in the file, and what was wanted.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from anabranch.errors import AnabranchError
from anabranch.fleet.view import Column

__all__ = ["Bounds", "DeviceTable", "read_device_table", "write_device_table"]

Cell: TypeAlias = str | float | int | bool | None
_TRUE = {"1", "true", "yes"}
_FALSE = {"0", "false", "no"}
_SUFFIXES = (".csv", ".parquet")


@dataclass(frozen=True)
class Bounds:
    """What a number may be; both ends included unless ``positive``."""

    low: float = -np.inf
    high: float = np.inf
    positive: bool = False
    unit: str = ""

    def words(self) -> str:
        """The bounds for people.

        >>> Bounds(0, 1).words(), Bounds(positive=True, unit="W").words()
        ('a number from 0 to 1', 'a number above 0 W')
        """
        unit = f" {self.unit}" if self.unit else ""
        if self.positive:
            return f"a number above 0{unit}"
        if np.isinf(self.high):
            return f"a number of at least {self.low:g}{unit}"
        return f"a number from {self.low:g} to {self.high:g}{unit}"

    def broken(self, values: Column) -> NDArray[np.bool_]:
        """Which values are outside; missing ones (NaN) are not."""
        low = values <= 0 if self.positive else values < self.low
        return np.asarray((low | (values > self.high) | np.isinf(values)) & ~np.isnan(values))


@dataclass(frozen=True)
class DeviceTable:
    """Cells by column, and how to complain about them.

    Attributes:
        name: of the file.
        columns: cells of each column; "" and None are missing.
        first: number of the first row in the file.
    """

    name: str
    columns: Mapping[str, Sequence[Cell]]
    first: int = 2

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def require(self, wanted: Sequence[str], known: Sequence[str]) -> None:
        """Check the heading.

        Raises:
            AnabranchError: AB-531 a column is missing or unknown, or there are no rows.
        """
        missing = [name for name in wanted if name not in self.columns]
        strange = [name for name in self.columns if name not in known]
        if missing or strange or not len(self):
            what = f"has no column {missing[0]!r}" if missing else f"has the column {strange[:1]}"
            what = what if missing or strange else "has no rows"
            raise AnabranchError(
                "AB-531",
                f"{self.name} {what}.",
                fix=f"wanted columns: {', '.join(wanted)}; also known: "
                f"{', '.join(name for name in known if name not in wanted)}.",
                kept="Nothing was read.",
            )

    def problem(self, column: str, row: int, wanted: str) -> AnabranchError:
        """The complaint about one cell."""
        return AnabranchError(
            "AB-532",
            f"{self.name}: column {column!r} is {self._found(column, row)} in row "
            f"{self.first + row} (wanted: {wanted}).",
            fix="correct the cell, or leave it empty where the column may be missing.",
            kept="Nothing was read.",
        )

    def _found(self, column: str, row: int) -> str:
        cell = self.columns[column][row]
        return "missing" if cell is None or cell == "" else repr(cell)

    def numbers(self, column: str, bounds: Bounds, *, required: bool = False) -> Column:
        """A column of numbers; NaN where missing, all NaN without the column.

        Raises:
            AnabranchError: AB-532 a cell is no number, outside its bounds, or missing though
                required.
        """
        values = np.full(len(self), np.nan)
        for row, cell in enumerate(self.columns.get(column, ())):
            if cell is None or cell == "":
                continue
            try:
                values[row] = float(cell)
            except ValueError:
                raise self.problem(column, row, bounds.words()) from None
        bad = bounds.broken(values)
        if required:
            bad |= np.isnan(values)
        if bad.any():
            raise self.problem(column, int(np.argmax(bad)), bounds.words())
        return values

    def texts(self, column: str, allowed: Sequence[str] = (), default: str = "") -> list[str]:
        """A column of words.

        Raises:
            AnabranchError: AB-532 a word is not among ``allowed``, or missing without a default.
        """
        cells = self.columns.get(column, [None] * len(self))
        words = [default if cell is None or cell == "" else str(cell).strip() for cell in cells]
        for row, word in enumerate(words):
            if (allowed and word not in allowed) or (not word and not default):
                raise self.problem(
                    column, row, f"one of {', '.join(allowed)}" if allowed else "a word"
                )
        return words

    def flags(self, column: str, default: bool) -> NDArray[np.bool_]:
        """A column of yes and no (true, false, 1, 0).

        Raises:
            AnabranchError: AB-532 a cell is neither.
        """
        values = np.full(len(self), default)
        for row, cell in enumerate(self.columns.get(column, ())):
            word = "" if cell is None else str(cell).strip().lower()
            if word and word not in _TRUE | _FALSE:
                raise self.problem(column, row, "yes or no")
            values[row] = word in _TRUE if word else default
        return values


def read_device_table(path: Path) -> DeviceTable:
    """Read a CSV file with a heading, or a Parquet file.

    Raises:
        AnabranchError: AB-530 the file is missing, of another kind, or cannot be read.
    """
    if path.suffix not in _SUFFIXES or not path.is_file():
        what = "is not there" if path.suffix in _SUFFIXES else "is neither .csv nor .parquet"
        raise _unreadable(path, what)
    try:
        columns = _csv(path) if path.suffix == ".csv" else _parquet(path)
    except ImportError as error:
        raise _unreadable(path, "needs pyarrow, which is not installed (extra `data`)") from error
    except (OSError, ValueError, csv.Error) as error:
        raise _unreadable(path, f"cannot be read ({type(error).__name__})") from error
    return DeviceTable(path.name, columns)


def _unreadable(path: Path, what: str) -> AnabranchError:
    return AnabranchError(
        "AB-530",
        f"the table {path.name!r} {what}.",
        fix="give the path of a CSV file with a heading, in UTF-8, or of a Parquet file.",
        kept="Nothing was read.",
    )


def _csv(path: Path) -> dict[str, list[Cell]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.reader(file))
    if not rows:
        raise ValueError("empty")
    heading = [name.strip() for name in rows[0]]
    body = [row for row in rows[1:] if any(cell.strip() for cell in row)]
    if len(set(heading)) < len(heading) or any(len(row) != len(heading) for row in body):
        raise ValueError("ragged")
    return {name: [row[i].strip() for row in body] for i, name in enumerate(heading)}


def _parquet(path: Path) -> dict[str, list[Cell]]:
    # An optional dependency (the extra "data"), wanted for this alone.
    import pyarrow.parquet as parquet

    return dict(parquet.read_table(path).to_pydict())


def write_device_table(path: Path, columns: Mapping[str, Sequence[Cell]]) -> None:
    """Write what `read_device_table` reads; missing cells are None.

    Raises:
        AnabranchError: AB-530 the name ends neither in .csv nor in .parquet.
    """
    if path.suffix not in _SUFFIXES:
        raise _unreadable(path, "is neither .csv nor .parquet")
    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet as parquet

        parquet.write_table(pyarrow.table({k: list(v) for k, v in columns.items()}), path)
        return
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
