"""MkDocs hook: the indexes of the error pages and of the decision records, made from the pages."""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from anabranch.errors import AREAS

DOCS = Path(__file__).parent

_ERRORS = """# Errors

Every error that you can meet has a code, `AB-nnn`, and a page. The message says where it happened,
what became of the work done so far, and what to do:

    {example}

The first digit is the area.
"""

_DECISIONS = """# Decisions

Why the code is as it is: one record for each choice that a newcomer would question. A record is
never rewritten; a decision that turns out wrong is replaced by a new record that names the old one.
"""

_EXAMPLE = (
    "AB-214 [data] client 'va': column 'chol' is text in row 17 (wanted: number, mg/dl). "
    "Nothing was sent.\n    Fix: correct the cell or map the column in site.toml. "
    "See docs/errors/AB-214.md"
)


def titles(folder: Path, pattern: str) -> dict[str, str]:
    """File name and first heading (without its number) of each page, sorted by file name.

    Raises:
        ValueError: a page does not begin with ``# <code>: <title>``.
    """
    found = {}
    for page in sorted(folder.glob(pattern)):
        first = page.read_text(encoding="utf-8").split("\n", 1)[0]
        match = re.fullmatch(r"# (?:AB-)?\d{3}: (.+)", first)
        if not match:
            raise ValueError(f"{page}: the first line must read '# {page.stem[:6]}: title'")
        found[page.name] = match[1]
    return found


def errors_index(folder: Path) -> str:
    """The page that lists every error by area."""
    lines = [_ERRORS.format(example=_EXAMPLE)]
    pages = titles(folder, "AB-*.md")
    for area, names in groupby(pages, key=lambda name: name[3]):
        lines.append(f"## {area}xx: {AREAS[area]}\n")
        lines += [f"- [{name[:6]}]({name}): {pages[name]}" for name in names]
        lines.append("")
    return "\n".join(lines)


def decisions_index(folder: Path) -> str:
    """The page that lists every decision record."""
    pages = titles(folder, "[0-9]*.md")
    return "\n".join(
        [_DECISIONS, *(f"- [{name[:3]}]({name}): {title}" for name, title in pages.items()), ""]
    )


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add both indexes to the site."""
    files.append(File.generated(config, "errors/index.md", content=errors_index(DOCS / "errors")))
    decisions = decisions_index(DOCS / "decisions")
    files.append(File.generated(config, "decisions/index.md", content=decisions))
    return files
