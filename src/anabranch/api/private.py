"""A private run: its allotment in the ledger, its secret, and what it adds to rounds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from anabranch.api.prepare import Prepared
from anabranch.coordinator.asking import Asking
from anabranch.coordinator.releasing import OpenReleases, PrivateReleases, Releases
from anabranch.coordinator.store.ledger import PopulationLedger, RunLedger
from anabranch.fleet.selection import SecretDraw
from anabranch.plan.mechanism import check_promise
from anabranch.plan.promise import Promise, promise_of
from anabranch.privacy.door import ReleaseDoor
from anabranch.privacy.mechanisms import DistributedNoise

__all__ = ["Protection", "protection_of"]

LEDGERS = "ledgers"
"""Folder of the populations' ledgers, inside the store."""


@dataclass
class Protection:
    """What protects the people behind a run.

    Attributes:
        prepared: the run; simulated clients know where their noise comes from.
        releases: what may leave.
        ledger: the run's part of its population's ledger; None for a run without a promise.
    """

    prepared: Prepared
    releases: Releases
    ledger: RunLedger | None = None

    @property
    def commit_seconds(self) -> float:
        """A private round is durable before the next one begins: its release was paid for."""
        return 0.0 if self.ledger is not None else self.prepared.plan.runtime.commit_seconds

    def guard(self, asking: Asking) -> Asking:
        """Who takes part is secret, and limited where the promise says so."""
        if self.ledger is None or not isinstance(self.releases, PrivateReleases):
            return asking
        ledger = self.ledger
        asking.draw = lambda number: SecretDraw(ledger.coins(number), number)
        asking.gate = self.releases
        return asking

    def finish(self, status: str, reason: str) -> None:
        """What was not used returns to the population; a run that is over loses its secret."""
        if self.ledger is not None:
            self.ledger.finish(reason, final=status != "stopped")


@contextmanager
def protection_of(prepared: Prepared, run_id: str, store: Path) -> Iterator[Protection]:
    """Open the ledger and take the run's allotment, or nothing for a run without a promise.

    Raises:
        AnabranchError: AB-916 to AB-918 the ledger refuses the run; AB-933, AB-942 the promise
            leaves nothing to learn.
    """
    plan, mechanism = prepared.plan, prepared.program.mechanism
    if plan.privacy is None or mechanism is None:
        yield Protection(prepared, OpenReleases(ReleaseDoor()))
        return
    promise = checked_promise(prepared)
    with PopulationLedger.open(store / LEDGERS, promise.opened) as population:
        ledger = population.begin(promise.allotted(run_id, plan.contract_digest))
        if isinstance(mechanism, DistributedNoise):
            program = replace(prepared.program, secret=ledger.client_key())
            prepared = replace(prepared, program=program)
        releases = PrivateReleases(promise, mechanism, ledger, prepared.federation.names, plan.seed)
        yield Protection(prepared, releases, ledger)


def checked_promise(prepared: Prepared) -> Promise:
    """The numbers of the plan's promise, when there is something to learn within it."""
    clients = len(prepared.federation)
    promise = promise_of(prepared.plan, clients)
    if prepared.program.mechanism is not None:
        check_promise(prepared.plan, promise, prepared.program.mechanism, clients)
    return promise
