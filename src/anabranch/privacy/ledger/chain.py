"""The hash chain over a population's entries: none can be changed, dropped or moved unnoticed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from anabranch.privacy.ledger.documents import as_document, canonical, unreadable
from anabranch.privacy.ledger.entries import Entry

__all__ = ["Link", "append", "checked", "first_head"]


@dataclass(frozen=True)
class Link:
    """An entry in its place.

    Attributes:
        sequence: its number, from 0.
        at: when it was written, seconds since 1970 (UTC).
        entry: the entry.
        previous: digest of the link before.
        digest: SHA-256 over all of the above.
    """

    sequence: int
    at: float
    entry: Entry
    previous: str
    digest: str


def first_head(population: str) -> str:
    """What the first entry of a population refers to: ledgers never mix."""
    return hashlib.sha256(f"anabranch ledger 1\n{population}".encode()).hexdigest()


def append(entry: Entry, sequence: int, previous: str, at: float) -> Link:
    """The link that follows the one with digest ``previous``."""
    text = canonical([previous, sequence, at, as_document(entry)])
    return Link(sequence, at, entry, previous, hashlib.sha256(text.encode()).hexdigest())


def checked(population: str, links: Iterable[Link], *, start: Link | None = None) -> Iterator[Link]:
    """The links, each after its digest was computed again.

    Args:
        population: whose ledger it is.
        links: in order.
        start: a link that was checked before; ``links`` follow it.

    Raises:
        AnabranchError: AB-914 at the first link that does not follow from the one before.
    """
    head = first_head(population) if start is None else start.digest
    sequence = 0 if start is None else start.sequence + 1
    for link in links:
        if link != append(link.entry, sequence, head, link.at):
            raise unreadable(f"entry {sequence} of population {population!r} does not follow")
        yield link
        head, sequence = link.digest, sequence + 1
