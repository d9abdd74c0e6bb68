"""The hash chain over a population's entries: none can be changed, dropped or moved unnoticed.

A link's digest covers the digest before it and the digest of its own content. So whoever kept an
old digest can be shown, by content digests alone, that a later one continues it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from anabranch.privacy.ledger.documents import as_document, canonical, unreadable
from anabranch.privacy.ledger.entries import Entry

__all__ = ["Link", "append", "checked", "continued", "first_head"]


@dataclass(frozen=True)
class Link:
    """An entry in its place.

    Attributes:
        sequence: its number, from 0.
        at: when it was written, seconds since 1970 (UTC).
        entry: the entry.
        previous: digest of the link before.
        digest: SHA-256 over ``previous`` and :attr:`content`.
    """

    sequence: int
    at: float
    entry: Entry
    previous: str
    digest: str

    @property
    def content(self) -> str:
        """SHA-256 over number, time and entry; it shows nothing of them."""
        return _content(self.entry, self.sequence, self.at)


def first_head(population: str) -> str:
    """What the first entry of a population refers to: ledgers never mix."""
    return hashlib.sha256(f"anabranch ledger 1\n{population}".encode()).hexdigest()


def append(entry: Entry, sequence: int, previous: str, at: float) -> Link:
    """The link that follows the one with digest ``previous``."""
    digest = continued(previous, [_content(entry, sequence, at)])
    return Link(sequence, at, entry, previous, digest)


def _content(entry: Entry, sequence: int, at: float) -> str:
    text = canonical([sequence, at, as_document(entry)])
    return hashlib.sha256(text.encode()).hexdigest()


def continued(head: str, contents: Iterable[str]) -> str:
    """The head after links with these content digests.

    Raises:
        ValueError: a digest is not hexadecimal.
    """
    for content in contents:
        joined = bytes.fromhex(head) + bytes.fromhex(content)
        head = hashlib.sha256(b"anabranch ledger link 1\n" + joined).hexdigest()
    return head


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
