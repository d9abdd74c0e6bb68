"""Items and tables: what a privacy report is made of."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Item", "Rows"]


@dataclass(frozen=True)
class Rows:
    """A table of the report."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Item:
    """One item.

    Attributes:
        name: identifier.
        title: what is asked, in the words of the publication.
        facts: label and value.
        tables: more facts.
        texts: sentences, generated.
    """

    name: str
    title: str
    facts: tuple[tuple[str, str], ...] = ()
    tables: tuple[Rows, ...] = ()
    texts: tuple[str, ...] = ()
