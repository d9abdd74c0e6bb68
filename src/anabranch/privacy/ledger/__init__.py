"""The privacy ledger of a population: entries, their chain, the balance, and the decisions. Pure.

Nothing here touches a disk: `anabranch.coordinator.store.ledger` keeps the entries, and asks these
rules before it appends one.
"""

from anabranch.privacy.ledger.balance import Balance, Release, RunBalance
from anabranch.privacy.ledger.chain import Link, append, checked, first_head
from anabranch.privacy.ledger.combine import charges_of, covers, epsilon_of, share_of
from anabranch.privacy.ledger.documents import Document, as_document, canonical, from_document
from anabranch.privacy.ledger.entries import (
    Allotted,
    Charge,
    Closed,
    Entry,
    Line,
    Opened,
    Purpose,
    Request,
    Reserved,
    Settled,
)
from anabranch.privacy.ledger.matrix import MatrixEvent
from anabranch.privacy.ledger.rules import (
    DryRun,
    allot,
    close,
    dry_run,
    reserve,
    same_population,
    settle,
)

__all__ = [
    "Allotted",
    "Balance",
    "Charge",
    "Closed",
    "Document",
    "DryRun",
    "Entry",
    "Line",
    "Link",
    "MatrixEvent",
    "Opened",
    "Purpose",
    "Release",
    "Request",
    "Reserved",
    "RunBalance",
    "Settled",
    "allot",
    "append",
    "as_document",
    "canonical",
    "charges_of",
    "checked",
    "close",
    "covers",
    "dry_run",
    "epsilon_of",
    "first_head",
    "from_document",
    "reserve",
    "same_population",
    "settle",
    "share_of",
]
