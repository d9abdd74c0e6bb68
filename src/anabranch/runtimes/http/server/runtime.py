"""`HttpRuntime`: carries the work of one run to clients that come over HTTP."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from anabranch.client.task import TaskKind
from anabranch.coordinator.archive import UpdateArchive
from anabranch.coordinator.heads import HEAD_EVENT, RunHeads
from anabranch.coordinator.runtime import Fate, Outcome, Payload, Runtime, RuntimeEvent, Work
from anabranch.fleet.roster import Roster
from anabranch.fleet.view import FleetView
from anabranch.runtimes.http.limits import HttpLimits
from anabranch.runtimes.http.reports import TaskReports
from anabranch.runtimes.http.server.desk import Desk, RunFacts
from anabranch.runtimes.http.server.fleet_server import FleetServer
from anabranch.updates.sections import Sections

if TYPE_CHECKING:
    from anabranch.coordinator.store import RoundRecord, RunSession

__all__ = ["FatesAfterCommit", "HttpRuntime"]

_PATIENCE = 0.5
"""Longest wait of one `HttpRuntime.poll` without a limit: an interrupt is then noticed."""


class HttpRuntime:
    """Serves the clients of one run.

    Args:
        names: client identifiers, in the order of client numbers.
        broadcast: sections of what goes down.
        own: does the hold-out tasks, whose data the coordinator owns; None when there are none.
        host: ``localhost`` or an IPv4 loopback address, for a server of its own.
        port: 0 lets the system choose.
        limits: bounds.
        directory: where accepted answers survive the process; a temporary folder when None.
        server: serves other runs too; then host, port, limits and directory are its own.
        facts: of the run, with ``server``.

    Raises:
        AnabranchError: AB-710 the address is not loopback, AB-711 it cannot be listened on.
    """

    framed: Literal["differences"] = "differences"
    """Broadcasts go down as the plan's downlink encodes them."""

    def __init__(
        self,
        names: Sequence[str],
        broadcast: Sections,
        *,
        own: Runtime | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        limits: HttpLimits | None = None,
        directory: Path | None = None,
        server: FleetServer | None = None,
        facts: RunFacts | None = None,
    ) -> None:
        self._mine = server is None
        self.server = server or FleetServer(
            host=host, port=port, limits=limits, directory=directory
        )
        self._sections, self._own = broadcast, own
        self._own_open = self._hold = self._over = False
        self._heads: RunHeads | None = None
        self.archive: UpdateArchive | None = None
        self.desk: Desk = self.server.open(facts or RunFacts("", tuple(names)))
        self._reports = TaskReports(self.desk.facts.names, self.server.counter.reports)
        self.url = self.server.url

    def ready(self, broadcast: Sections, own: Runtime | None) -> None:
        """What became known since the run was opened: the program's broadcast, and own data."""
        self._sections, self._own = broadcast, own

    def equip(self, content: bytes) -> None:
        """What clients need besides the contract: shapes and preprocessing."""
        self.desk.equip(self.server.counter.shelf.put([content]).digest)

    def recover(self, last: int) -> None:
        """The run goes on: fates up to the store's ``last`` durable round may be told."""
        self.desk.recover(last)

    def submit(self, work: Work) -> None:
        if work.kind is TaskKind.HOLDOUT:
            if self._own is None:
                raise RuntimeError("hold-out tasks need the coordinator's own data")
            self._own.submit(work)
            self._own_open = True
            return
        if work.kind is TaskKind.TRAIN:
            self._reports.given_out(work)
        self.desk.submit(work, self._sections)

    def poll(self, timeout: float | None) -> Sequence[RuntimeEvent]:
        if self._own is not None and self._own_open:
            self._own_open = False
            return self._own.poll(timeout)
        if not self.server.alive:
            raise RuntimeError("the HTTP server has ended")
        wait = _PATIENCE if timeout is None else min(timeout, _PATIENCE)
        events = self.desk.events(wait, timeout)
        return [self._complete(event) for event in events]

    def _complete(self, event: RuntimeEvent) -> RuntimeEvent:
        """A payload with its bytes; an outcome with what the client reported of its device."""
        if isinstance(event, Payload):
            return self.desk.payload(event)
        return self._reports.traced(event, self.now()) if isinstance(event, Outcome) else event

    def view(self, now: float) -> FleetView:
        """What clients reported of their devices, and who takes part."""
        view, muster = self._reports.view(now), self.desk.facts.muster
        able = muster.available(self.desk.facts.names) if muster is not None else None
        return view if able is None else replace(view, available=view.available & able)

    def abandon(self, task: str | None = None) -> Sequence[Outcome]:
        self._reports.closed(task)
        own = self._own.abandon(task) if self._own is not None else ()
        self._own_open = False
        return (*own, *self.desk.abandon(task))

    def now(self) -> float:
        return time.monotonic()

    def settle(self, task: str, fates: Mapping[int, Fate]) -> None:
        """Clients hear of their fate with their next contact, at the earliest after the commit."""
        self._reports.closed(task)
        if self._heads is not None:
            merged = [client for client, fate in fates.items() if fate.counts]
            uploads = self.desk.uploads(task, merged)
            self._heads.settled(task, uploads)
            self._archived(task, uploads)
        faults = self.server.counter.faults
        faults.reach("fates.hold.before")
        self.desk.settle(task, fates, hold=self._hold)
        faults.reach("fates.hold.after")

    def _archived(self, task: str, uploads: Mapping[str, str]) -> None:
        """Keep what was merged, where the plan says so, while the spool still has it."""
        if self.archive is None:
            return
        spool = self.server.counter.spool
        for name, answer in spool.answers(task).items():
            if name in uploads:
                self.archive.keep(spool.content(answer))

    def two_phase(self) -> FatesAfterCommit:
        """From now on fates wait for the store: pass this to `GroupedCommits` as ``states``."""
        self._hold = True
        counter, run = self.server.counter, self.desk.facts.run
        if counter.signer.key and run:
            self._heads = counter.proofs[run] = RunHeads(run, counter.signer.head)
        return FatesAfterCommit(self.desk, self.server, self._heads)

    def show_ledger(self, path: Path) -> None:
        """Clients of this run may ask where the ledger at ``path`` stands."""
        self.server.counter.ledgers[self.desk.facts.run] = path

    @property
    def roster(self) -> Roster | None:
        """The signed list of members that secure sums take keys from; None on bare loopback."""
        folder = self.server.counter.folder
        return folder.membership().roster if folder is not None else None

    @property
    def unheard(self) -> int:
        """Fates that clients have not confirmed yet."""
        return self.desk.unheard

    def close(self) -> None:
        """Stop; may be called twice. The run of a shared server goes on until `leave`."""
        if self._mine:
            self.leave()

    def leave(self, *, over: bool = True) -> None:
        """End the run at its server; may be called twice.

        Args:
            over: tell the clients that there will be no more tasks. Otherwise the run is only
                interrupted, and clients hear nothing of tasks whose fate is not decided.
        """
        if self._over:
            return
        self._over = True
        if not over:
            self.server.counter.office.drop(self.desk)
        elif self.server.alive:
            self.desk.close(farewell=self._mine)
        if self._mine:  # the desk stays until the end: a client may still come to hear of it
            self.server.close()
        elif over:
            self.server.end(self.desk, forget=False)
            self.server.counter.proofs.pop(self.desk.facts.run, None)  # the store has them
        if self._own is not None:
            self._own.close()


