"""Errors that a user can meet: each has a code, says where, what was lost and how to mend it.

An error reads like::

    AB-214 [data] client 'va': column 'chol' is text in row 17 (wanted: number, mg/dl).
    Nothing was sent. Fix: correct the cell or map the column in site.toml.
    See docs/errors/AB-214.md

Codes are grouped by room: 1xx plan, 2xx data, 3xx model and learner, 4xx algebra (options that do
not go together), 5xx rounds and runs, 6xx store, 7xx runtimes, 8xx command line,
9xx privacy.
"""

from __future__ import annotations

__all__ = ["AREAS", "AnabranchError", "area_of", "page_of"]

AREAS = {
    "1": "plan",
    "2": "data",
    "3": "model",
    "4": "algebra",
    "5": "run",
    "6": "store",
    "7": "runtime",
    "8": "command",
    "9": "privacy",
}


def area_of(code: str) -> str:
    """The room that a code like ``AB-214`` belongs to.

    >>> area_of("AB-214")
    'data'
    """
    return AREAS[code[3]]


def page_of(code: str) -> str:
    """Where the documentation of ``code`` stands, relative to the repository."""
    return f"docs/errors/{code}.md"


class AnabranchError(Exception):
    """An error with a code, made for a person who wants to go on working.

    Args:
        code: ``AB-nnn``; every code has a page in ``docs/errors``.
        message: what was wrong and where, in one or two sentences without values of a person.
        fix: what to do about it.
        kept: what became of the work done so far ("Nothing was sent.").
    """

    def __init__(self, code: str, message: str, *, fix: str, kept: str = "Nothing was changed."):
        self.code = code
        self.message = message
        self.fix = fix
        self.kept = kept
        super().__init__(code, message)

    def __str__(self) -> str:
        return (
            f"{self.code} [{area_of(self.code)}] {self.message} {self.kept} "
            f"Fix: {self.fix} See {page_of(self.code)}"
        )

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross process borders; the keyword arguments must survive pickling.
        return (_rebuild, (type(self), self.code, self.message, self.fix, self.kept))


def _rebuild(
    kind: type[AnabranchError], code: str, message: str, fix: str, kept: str
) -> AnabranchError:
    return kind(code, message, fix=fix, kept=kept)
