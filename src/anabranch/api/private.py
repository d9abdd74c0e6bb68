"""A private run: its allotment in the ledger, its secret, and what it adds to rounds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from anabranch.api.prepare import Prepared
from anabranch.api.statistics import with_statistics
from anabranch.client.inside import InsideNoise, units_of
from anabranch.coordinator.asking import Asking
from anabranch.coordinator.evaluation import Scored
from anabranch.coordinator.private_releases import PrivateReleases
from anabranch.coordinator.releasing import OpenReleases
from anabranch.coordinator.site_releases import SiteReleases, SiteTelling
from anabranch.coordinator.store import Arrays, StoredRelease
from anabranch.coordinator.store.ledger import PopulationLedger, RunLedger
from anabranch.disk import Faults, no_faults
from anabranch.fleet.selection import SecretDraw
from anabranch.plan.mechanism import check_promise
from anabranch.plan.promise import Promise, local_schedule, promise_of
from anabranch.plan.site_units import declared_units
from anabranch.privacy.door import ReleaseDoor
from anabranch.privacy.events import GaussianEvent, Unit
from anabranch.privacy.mechanisms import DistributedNoise

__all__ = ["LEDGERS", "Protection", "ShowsLedger", "checked_promise", "protection_of"]

LEDGERS = "ledgers"
"""Folder of the populations' ledgers, inside the store."""


@runtime_checkable
class ShowsLedger(Protocol):
    """A runtime whose clients keep the head of the ledger."""

    def show_ledger(self, path: Path) -> None:
        """The file of the ledger that the run spends from."""
        ...


@dataclass
class Protection:
    """What protects the people behind a run.

    Attributes:
        prepared: the run; simulated clients know where their noise comes from.
        releases: what may leave.
        ledger: the run's part of its population's ledger; None for a run without a promise.
    """

    prepared: Prepared
    releases: OpenReleases | PrivateReleases | SiteReleases
    ledger: RunLedger | None = None

    @property
    def commit_seconds(self) -> float:
        """A private round is durable before the next one begins: its release was paid for."""
        return 0.0 if self.ledger is not None else self.prepared.plan.runtime.commit_seconds

    @property
    def scored(self) -> Scored | None:
        """Who releases what clients tell of the model's quality; None where nobody needs to."""
        if isinstance(self.releases, OpenReleases) or not self.prepared.program.tells_scores:
            return None
        return self.releases

    def guard(self, asking: Asking) -> Asking:
        """Who takes part is secret, and limited where the promise says so."""
        if self.ledger is None or isinstance(self.releases, OpenReleases):
            return asking
        ledger = self.ledger
        if isinstance(self.releases, PrivateReleases):
            asking.draw = lambda number: SecretDraw(ledger.coins(number), number)
        asking.gate = self.releases
        return asking

    def show(self, runtime: object) -> None:
        """Let clients elsewhere see where the ledger stands, where the runtime can."""
        if self.ledger is not None and isinstance(runtime, ShowsLedger):
            runtime.show_ledger(self.ledger.ledger.path)

    def recover(self, extra: Arrays, released: Iterable[StoredRelease]) -> None:
        """Settle what was durable in the run, but not yet in the ledger, when it was killed."""
        if isinstance(self.releases, PrivateReleases):
            models = (stored for stored in released if stored.entry.what == "model")
            outputs = {stored.round: str(stored.entry.details.get("sha256")) for stored in models}
            self.releases.recover(extra, outputs)

    def finish(self, status: str, reason: str) -> None:
        """What was not used returns to the population; a run that is over loses its secret."""
        if self.ledger is not None:
            self.ledger.finish(reason, final=status != "stopped")


