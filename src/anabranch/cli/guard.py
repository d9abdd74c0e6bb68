"""Errors as people meet them: one line on stderr and an exit code, a traceback on request only."""

from __future__ import annotations

import click
import typer
from typer.core import TyperGroup

from anabranch.cli.endings import INTERRUPTED, ExitCode, tell, unexpected
from anabranch.errors import AnabranchError

__all__ = ["GuardedGroup"]

_DEBUG = "--debug"


class GuardedGroup(TyperGroup):
    """The root of all commands: turns errors into messages and takes ``--debug`` anywhere."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_DEBUG] = _DEBUG in args
        return super().parse_args(ctx, [arg for arg in args if arg != _DEBUG])

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except AnabranchError as error:
            tell(str(error), debug=bool(ctx.meta.get(_DEBUG)))
            raise typer.Exit(ExitCode.ERROR) from error
        except KeyboardInterrupt as error:
            tell(INTERRUPTED, debug=False)
            raise typer.Exit(ExitCode.INTERRUPTED) from error
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            # The last resort of the program: whatever else goes wrong is named, never swallowed.
            tell(str(unexpected(error)), debug=bool(ctx.meta.get(_DEBUG)))
            raise typer.Exit(ExitCode.ERROR) from error
