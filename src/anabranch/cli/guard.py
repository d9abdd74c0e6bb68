"""Errors as people meet them: one line on stderr and an exit code, a traceback on request only."""

from __future__ import annotations

import sys
import traceback
from enum import IntEnum

import click
import typer
from typer.core import TyperGroup

from anabranch.errors import AnabranchError

__all__ = ["ExitCode", "GuardedGroup"]

_DEBUG = "--debug"


class ExitCode(IntEnum):
    """What the program returns to the shell."""

    OK = 0
    ERROR = 1
    USAGE = 2
    LIMITS_MISSED = 3
    INTERRUPTED = 130


class GuardedGroup(TyperGroup):
    """The root of all commands: turns errors into messages and takes ``--debug`` anywhere."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_DEBUG] = _DEBUG in args
        return super().parse_args(ctx, [arg for arg in args if arg != _DEBUG])

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except AnabranchError as error:
            _tell(str(error), debug=bool(ctx.meta.get(_DEBUG)))
            raise typer.Exit(ExitCode.ERROR) from error
        except KeyboardInterrupt as error:
            sys.stderr.write("Interrupted. What was committed is kept; see `anabranch resume`.\n")
            raise typer.Exit(ExitCode.INTERRUPTED) from error
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            # The last resort of the program: whatever else goes wrong is named, never swallowed.
            _tell(str(_unexpected(error)), debug=bool(ctx.meta.get(_DEBUG)))
            raise typer.Exit(ExitCode.ERROR) from error


def _unexpected(error: Exception) -> AnabranchError:
    return AnabranchError(
        "AB-802",
        f"an error that Anabranch does not know: {type(error).__name__}: {error}.",
        fix="run the command again with --debug and report what it prints.",
        kept="Rounds that were committed are kept.",
    )


def _tell(message: str, *, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    sys.stderr.write(message + "\n")
