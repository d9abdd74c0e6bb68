"""Codes in the source and pages in docs/errors are the same set, and the pages have one form."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from anabranch.errors import AREAS, page_of

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "anabranch"
PAGES = {page.stem: page for page in (ROOT / "docs" / "errors").glob("AB-*.md")}
CODE = re.compile(r"AB-\d{3}")


def raised_codes() -> dict[str, str]:
    """Every string that is exactly a code, with a file that contains it."""
    found: dict[str, str] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            text = node.value if isinstance(node, ast.Constant) else None
            if isinstance(text, str) and CODE.fullmatch(text):
                found[text] = str(path.relative_to(ROOT))
    return found


RAISED = raised_codes()


def test_every_code_in_the_source_has_a_page() -> None:
    missing = {code: path for code, path in RAISED.items() if code not in PAGES}
    assert not missing


def named_codes() -> dict[str, str]:
    """Every code in a docstring, a message or a comment, with a file that names it."""
    return {
        code: str(path.relative_to(ROOT))
        for path in sorted(SOURCE.rglob("*.py"))
        if path.name != "errors.py"  # explains the form with an example
        for code in CODE.findall(path.read_text(encoding="utf-8"))
    }


def test_every_page_belongs_to_a_code_in_the_source() -> None:
    assert sorted(set(PAGES) - set(named_codes())) == []


def test_docstrings_name_codes_that_exist() -> None:
    assert not {code: path for code, path in named_codes().items() if code not in PAGES}


@pytest.mark.parametrize("code", sorted(PAGES))
def test_page_has_the_form(code: str) -> None:
    text = PAGES[code].read_text(encoding="utf-8")
    headings = [line for line in text.splitlines() if re.match(r"#{1,2} ", line)]
    assert re.fullmatch(rf"# {code}: \S.*", headings[0])
    assert headings[1:] == ["## What happened", "## How to resolve", "## Example"]
    assert (ROOT / page_of(code)) == PAGES[code]
    assert code[3] in AREAS
