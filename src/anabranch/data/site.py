"""A site's own words: how its file maps onto the contract's columns (``site.toml``).

Example::

    [file]
    delimiter = ";"
    decimal = ","

    [columns.chol]
    column = "cholesterin"      # what the site calls it
    factor = 38.67              # mmol/l -> mg/dl

    [columns.sex]
    codes = { m = "Male", w = "Female" }

The file stays at the site; only the site knows its own names and codes.
"""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path

from pydantic import Field, ValidationError

from anabranch.data.schema import DataSchema, Marker
from anabranch.errors import AnabranchError
from anabranch.values import Value

__all__ = ["ColumnMapping", "FileFormat", "SiteMapping", "load_mapping"]


class FileFormat(Value):
    """How the site's text files are written."""

    delimiter: str = Field(default=",", min_length=1, max_length=1)
    """Between cells of a .csv file."""
    decimal: str = Field(default=".", min_length=1, max_length=1)
    """Between the whole and the fraction of a number."""
    encoding: str = "utf-8-sig"
    """Of a .csv file (the default also reads plain UTF-8)."""


class ColumnMapping(Value):
    """How one column of the contract is found at the site."""

    column: str | None = None
    """The site's name for it; none when it is the same."""
    factor: float = 1.0
    """Contract value = site value * factor + offset."""
    offset: float = 0.0
    """Added after the factor, in the contract's unit."""
    codes: dict[str, str] = Field(default_factory=dict)
    """The site's code and the contract's code for it."""
    missing: tuple[Marker, ...] = ()
    """Further cells that mean "not known" at this site, before any conversion."""


class SiteMapping(Value):
    """Everything in a ``site.toml``."""

    file: FileFormat = FileFormat()
    """How text files are written."""
    columns: dict[str, ColumnMapping] = Field(default_factory=dict)
    """Mapping by contract name; a column that is not listed is read as it is."""

    def of(self, name: str) -> ColumnMapping:
        """The mapping of one contract column."""
        return self.columns.get(name, ColumnMapping())

    def site_name(self, name: str) -> str:
        """What the site calls a contract column."""
        return self.of(name).column or name


def load_mapping(path: Path, schema: DataSchema) -> SiteMapping:
    """Read a ``site.toml`` and check it against the contract.

    Raises:
        AnabranchError: AB-213 when it is not TOML, has unknown keys, or maps a column that the
            contract does not have.
    """
    try:
        mapping = SiteMapping.model_validate(tomllib.loads(path.read_text("utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _bad(path, f"is not valid TOML ({error})") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _bad(path, f"has a wrong entry {where!r}: {first['msg']}") from error
    extra = [name for name in (schema.subject, schema.client) if name is not None]
    known = [*schema.names, schema.target.column, *extra]
    for name in mapping.columns:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise _bad(path, f"maps a column {name!r} that the contract does not have{hint}")
    return mapping


def _bad(path: Path, what: str) -> AnabranchError:
    return AnabranchError(
        "AB-213",
        f"site mapping {path.name!r} {what}.",
        fix="correct the file: tables [file] and [columns.<contract name>], with the keys "
        "column, factor, offset, codes and missing.",
        kept="Nothing was read.",
    )
