"""Errors as people meet them: one line on stderr and an exit code, a traceback on request only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click
import typer
from typer.core import TyperGroup

from anabranch.cli.endings import INTERRUPTED, ExitCode, tell, unexpected
from anabranch.errors import AnabranchError

__all__ = ["GuardedGroup"]

_DEBUG = "--debug"
_USAGE = frozenset({"AB-108", "AB-810"})
"""Errors in how a command was typed."""


class _PlainFormatter(click.HelpFormatter):
    """Help without the escapes that Typer puts in for Rich, which does not print it here."""

    def write_dl(
        self, rows: Sequence[tuple[str, str]], col_max: int = 30, col_spacing: int = 2
    ) -> None:
        super().write_dl([(a, b.replace("\\[", "[")) for a, b in rows], col_max, col_spacing)


class _PlainContext(click.Context):
    formatter_class = _PlainFormatter


class GuardedGroup(TyperGroup):
    """The root of all commands: turns errors into messages and takes ``--debug`` anywhere."""

    context_class = _PlainContext

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: object,
    ) -> click.Context:
        for command in _below(self):
            command.context_class = _PlainContext
        return super().make_context(info_name, args, parent, **extra)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_DEBUG] = _DEBUG in args
        return super().parse_args(ctx, [arg for arg in args if arg != _DEBUG])

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except AnabranchError as error:
            tell(str(error), debug=bool(ctx.meta.get(_DEBUG)))
            wrong = ExitCode.USAGE if error.code in _USAGE else ExitCode.ERROR
            raise typer.Exit(wrong) from error
        except KeyboardInterrupt as error:
            tell(INTERRUPTED, debug=False)
            raise typer.Exit(ExitCode.INTERRUPTED) from error
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            # The last resort of the program: whatever else goes wrong is named, never swallowed.
            tell(str(unexpected(error)), debug=bool(ctx.meta.get(_DEBUG)))
            raise typer.Exit(ExitCode.ERROR) from error


def _below(group: click.Group) -> Iterator[click.Command]:
    """Every command under a group."""
    for command in group.commands.values():
        yield command
        if isinstance(command, click.Group):
            yield from _below(command)
