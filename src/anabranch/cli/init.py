"""`anabranch init`: a small commented plan to start from, with a README."""

from __future__ import annotations

from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from anabranch.cli.output import say, write_text
from anabranch.errors import AnabranchError

__all__ = ["Template", "init", "written_by"]


class Template(StrEnum):
    """What a new project starts from."""

    SILO = "silo"
    DEVICE = "device"
    RESEARCH = "research"


_ABOUT = {
    Template.SILO: "A few organisations that each hold a table, such as hospitals.",
    Template.DEVICE: "Many devices of which a few are asked in each round.",
    Template.RESEARCH: "Algorithms compared on unequal clients, in seconds.",
}

_README = """# {title}

{about}

    anabranch plan explain plan.toml
    anabranch simulate plan.toml
    anabranch report last

`plan.toml` says everything about a run. Change a key for one run with `--set`:

    anabranch simulate plan.toml --set seed=1
    anabranch runs compare RUN RUN
{more}"""

_SILO_MORE = """
`site.toml` stays at a site: it maps the site's own column names, units and codes to those of the
plan. Whether a site's data fit is checked there, offline, and the report holds no value of a
person:

    anabranch check plan.toml --data DIR     # DIR holds data.csv and site.toml
"""

_SITE = """# How this site's file maps onto the columns of the plan. The file never leaves the site.
# Columns that already have the plan's name, unit and codes need no entry.

[file]
delimiter = ";"
decimal = ","

[columns.chol]
column = "cholesterin"      # what the site calls it
factor = 38.67              # mmol/l -> mg/dl
missing = ["k.A.", "0"]     # cells that mean "not known" here

[columns.sex]
codes = { m = "Male", w = "Female" }
"""


def init(
    template: Annotated[Template, typer.Argument(help="What to start from.")],
    folder: Annotated[Path, typer.Argument(help="Where; made when absent.", metavar="DIR")],
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
) -> None:
    """Write a small commented plan to start from."""
    contents = written_by(template, folder.resolve().name)
    existing = [name for name in contents if (folder / name).exists()]
    if existing and not force:
        raise AnabranchError(
            "AB-805",
            f"{folder} already holds {', '.join(existing)}.",
            fix="choose another folder, or add --force to replace them.",
        )
    for name, text in contents.items():
        write_text(folder / name, text)
        say(str(folder / name))


def written_by(template: Template, title: str) -> dict[str, str]:
    """The files of a template by name."""
    plan = files("anabranch.plan") / "examples" / f"{template.value}.toml"
    more = _SILO_MORE if template is Template.SILO else ""
    contents = {
        "plan.toml": plan.read_text(encoding="utf-8"),
        "README.md": _README.format(title=title, about=_ABOUT[template], more=more),
    }
    if template is Template.SILO:
        contents["site.toml"] = _SITE
    return contents
