"""Options and arguments that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

__all__ = [
    "AsJson",
    "Changes",
    "JsonFile",
    "Kind",
    "PlanFile",
    "Quiet",
    "RunName",
    "StoreFolder",
    "WorkerKind",
    "Workers",
    "runtime_changes",
]


class Kind(StrEnum):
    """How worker processes are made."""

    AUTO = "auto"
    INLINE = "inline"
    SPAWN = "spawn"
    FORK = "fork"


PlanFile: TypeAlias = Annotated[Path, typer.Argument(help="The plan, a TOML file.", metavar="PLAN")]

Changes: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one key of the plan; repeatable."),
]

StoreFolder: TypeAlias = Annotated[
    Path | None,
    typer.Option("--store", metavar="DIR", help="Folder of the run store (default: runs)."),
]

Workers: TypeAlias = Annotated[
    int | None,
    typer.Option("--workers", min=1, metavar="N", help="Worker processes (default: as planned)."),
]

WorkerKind: TypeAlias = Annotated[
    Kind | None, typer.Option("--kind", help="How workers are made (default: as planned).")
]

Quiet: TypeAlias = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress; results and errors only.")
]

JsonFile: TypeAlias = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", help='Write the results as JSON ("-": to stdout).'),
]

AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]

RunName: TypeAlias = Annotated[
    str,
    typer.Argument(help='A run: its id, the beginning of it, or "last".', metavar="RUN"),
]


def runtime_changes(workers: int | None, kind: Kind | None) -> list[str]:
    """Worker options as changes of the plan.

    >>> runtime_changes(2, Kind.SPAWN)
    ['runtime.workers=2', 'runtime.kind="spawn"']
    """
    changes = [] if workers is None else [f"runtime.workers={workers}"]
    return changes if kind is None else [*changes, f'runtime.kind="{kind.value}"']
