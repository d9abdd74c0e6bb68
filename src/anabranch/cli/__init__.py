"""The command line: thin commands over the Python interface, nothing that a notebook lacks.

Progress and errors go to stderr, results to stdout. Exit codes: 0 done, 1 error, 2 wrong usage,
3 limits of the plan missed, 130 interrupted. Nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Entry point of the program ``anabranch``."""
    try:
        from anabranch.cli.app import app
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in ("typer", "rich", "click"):
            raise
        if sys.argv[1:2] == ["join"]:
            from anabranch.cli import lean

            sys.exit(lean.main(sys.argv[2:]))
        sys.stderr.write(
            f"AB-801 [command] the command line needs {error.name}, which is not installed "
            "(only `anabranch join` works without). Nothing was changed. "
            'Fix: pip install "anabranch[cli]". See docs/errors/AB-801.md\n'
        )
        sys.exit(1)
    app()
