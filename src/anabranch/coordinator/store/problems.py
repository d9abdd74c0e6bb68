"""What SQLite said, in words that lead on."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final

from anabranch.disk import INTACT, full_disk
from anabranch.errors import AnabranchError

__all__ = ["PATIENCE_MS", "database_problem"]

PATIENCE_MS: Final = 10_000
"""How long a transaction waits for another process, in milliseconds."""

_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_BUSY: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_DENIED: Final = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM)


def database_problem(
    error: BaseException | None, path: Path, doing: str, fallback: str = ""
) -> AnabranchError:
    """AB-602, AB-603, AB-612, AB-613 or AB-614 for an error of the SQLite driver.

    Args:
        error: the driver's.
        path: the database.
        doing: what was tried, as the beginning of a sentence.
        fallback: words of the error when the driver gave none.
    """
    code = getattr(error, "sqlite_errorcode", -1) & 0xFF
    words = str(error) if error is not None else fallback
    if code == sqlite3.SQLITE_FULL:
        return full_disk(path, doing)
    known: list[tuple[tuple[int, ...], Callable[[], AnabranchError]]] = [
        (_DENIED, lambda: _denied(path, doing, words)),
        (_DAMAGED, lambda: _damaged(path, words)),
        (_BUSY, lambda: _busy(path, doing)),
    ]
    for codes, make in known:
        if code in codes:
            return make()
    return AnabranchError(
        "AB-613",
        f"{doing} failed: the database {path} reported an error ({words}).",
        fix="check the disk, then resume the run.",
        kept=INTACT,
    )


def _denied(path: Path, doing: str, words: str) -> AnabranchError:
    return AnabranchError(
        "AB-603",
        f"{doing} is not allowed: {path} or its folder cannot be written ({words}).",
        fix="give the user write permission, or choose another folder for the store.",
        kept=INTACT,
    )


def _damaged(path: Path, words: str) -> AnabranchError:
    return AnabranchError(
        "AB-612",
        f"{path} is not a store of Anabranch, or it is damaged ({words}).",
        fix="choose another folder, or restore the store from a backup.",
    )


def _busy(path: Path, doing: str) -> AnabranchError:
    return AnabranchError(
        "AB-614",
        f"{doing} failed: another process has held {path} for {PATIENCE_MS // 1000} seconds.",
        fix="end the process that has the database open (often a database browser), then resume.",
        kept=INTACT,
    )
