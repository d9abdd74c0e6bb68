"""Results on stdout: tables for people, JSON for programs; and the run that is meant."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from anabranch.errors import AnabranchError

if TYPE_CHECKING:
    from anabranch.coordinator.store import Store

__all__ = ["chosen_run", "opened_store", "print_json", "print_table", "say", "write_text"]


def say(text: str = "") -> None:
    """One line of the result."""
    sys.stdout.write(text + "\n")


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """A Rich table on a terminal, plain columns elsewhere."""
    if not sys.stdout.isatty():
        from anabranch.observe.tables import text_table

        say(f"{title}\n\n" * bool(title) + text_table(header, rows))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left")
    for number, name in enumerate(header):
        table.add_column(Text(name), justify="right" if number else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(table)


def print_json(value: object) -> None:
    """JSON on stdout."""
    say(json.dumps(value, indent=2, allow_nan=False))


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path``, or to stdout when the path is ``-``.

    Raises:
        AnabranchError: AB-806 the file cannot be written.
    """
    if str(path) == "-":
        sys.stdout.write(text)
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise AnabranchError(
            "AB-806",
            f"{path} cannot be written: {error.strerror or error}.",
            fix="choose another place, or make room and give yourself the right to write there.",
            kept="Runs are unchanged.",
        ) from error


@contextmanager
def opened_store(folder: Path | None) -> Iterator[Store]:
    """An existing store: ``folder``, else the one where runs go by default.

    Raises:
        AnabranchError: AB-617 there is none.
    """
    from anabranch.coordinator.store import Store

    with Store.open(folder if folder is not None else Path("runs"), create=False) as store:
        yield store


def chosen_run(store: Store, name: str) -> str:
    """The id of the run that ``name`` means: an id, the beginning of one, or ``last``.

    Raises:
        AnabranchError: AB-803 the store is empty, AB-804 several runs begin like this, AB-608
            there is no such run.
    """
    ids = [run.id for run in store.runs()]
    if name in ids:
        return name
    if name == "last":
        if not ids:
            raise AnabranchError(
                "AB-803",
                f"the store {store.path} holds no run.",
                fix="start one with `anabranch simulate PLAN`, or name another store.",
            )
        return ids[0]
    meant = [run_id for run_id in ids if run_id.startswith(name)]
    if len(meant) > 1:
        raise AnabranchError(
            "AB-804",
            f"{name!r} is the beginning of {len(meant)} runs: {', '.join(meant[:4])}.",
            fix="give more of the id.",
        )
    return meant[0] if meant else store.run(name).id
