"""What all secure sums of a run share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from anabranch.coordinator.secure_journal import SumJournal
from anabranch.privacy.secure_aggregation.checking import Checker
from anabranch.privacy.secure_aggregation.terms import Terms

__all__ = ["SecureSetup"]

_ZEROS = bytes(32)


def _no_roster() -> tuple[frozenset[str], bytes]:
    return frozenset(), _ZEROS


def _no_ledger() -> tuple[int, bytes]:
    return 0, _ZEROS


@dataclass(frozen=True)
class SecureSetup:
    """What all sums of a run share.

    Attributes:
        run: identifier of the run.
        terms: of the contract.
        names: client identifiers by number.
        identity: public key of a client number; None if it is not enrolled.
        journal: keeps what a restart must know.
        needed: fewest updates that make a round, by purpose; the sum is not opened below it.
        standing: names that are openly enrolled as canaries, and SHA-256 of the signed roster in
            force (zeros without one).
        ledger: entries and head of the population's ledger.
        checker: makes the coordinator's own checks.
        threads: cores that take masks off.
        open: whether clients that `identity` does not know may introduce themselves.
        met: the keys of those who did.
        buffer: updates that make a sum in asynchronous rounds (K).
    """

    run: str
    terms: Terms
    names: Sequence[str]
    identity: Callable[[int], bytes | None]
    journal: SumJournal
    needed: Mapping[str, int] = field(default_factory=dict)
    standing: Callable[[], tuple[frozenset[str], bytes]] = _no_roster
    ledger: Callable[[], tuple[int, bytes]] = _no_ledger
    checker: Checker = field(default_factory=Checker)
    threads: int = 1
    open: bool = False
    met: dict[int, bytes] = field(default_factory=dict)
    buffer: int = 0

    def key(self, client: int) -> bytes | None:
        """The public key of a client; None if nobody knows it."""
        return self.identity(client) or self.met.get(client)
