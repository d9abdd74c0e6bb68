"""`anabranch join` without Typer and Rich: the same options, and nothing of the terminal loaded."""

from __future__ import annotations

import inspect
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from anabranch.cli import lean
from anabranch.cli.attending import Joining
from anabranch.cli.joining import join

WITHOUT = "import sys\nfor name in ('typer', 'click', 'rich'): sys.modules[name] = None\n"
MAIN = WITHOUT + "from anabranch.cli import main\nmain()\n"


def lean_client(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", MAIN, "join", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_both_parsers_have_the_same_options_with_the_same_defaults() -> None:
    known = {field.name: field.default for field in fields(Joining)}
    typed = {name: p.default for name, p in inspect.signature(join).parameters.items()}
    plain = vars(lean.parser().parse_args([]))
    assert plain.pop("debug") is False
    assert plain.pop("approve") == []
    assert typed.pop("approve") is None
    assert known.pop("approve") == ()
    assert plain == typed == known


def test_options_reach_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Joining] = []
    monkeypatch.setattr(lean, "join_fleet", lambda asked, usage: seen.append(asked))
    words = ["https://c.example", "--data", "d", "--approve", "1", "--approve", "2", "--ca", "x"]
    assert lean.main(words) == 0
    expected = Joining(
        url="https://c.example", data=Path("d"), approve=("1", "2"), authority=Path("x")
    )
    assert seen == [expected]


def test_errors_are_one_line_and_an_exit_code(tmp_path: Path) -> None:
    """Nobody listens there: the code of the line, no traceback."""
    home = str(tmp_path / "home")
    ended = lean_client("http://127.0.0.1:9", "--patience", "0.2", "--home", home, "--name", "va")
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("AB-7")
    assert "Traceback" not in ended.stderr


def test_wrong_usage_is_exit_code_2(tmp_path: Path) -> None:
    ended = lean_client("--home", str(tmp_path / "home"))
    assert ended.returncode == 2
    assert "address of the coordinator" in ended.stderr


def test_other_commands_name_the_extra() -> None:
    command = [sys.executable, "-c", MAIN, "simulate", "plan.toml"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith("AB-801")


def test_a_client_loads_no_database_no_server_and_no_terminal() -> None:
    """What the extra ``client`` does not install must not be asked for."""
    look = (
        WITHOUT
        + "import anabranch.cli.lean, anabranch.runtimes.http.client.member\n"
        + "import anabranch.runtimes.http.client.places, anabranch.client.home\n"
        + "print(sorted({n.split('.')[0] for n in sys.modules if sys.modules[n] is not None}))"
    )
    told = subprocess.run(
        [sys.executable, "-c", look], capture_output=True, text=True, timeout=60, check=True
    )
    for heavy in ("sqlalchemy", "starlette", "uvicorn", "torch", "pandas", "pygments", "rich"):
        assert f"'{heavy}'" not in told.stdout
