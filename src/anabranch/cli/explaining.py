"""`anabranch explain`: the page of an error code, without a network."""

from __future__ import annotations

import difflib
import re
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from anabranch.cli.output import say
from anabranch.errors import AnabranchError

__all__ = ["explain", "page_text"]

_FOLDER = "pages"
"""Inside the package, where the wheel has the pages; a checkout has them in ``docs/errors``."""


def explain(
    code: Annotated[str, typer.Argument(help="As a message says it: AB-214.", metavar="CODE")],
) -> None:
    """Show what an error code means and how to mend it."""
    say(page_text(code).rstrip("\n"))


def page_text(code: str) -> str:
    """The page of a code, as Markdown.

    Raises:
        AnabranchError: AB-810 there is no such code.
    """
    number = re.fullmatch(r"(?:ab-?)?(\d{3})", code.strip(), re.IGNORECASE)
    pages = _pages()
    name = f"AB-{number[1]}" if number else code
    if name not in pages:
        near = difflib.get_close_matches(name, pages, n=3, cutoff=0.7)
        shown = f"; near it are {', '.join(sorted(near))}" if near else ""
        raise AnabranchError(
            "AB-810",
            f"there is no error code {code!r}{shown}.",
            fix="give the code that a message begins with, such as AB-214.",
        )
    return pages[name].read_text("utf-8")


def _pages() -> dict[str, Path]:
    with resources.as_file(resources.files("anabranch") / _FOLDER) as packed:
        folder = packed
    if not folder.is_dir():
        folder = Path(__file__).resolve().parents[3] / "docs" / "errors"
    return {path.stem: path for path in sorted(folder.glob("AB-*.md"))}
