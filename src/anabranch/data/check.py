"""Does a site's data fit the contract? An offline check whose report holds no value of a person.

The report has counts only, rounded to tens, and small ones are written as "fewer than ...": it can
be sent to the coordinator's people as it is.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anabranch.data.cells import Problem
from anabranch.data.own import site_files
from anabranch.data.raw import read_raw
from anabranch.data.schema import DataSchema
from anabranch.data.site import SiteMapping, load_mapping
from anabranch.data.table import Table, interpret
from anabranch.errors import AnabranchError

__all__ = ["ColumnReport", "SiteReport", "check_site", "vague"]


def vague(count: int, minimum: int) -> str:
    """A count that tells nothing about few people.

    >>> vague(0, 10), vague(3, 10), vague(137, 10)
    ('none', 'fewer than 10', 'about 140')
    """
    if count == 0:
        return "none"
    if count < minimum:
        return f"fewer than {minimum}"
    return f"about {max(round(count, -1), minimum)}"


@dataclass(frozen=True, slots=True)
class ColumnReport:
    """One column of a site.

    Attributes:
        name: contract name.
        wanted: what the contract asks for.
        missing: rows in which it is not known, as a vague count.
    """

    name: str
    wanted: str
    missing: str


@dataclass(frozen=True, slots=True)
class SiteReport:
    """Whether a site's data fit, and why not.

    Attributes:
        site: its name.
        file: name of the data file.
        rows: usable rows, as a vague count.
        columns: one for each column of the contract.
        problems: what does not fit, without any value.
        minimum: counts below it are not given.
    """

    site: str
    file: str
    rows: str
    columns: tuple[ColumnReport, ...]
    problems: tuple[Problem, ...]
    minimum: int

    @property
    def fits(self) -> bool:
        """Whether training could start."""
        return not self.problems

    def text(self) -> str:
        """The report for people."""
        verdict = "fit the contract" if self.fits else "do not fit the contract"
        lines = [f"Data of {self.site!r} ({self.file}) {verdict}.", f"Rows: {self.rows}."]
        width = max(len(column.name) for column in self.columns) if self.columns else 0
        lines += [
            f"  {column.name:<{width}}  missing: {column.missing:<14} {column.wanted}"
            for column in self.columns
        ]
        for problem in self.problems:
            count = vague(problem.count, self.minimum) if problem.count else "all"
            rows = f" Rows: {count}." if problem.column else ""
            lines.append(f"{problem.code}: {problem.sentence}{rows} Fix: {problem.fix}")
        return "\n".join(lines)

    def json(self) -> str:
        """The report for programs."""
        problems = [
            {
                "code": problem.code,
                "column": problem.column,
                "what": problem.sentence,
                "rows": vague(problem.count, self.minimum) if problem.count else "all",
                "fix": problem.fix,
            }
            for problem in self.problems
        ]
        columns = [
            {"name": column.name, "wanted": column.wanted, "missing": column.missing}
            for column in self.columns
        ]
        document = {
            "site": self.site,
            "file": self.file,
            "fits": self.fits,
            "rows": self.rows,
            "columns": columns,
            "problems": problems,
        }
        return json.dumps(document, indent=2)


def check_site(
    schema: DataSchema,
    path: Path,
    mapping: SiteMapping | None = None,
    *,
    site: str = "",
    minimum: int = 10,
) -> SiteReport:
    """Check a site's file or folder against the contract; nothing is sent anywhere.

    Args:
        schema: the contract's.
        path: a data file, or a folder with one data file and a ``site.toml``.
        mapping: the site's own words; read from the ``site.toml`` when left out.
        site: its name; the file's by default.
        minimum: counts below it are not given.

    A file that cannot be read at all is a problem in the report, not an exception.
    """
    site = site or path.stem
    try:
        file, toml = site_files(path)
        if mapping is None:
            mapping = SiteMapping() if toml is None else load_mapping(toml, schema)
        raw = read_raw(file, mapping.file)
    except AnabranchError as error:
        problem = Problem(error.code, "", error.message, "a readable file", error.fix)
        return SiteReport(site, path.name, "none", (), (problem,), minimum)
    table, problems = interpret(schema, raw, mapping)
    if not len(table) and not problems:
        fix = "give the site data, or leave it out of the federation."
        problems = (Problem("AB-211", schema.target.column, "has no usable rows", "rows", fix),)
    columns = _columns(schema, table, minimum)
    return SiteReport(site, file.name, vague(len(table), minimum), columns, problems, minimum)


def _columns(schema: DataSchema, table: Table, minimum: int) -> tuple[ColumnReport, ...]:
    reports = []
    for column in schema.columns:
        cells = table.columns[column.name]
        if column.type == "category":
            missing = int((cells == "").sum())
        else:
            missing = int(np.isnan(cells.astype(np.float64)).sum())
        reports.append(ColumnReport(column.name, column.wanted, vague(missing, minimum)))
    return tuple(reports)
