"""A plan file in layers: the file, the environment, the command line; who set which key.

Later layers win: command line > environment > file > default. The resolved plan is printed with
the origin of each value.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath

from anabranch.errors import AnabranchError
from anabranch.plan.migrate import migrate
from anabranch.plan.overrides import (
    Document,
    Path,
    environment_changes,
    parse_override,
    put,
)

__all__ = ["PlanDocument", "dotted", "leaves", "line_of", "parse_toml", "read_document"]


@dataclass(frozen=True)
class PlanDocument:
    """A plan before it is checked.

    Attributes:
        tables: the nested tables in the current schema.
        where: what messages call it: the file's name.
        text: the text of the file, to find lines in; "" when there is none.
        origins: who set each key: "file", "environment NAME" or "command line".
    """

    tables: Document
    where: str = "the plan"
    text: str = ""
    origins: Mapping[str, str] = field(default_factory=dict)


def dotted(path: Path) -> str:
    """A path as people write it.

    >>> dotted(("updates", "stages", 0, "max_norm"))
    'updates.stages.0.max_norm'
    """
    return ".".join(map(str, path))


def leaves(tables: Mapping[str, object], prefix: Path = ()) -> Iterator[tuple[Path, object]]:
    """Every key that holds a value and not a table. A list counts as one value."""
    for key, value in tables.items():
        path = (*prefix, key)
        if isinstance(value, Mapping):
            yield from leaves(value, path)
        else:
            yield path, value


def parse_toml(text: str, where: str) -> Document:
    """The tables of a TOML text.

    Raises:
        AnabranchError: AB-102 with line and column.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        reason, place = str(error), ""
        found = re.match(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)$", reason)
        if found:
            reason = found[1]
            place = f", line {found[2]}, column {found[3]}" if found[2] else ", at the end"
        raise AnabranchError(
            "AB-102",
            f"{where}{place}: {reason[:1].lower()}{reason[1:]}; the file is not valid TOML.",
            fix="correct that place; text stands in double quotes, true and false are lower case, "
            "and each [table] appears once.",
        ) from error


def _read_text(path: FilePath) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise AnabranchError(
            "AB-101", f"{path} is not UTF-8 text.", fix="save the plan as UTF-8."
        ) from error
    except OSError as error:
        raise AnabranchError(
            "AB-101",
            f"the plan {path} cannot be read: {error.strerror or error}.",
            fix="check the path; `anabranch init silo DIR` writes a plan to start from.",
        ) from error


def read_document(
    path: FilePath,
    changes: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    top_level: Sequence[str] = (),
) -> PlanDocument:
    """The layers of one plan file.

    Args:
        path: the TOML file.
        changes: ``a.b=value`` from the command line.
        environment: variables to look for ``ANABRANCH_TABLE__KEY`` in; none by default.
        top_level: keys of the plan that a variable without a table may set.

    Raises:
        AnabranchError: AB-101 unreadable, AB-102 not TOML, AB-106 and AB-107 schema, AB-108 a
            change that has the wrong form.
    """
    text = _read_text(path)
    where = path.name
    tables = migrate(parse_toml(text, where), where=where)
    layers = [
        (f"environment {variable}", key, value)
        for variable, key, value in environment_changes(environment or {}, top_level)
    ]
    layers += [("command line", *parse_override(change)) for change in changes]
    origins = {dotted(key): "file" for key, _ in leaves(tables)}
    return _layered(PlanDocument(tables, where, text, origins), layers)


def _layered(document: PlanDocument, layers: Iterable[tuple[str, Path, object]]) -> PlanDocument:
    tables, origins = document.tables, dict(document.origins)
    for origin, path, value in layers:
        tables = put(tables, path, value)
        here = dotted(path)
        for key in [key for key in origins if key == here or key.startswith(f"{here}.")]:
            del origins[key]
        if value is not None:
            below = leaves(value, path) if isinstance(value, Mapping) else [(path, value)]
            origins.update({dotted(key): origin for key, _ in below})
    return PlanDocument(tables, document.where, document.text, origins)


_HEADER = re.compile(r"\s*\[\[?\s*([^\]]+?)\s*\]\]?\s*(#.*)?$")
_KEY = re.compile(r"\s*([\w.\"'-]+)\s*=")


def line_of(text: str, path: Path) -> int | None:
    """The line (from 1) on which the key ``path`` is set, as far as a simple search can tell.

    >>> line_of("seed = 1\\n[local]\\nepochs = 2\\n", ("local", "epochs"))
    3
    """
    wanted = [str(step) for step in path if not isinstance(step, int)]
    table: list[str] = []
    table_line: int | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        header = _HEADER.match(line)
        if header:
            table = [part.strip("\"' ") for part in header[1].split(".")]
            if table in (wanted, wanted[:-1]):  # the key may be missing from its table
                table_line = number
            continue
        key = _KEY.match(line)
        if key:
            full = table + [part.strip("\"'") for part in key[1].split(".")]
            # An inline table sets everything below its key on one line.
            if full == wanted or (len(full) < len(wanted) and full == wanted[: len(full)]):
                return number
    return table_line
