"""Pages of error codes on the terminal, help without escapes, and wrong usage as exit code 2."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from anabranch.cli.app import app

DOCS = Path(__file__).resolve().parents[2] / "docs" / "errors"
runner = CliRunner()


@pytest.mark.parametrize("code", ["AB-214", "ab-214", "214"])
def test_the_page_of_a_code(code: str) -> None:
    result = runner.invoke(app, ["explain", code])
    assert result.exit_code == 0
    assert result.output.strip() == (DOCS / "AB-214.md").read_text("utf-8").strip()


def test_every_page_can_be_shown() -> None:
    for page in DOCS.glob("AB-*.md"):
        assert runner.invoke(app, ["explain", page.stem]).exit_code == 0


@pytest.mark.parametrize("code", ["AB-999", "help", "../AB-214"])
def test_a_code_that_is_not_there(code: str) -> None:
    result = runner.invoke(app, ["explain", code])
    assert result.exit_code == 2
    assert "AB-810" in result.output


@pytest.mark.parametrize("words", [["init"], ["amend"], ["roster", "add"], ["explain"]])
def test_help_shows_no_escapes(words: list[str]) -> None:
    result = runner.invoke(app, [*words, "--help"])
    assert "[required]" in result.output
    assert "\\[" not in result.output


def test_a_malformed_change_is_wrong_usage(tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text('schema = 1\ndata.source = "heart"\nmodel.name = "logistic"\n')
    for command in (["plan", "explain"], ["simulate"]):
        result = runner.invoke(app, [*command, str(plan), "--set", "foo"])
        assert result.exit_code == 2
        assert "AB-108" in result.output
        assert "Traceback" not in result.output
