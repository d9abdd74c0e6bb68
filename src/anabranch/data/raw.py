"""Reading files into cells, before anything is interpreted: .csv, .parquet, .npz.

CSV needs the standard library only; Parquet needs the ``data`` extra.
"""

from __future__ import annotations

import csv
import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anabranch.data.site import FileFormat
from anabranch.errors import AnabranchError

__all__ = ["SUFFIXES", "RawTable", "missing_file", "parse_csv", "read_raw", "unreadable"]

SUFFIXES = (".csv", ".parquet", ".npz")
"""Files that can be read."""


@dataclass(frozen=True)
class RawTable:
    """Cells by column, as a file holds them.

    Attributes:
        columns: float64 arrays (NaN where a cell is empty) or object arrays of text ("" where a
            cell is empty), all of one length.
        rows: the number of each row in its file; the header of a .csv file is row 1, rows of
            other files count from 1.
        origin: name of the file, for messages.
        decimal: mark between the whole and the fraction of numbers in text.
    """

    columns: Mapping[str, NDArray[np.generic]]
    rows: NDArray[np.int64]
    origin: str
    decimal: str = "."

    def __len__(self) -> int:
        return len(self.rows)


def read_raw(path: Path, form: FileFormat | None = None) -> RawTable:
    """Read a table from ``path``.

    Raises:
        AnabranchError: AB-207 no such file, AB-208 it cannot be read as what its name says,
            AB-209 a kind of file that is not supported, AB-206 Parquet without the extra.
    """
    form = form or FileFormat()
    if not path.is_file():
        raise missing_file(path)
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return parse_csv(path.read_bytes(), path.name, form)
    if suffix == ".parquet":
        return _read_parquet(path)
    if suffix == ".npz":
        return _read_npz(path)
    raise AnabranchError(
        "AB-209",
        f"file {path.name!r} is of a kind that is not supported.",
        fix=f"convert it to one of {', '.join(SUFFIXES)}.",
        kept="Nothing was read.",
    )


def parse_csv(data: bytes, origin: str, form: FileFormat | None = None) -> RawTable:
    """Cells of a .csv file with a header row; blank lines are skipped.

    Raises:
        AnabranchError: AB-208 when it has no header, columns of one name, or rows of other lengths.
    """
    form = form or FileFormat()
    try:
        text = data.decode(form.encoding)
        reader = csv.reader(io.StringIO(text), delimiter=form.delimiter, strict=True)
        lines = [(reader.line_num, cells) for cells in reader if cells]
    except (UnicodeDecodeError, LookupError) as error:
        raise unreadable(
            origin,
            f"is not text in the encoding {form.encoding.removesuffix('-sig')}",
            fix="save it as .csv (UTF-8), or name its encoding in site.toml, such as "
            "[file] encoding = 'cp1252'.",
        ) from error
    except csv.Error as error:
        raise unreadable(origin, f"is not a valid .csv file ({error})") from error
    if not lines:
        raise unreadable(origin, "is empty: not even a header row")
    header = [name.strip() for name in lines[0][1]]
    _unique(header, origin)
    for number, cells in lines[1:]:
        if len(cells) != len(header):
            raise unreadable(
                origin, f"has {len(cells)} cells in row {number}, but {len(header)} columns"
            )
    body = lines[1:]
    columns = {
        name: _texts([cells[place].strip() for _, cells in body])
        for place, name in enumerate(header)
    }
    rows = np.array([number for number, _ in body], np.int64)
    return RawTable(columns, rows, origin, form.decimal)


def _read_parquet(path: Path) -> RawTable:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise AnabranchError(
            "AB-206",
            f"reading {path.name!r} needs pyarrow, which is not installed.",
            fix='pip install "anabranch[data]".',
            kept="Nothing was read.",
        ) from error
    try:
        table = parquet.read_table(path)
    except (arrow.ArrowException, OSError, ValueError) as error:
        raise unreadable(path.name, "is not a valid Parquet file") from error
    _unique(table.column_names, path.name)
    columns: dict[str, NDArray[np.generic]] = {}
    for name in table.column_names:
        column, kind = table.column(name), table.schema.field(name).type
        if arrow.types.is_integer(kind) or arrow.types.is_floating(kind):
            columns[name] = np.asarray(column.cast(arrow.float64()).to_numpy(), np.float64)
        else:
            columns[name] = _texts(column.to_pylist())
    return RawTable(columns, np.arange(1, table.num_rows + 1), path.name)


def _read_npz(path: Path) -> RawTable:
    try:
        # Object arrays would be pickles, and a pickle may run code: they are refused.
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise unreadable(path.name, "is not a .npz file of plain arrays") from error
    lengths = {len(array) if array.ndim else -1 for array in arrays.values()}
    if len(lengths) != 1 or -1 in lengths or any(a.ndim != 1 for a in arrays.values()):
        raise unreadable(path.name, "needs one array of one dimension for each column")
    columns = {
        name: array.astype(np.float64)
        if np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating)
        else _texts(array.tolist())
        for name, array in arrays.items()
    }
    return RawTable(columns, np.arange(1, lengths.pop() + 1), path.name)


def _texts(values: Sequence[object]) -> NDArray[np.object_]:
    texts = np.empty(len(values), object)
    texts[:] = ["" if value is None else str(value) for value in values]
    return texts


def _unique(header: Sequence[str], origin: str) -> None:
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise unreadable(origin, f"has columns of the same name: {', '.join(twice)}")


def missing_file(path: Path) -> AnabranchError:
    """AB-207 for a path that is not there."""
    return AnabranchError(
        "AB-207",
        f"there is nothing to read at {str(path)!r}.",
        fix="check the path; relative paths start at the current folder.",
        kept="Nothing was read.",
    )


_REPAIR_NPZ = "save it again with numpy.savez(file, x=..., y=...), with arrays of numbers."
_REPAIR = (
    "open it in a spreadsheet or an editor, repair it and save it again as .csv "
    "(UTF-8, one header row) or .parquet."
)


def unreadable(origin: str, what: str, fix: str = _REPAIR) -> AnabranchError:
    """AB-208 for a file that is not what its name says."""
    return AnabranchError(
        "AB-208",
        f"file {origin!r} {what}.",
        fix=_REPAIR_NPZ if origin.endswith(".npz") else fix,
        kept="Nothing was read.",
    )
