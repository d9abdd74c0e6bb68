"""The guide's algorithm is a complete one: short, strictly typed, and it passes the suite."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = re.findall(
    r"^```python\n(.*?)^```$",
    (ROOT / "docs" / "guide" / "own-algorithm.md").read_text(encoding="utf-8"),
    re.MULTILINE | re.DOTALL,
)


def test_the_example_is_short() -> None:
    assert len(BLOCKS[0].splitlines()) < 40


def test_the_example_passes_the_suite(tmp_path: Path) -> None:
    (tmp_path / "my_methods.py").write_text(BLOCKS[0], encoding="utf-8")
    (tmp_path / "test_my_methods.py").write_text(BLOCKS[-1], encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "26 passed" in done.stdout  # thirteen tests, each for one and for seven parameters
