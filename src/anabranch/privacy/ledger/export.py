"""A ledger as one JSON document that can be checked anywhere, without the coordinator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from anabranch.privacy.ledger.balance import Balance
from anabranch.privacy.ledger.chain import Link, checked
from anabranch.privacy.ledger.documents import Document, as_document, from_document, unreadable
from anabranch.privacy.ledger.entries import Opened

__all__ = ["FORMAT", "balance_of", "exported", "imported"]

FORMAT = "anabranch privacy ledger 1"


def exported(population: str, links: Sequence[Link]) -> dict[str, Document]:
    """The document of a ledger."""
    return {
        "format": FORMAT,
        "population": population,
        "entries": [
            {
                "sequence": link.sequence,
                "at": link.at,
                "entry": as_document(link.entry),
                "previous": link.previous,
                "digest": link.digest,
            }
            for link in links
        ],
    }


def imported(document: Mapping[str, Document]) -> tuple[str, tuple[Link, ...]]:
    """Population and entries of an exported ledger, every digest computed again.

    Raises:
        AnabranchError: AB-914 it is no such document, or an entry does not follow.
    """
    entries, population = document.get("entries"), document.get("population")
    if document.get("format") != FORMAT or not isinstance(population, str):
        raise unreadable(f"it is no document of the format {FORMAT!r}")
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        raise unreadable("it has no list of entries")
    return population, tuple(checked(population, _links(entries)))


def _links(entries: Sequence[Document]) -> Iterator[Link]:
    for number, given in enumerate(entries):
        if not isinstance(given, Mapping):
            raise unreadable(f"entry {number} is no table")
        at, held = given.get("at"), given.get("entry")
        if not isinstance(at, (int, float)) or not isinstance(held, Mapping):
            raise unreadable(f"entry {number} lacks its time or its content")
        yield Link(
            number,
            float(at),
            from_document(held),
            str(given.get("previous")),
            str(given.get("digest")),
        )


def balance_of(links: Sequence[Link]) -> Balance:
    """The balance after all entries.

    Raises:
        AnabranchError: AB-914 they do not make a ledger.
    """
    if not links or not isinstance(links[0].entry, Opened):
        raise unreadable("it does not begin with the opening of the population")
    return Balance(links[0].entry).after_all(link.entry for link in links[1:])