class FatesAfterCommit:
    """A client is told "merged" only once the round is durable.

    Otherwise a coordinator that crashes in between would do the round again, and the client would
    have promoted a memory that belongs to no round. It is a
    `anabranch.coordinator.store.grouped.TwoPhase` whose states lie at the clients. Before the
    commit the fates are in the spool, marked as not yet true; a restart compares the mark with the
    store's last round. Where the coordinator has a key, it also adds the signed head of each round
    to its record.
    """

    def __init__(self, desk: Desk, server: FleetServer, heads: RunHeads | None = None) -> None:
        self._desk, self._server, self._heads = desk, server, heads

    def recall(self, session: RunSession) -> None:
        """What the run's committed rounds told already."""
        if self._heads is not None:
            self._heads.recall(lambda round_: session.events(HEAD_EVENT, round_))

    def witness(self, record: RoundRecord) -> RoundRecord:
        """The record with the head of its round."""
        return self._heads.witness(record) if self._heads is not None else record

    def sync(self) -> None:
        """The held fates are durable.

        Raises:
            AnabranchError: AB-6xx the disk: the round is then not committed.
        """
        self._server.counter.spool.flush()
        self._server.counter.faults.reach("fates.durable")

    def durable(self) -> Mapping[int, int]:
        """No slot is named by the commit."""
        return {}

    def committed(self) -> None:
        """The round is durable: its fates and its head may be told."""
        faults = self._server.counter.faults
        faults.reach("fates.tell.before")
        if self._heads is not None:
            self._heads.committed()
        self._desk.release()
        faults.reach("fates.tell.after")
