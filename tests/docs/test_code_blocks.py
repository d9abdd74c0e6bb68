"""Python examples in README and docs do what they say.

A fenced Python block that follows the line ``<!-- run -->`` is executed. The blocks of one page
share their names, as a reader would type them one after the other, and run in an empty folder. A
following ``text`` block after ``<!-- output -->`` must be what was printed; after
``<!-- output, about -->`` the numbers may differ by 0.02 (processors round differently). A block
after ``<!-- save NAME.py -->`` becomes a file that later blocks can import.
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
NUMBER = re.compile(r"\d+\.\d+")
BLOCK = re.compile(
    r"<!-- (run|output|output, about|save \w+\.py) -->\n+```\w*\n(.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


def pages() -> list[Path]:
    """The pages with at least one marked block."""
    candidates = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [p for p in candidates if p.exists() and "<!-- run -->" in p.read_text("utf-8")]


@pytest.fixture
def module() -> Iterator[ModuleType]:
    """A module for the page's names: classes defined in it can be found again by name."""
    before = set(sys.modules)
    created = ModuleType("documentation_page")
    sys.modules[created.__name__] = created
    yield created
    for name in set(sys.modules) - before:
        if name == created.__name__ or name.startswith("my_"):
            del sys.modules[name]


def assert_printed(printed: str, wanted: str, tolerance: float) -> None:
    """Equal texts, in which decimal numbers differ by ``tolerance`` at most."""
    if tolerance:
        found = [[float(n) for n in NUMBER.findall(text)] for text in (printed, wanted)]
        assert found[0] == pytest.approx(found[1], abs=tolerance)
        printed, wanted = (NUMBER.sub("#", text) for text in (printed, wanted))
    assert printed == wanted


@pytest.mark.parametrize("page", pages(), ids=lambda p: str(p.relative_to(ROOT)))
def test_marked_blocks(
    page: Path, module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    printed = ""
    for match in BLOCK.finditer(page.read_text(encoding="utf-8")):
        kind, text = match.groups()
        if kind.startswith("save"):
            Path(kind.removeprefix("save ")).write_text(text, encoding="utf-8")
            continue
        if kind.startswith("output"):
            assert_printed(printed.rstrip(), text.rstrip(), tolerance=0.02 * ("about" in kind))
            continue
        with contextlib.redirect_stdout(io.StringIO()) as stream:
            exec(compile(text, str(page), "exec"), module.__dict__)
        printed = stream.getvalue()