@contextmanager
def protection_of(
    prepared: Prepared, run_id: str, store: Path, faults: Faults = no_faults
) -> Iterator[Protection]:
    """Open the ledger and take the run's allotment, or nothing for a run without a promise.

    Raises:
        AnabranchError: AB-916 to AB-918 the ledger refuses the run; AB-933, AB-942 the promise
            leaves nothing to learn.
    """
    plan, mechanism = prepared.plan, prepared.program.mechanism
    if prepared.program.inside is not None:
        with _inside(prepared, prepared.program.inside, run_id, store, faults) as protection:
            yield protection
        return
    if plan.privacy is None or mechanism is None:
        yield Protection(prepared, OpenReleases(ReleaseDoor()))
        return
    promise = checked_promise(prepared)
    with PopulationLedger.open(store / LEDGERS, promise.opened, faults) as population:
        ledger = population.begin(promise.allotted(run_id, plan.contract_digest))
        prepared = with_statistics(prepared, ledger)
        mechanism = prepared.program.mechanism or mechanism
        if isinstance(mechanism, DistributedNoise):
            program = replace(prepared.program, secret=ledger.client_key())
            prepared = replace(prepared, program=program)
        releases = PrivateReleases(promise, mechanism, ledger, prepared.federation.names, plan.seed)
        yield Protection(prepared, releases, ledger)


@contextmanager
def _inside(
    prepared: Prepared, inside: InsideNoise, run_id: str, store: Path, faults: Faults
) -> Iterator[Protection]:
    """A run whose sites make the noise: every site has its own line in the ledger."""
    plan, names = prepared.plan, prepared.federation.names
    sites = _site_units(prepared)
    promise = promise_of(plan, len(names), sites)
    planned = {
        line.site: event
        for line in promise.lines
        for event in line.charges
        if line.site and line.purpose == "model" and isinstance(event, GaussianEvent)
    }
    steps = {
        name: local_schedule(inside.mechanism, plan.local, units)[1]
        for name, units in sites.items()
    }
    charges = {name: replace(event, rounds=steps[name]) for name, event in planned.items()}
    noise = {name: event.noise_multiplier for name, event in planned.items()}
    with PopulationLedger.open(store / LEDGERS, promise.opened, faults) as population:
        ledger = population.begin(promise.allotted(run_id, plan.contract_digest))
        prepared = with_statistics(prepared, ledger)
        program = replace(
            prepared.program,
            inside=replace(inside, multipliers=noise),
            secret=ledger.client_key(),
        )
        inside = prepared.program.inside or inside
        scores, per_evaluation = inside.scores, promise.evaluation_charge()
        told = SiteTelling(scores, per_evaluation) if scores and per_evaluation else None
        clip = float(inside.mechanism.clip.first)
        releases = SiteReleases(charges, ledger, names, ReleaseDoor(), told, clip)
        yield Protection(replace(prepared, program=program), releases, ledger)


def _site_units(prepared: Prepared) -> dict[str, int]:
    """Units of privacy at each site, as the contract declares them.

    Else as they are; a coordinator that holds no rows was told how many there are.
    """
    privacy, train = prepared.plan.privacy, prepared.federation.train
    assert privacy is not None  # only such a plan makes noise inside sites
    names = prepared.federation.names
    declared = declared_units(prepared.plan, names)
    if declared is not None:
        return declared
    if privacy.unit is Unit.EXAMPLE:
        return dict(zip(names, train.counts.tolist(), strict=True))
    return {name: units_of(train.of(n), privacy.unit, name) for n, name in enumerate(names)}


def checked_promise(prepared: Prepared) -> Promise:
    """The numbers of the plan's promise, when there is something to learn within it.

    Raises:
        AnabranchError: AB-933, AB-942 there is nothing; as `promise_of`.
    """
    clients = len(prepared.federation)
    if prepared.program.inside is not None:
        return promise_of(prepared.plan, clients, _site_units(prepared))
    promise = promise_of(prepared.plan, clients)
    if prepared.program.mechanism is not None:
        check_promise(prepared.plan, promise, prepared.program.mechanism, clients)
    return promise
