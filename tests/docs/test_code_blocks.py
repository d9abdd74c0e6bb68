"""Python examples in README and docs do what they say.

A fenced Python block that follows the line ``<!-- run -->`` is executed. The blocks of one page
share their names, as a reader would type them one after the other, and run in an empty folder. A
following ``text`` block after ``<!-- output -->`` must be what was printed.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"<!-- (run|output) -->\n+```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def pages() -> list[Path]:
    """The pages with at least one marked block."""
    candidates = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [p for p in candidates if p.exists() and "<!-- run -->" in p.read_text("utf-8")]


@pytest.fixture
def module(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    """A module for the page's names: classes defined in it can be found again by name."""
    created = ModuleType("documentation_page")
    sys.modules[created.__name__] = created
    yield created
    del sys.modules[created.__name__]


@pytest.mark.parametrize("page", pages(), ids=lambda p: str(p.relative_to(ROOT)))
def test_marked_blocks(
    page: Path, module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    printed = ""
    for match in BLOCK.finditer(page.read_text(encoding="utf-8")):
        kind, text = match.groups()
        if kind == "output":
            assert printed.rstrip() == text.rstrip()
            continue
        with contextlib.redirect_stdout(io.StringIO()) as stream:
            exec(compile(text, str(page), "exec"), module.__dict__)
        printed = stream.getvalue()
