"""`anabranch serve`: a daemon for one fleet and many runs.

Everything it knows lies on the disk: runs in the store, accepted answers in the spool, what sites
told in a folder for each run. A daemon that was killed starts again and goes on; a second one on
the same store is refused.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Final

from anabranch.api.amending import apply_pending, pending_runs, propose
from anabranch.api.servable import OWN_SOURCES, require_protected, require_servable
from anabranch.api.served_records import (
    as_stored,
    draining,
    locked,
    nobody,
    only_run,
    served_record,
)
from anabranch.api.served_run import ServedRun
from anabranch.coordinator.events import Event
from anabranch.coordinator.past_heads import PastHeads
from anabranch.coordinator.store import Store
from anabranch.data.load import load_federation
from anabranch.disk import Faults, explained, make_directory, no_faults, write_durably
from anabranch.errors import AnabranchError
from anabranch.fleet.folder import FleetFolder
from anabranch.fleet.roster import Role
from anabranch.plan import Plan
from anabranch.runtimes.http.limits import HttpLimits
from anabranch.runtimes.http.server.control import ControlFile, control_routes
from anabranch.runtimes.http.server.desk import RunFacts
from anabranch.runtimes.http.server.fleet_server import FleetServer
from anabranch.runtimes.http.server.listening import Tls
from anabranch.runtimes.http.status import ClientSeen, FleetStatus, RunStatus

__all__ = ["Daemon", "ServeOptions", "run_folder"]

SERVED: Final = "served"
_ENDED: Final = 50
"""Runs of earlier daemons that `status` shows."""
_AGAIN_SECONDS: Final = 0.2


def run_folder(store: Path, run_id: str) -> Path:
    """Where a daemon keeps what the clients of a run told."""
    return Path(store) / SERVED / "runs" / run_id


def _silent(run: str, event: Event) -> None:
    """The listener of a daemon that nobody watches."""


@dataclass(frozen=True)
class ServeOptions:
    """Where and for whom a daemon serves.

    Attributes:
        store: folder of the run store.
        fleet: folder of the fleet; None believes every name (loopback only).
        host: loopback unless there is a certificate.
        port: 0 lets the system choose.
        tls: the certificate.
        clients: names of the clients where there is no roster and the data are the sites' own.
        limits: bounds.
        patience: seconds that the preparation of a run waits for sites.
        passphrase: of the coordinator's key.
        faults: told about every step that touches the disk or acknowledges something (tests).
    """

    store: Path
    fleet: Path | None = None
    host: str = "127.0.0.1"
    port: int = 0
    tls: Tls | None = None
    clients: tuple[str, ...] = ()
    limits: HttpLimits = field(default_factory=HttpLimits)
    patience: float = 3600.0
    passphrase: bytes | None = None
    faults: Faults = no_faults


class Daemon:
    """A coordinator that serves; starts at once.

    Args:
        options: where and for whom.
        listener: told every event of every run.

    Raises:
        AnabranchError: AB-710, AB-711, AB-730, AB-731, AB-750; AB-768 another daemon has the store;
            AB-6xx the disk.
    """

    def __init__(
        self, options: ServeOptions, listener: Callable[[str, Event], None] = _silent
    ) -> None:
        self._options, self._listener = options, listener
        self._folder = Path(options.store) / SERVED
        self._runs: dict[str, ServedRun] = {}
        self._ended: tuple[RunStatus, ...] = ()
        self._changing = threading.Lock()
        self._draining = False
        self.ended = threading.Event()
        with explained(self._folder, "opening the daemon's folder"):
            make_directory(self._folder, "served", options.faults)
        self._lock = locked(self._folder / "lock")
        try:
            self._fleet = FleetFolder(options.fleet) if options.fleet is not None else None
            path, token = self._folder / "control.json", secrets.token_hex(32)
            self._control = ControlFile(path, token, options.faults)
            self.server = self._served()
        except BaseException:
            self._lock.close()
            raise
        self.server.counter.office.expect(options.clients)
        if self.server.counter.signer.key:
            self.server.counter.past = PastHeads(Path(options.store))
        self._go_on()
        # Only now: a plan that is submitted meanwhile would be begun twice.
        self._control.write(self.server.url, options.tls)

    def _served(self) -> FleetServer:
        options, fleet = self._options, self._fleet
        identity = fleet.coordinator(options.passphrase) if fleet is not None else None
        return FleetServer(
            host=options.host,
            port=options.port,
            directory=self._folder / "spool",
            members=fleet,
            identity=identity,
            tls=options.tls,
            limits=options.limits,
            control=lambda server: control_routes(self, self._control.token, options.limits),
            faults=options.faults,
        )

    @property
    def url(self) -> str:
        """Where clients find it."""
        return self.server.url

    # Runs ----------------------------------------------------------------------------------

    def submit(self, plan: Plan) -> str:
        """Begin a run; returns its id.

        Raises:
            AnabranchError: AB-764 it cannot be served, AB-765 it is not protected, AB-769 its
                clients are not there, AB-770 the daemon is being drained; AB-1xx to AB-4xx.
        """
        require_servable(plan)
        names, personal = self._clients(plan)
        require_protected(plan, personal=personal)
        with self._changing:
            if self._draining:
                raise draining()
            with self._store() as store:
                record = served_record(plan, names, self._trust())
                run_id = store.create_run(record, lambda run_id: self._keep_names(run_id, names))
            self._start(run_id, plan, names)
        return run_id

    def amend(
        self, run_id: str, plan: Plan, added: Sequence[str] = (), reason: str = ""
    ) -> RunStatus:
        """Change the contract of a run, also of one that has ended; it holds after the round.

        Args:
            run_id: of the run, or the beginning of it.
            plan: the whole plan as it shall be.
            added: sites that take part from now on.
            reason: which every site reads.

        Raises:
            AnabranchError: AB-769 an added site is not on the roster; AB-770 the daemon is being
                drained; AB-771 no such run; AB-796 to AB-798, AB-9xx it may not be amended so.
        """
        with self._changing:
            if self._draining:
                raise draining()
            found = self._any_of(run_id)
            folder, faults = run_folder(self._options.store, found), self._options.faults
            self._require_members(added)
            with self._store() as store:
                pending = propose(store, found, plan, self._names(found), added, reason)
            pending.keep(folder, faults)
            number, run = pending.amendment.number, self._runs.get(found)
            if run is not None:
                run.pause(f"amendment {number} holds after this round")
            else:
                self._resume(found)
        if run is not None:
            work = threading.Thread(target=self._amended, args=(run,), name=f"amend {found}")
            work.daemon = True
            work.start()
        return next(r for r in self.status().runs if r.run == found)

    def _amended(self, run: ServedRun) -> None:
        """Once the run has stopped, let it go on under its new contract."""
        run.join()
        while not self.ended.wait(_AGAIN_SECONDS):
            with self._changing, suppress(AnabranchError):  # a full disk: the amendment waits
                if not self._draining:
                    self._resume(run.id)
                return

    def _resume(self, run_id: str) -> None:
        with self._store() as store:
            apply_pending(
                store, run_id, run_folder(self._options.store, run_id), self._options.faults
            )
            plan = Plan.model_validate(store.run(run_id).plan)
        self._ended = tuple(ended for ended in self._ended if ended.run != run_id)
        self._start(run_id, plan, self._names(run_id))

    def _names(self, run_id: str) -> tuple[str, ...]:
        return tuple(self._clients_file(run_id).read_text("utf-8").split("\n"))

    def _require_members(self, added: Sequence[str]) -> None:
        members = self._members()
        unknown = [] if members is None else [name for name in added if name not in members]
        if unknown:
            raise AnabranchError(
                "AB-769",
                f"{', '.join(unknown[:5])} is not on the roster, and cannot take part.",
                fix="enrol the site first (`anabranch enrol`), then amend the run.",
                kept="The run goes on as it was.",
            )

    def _keep_names(self, run_id: str, names: tuple[str, ...]) -> None:
        """Who takes part is on the disk before the run is: a run without it could not go on."""
        folder, faults = run_folder(self._options.store, run_id), self._options.faults
        with explained(folder, "beginning a run"):
            make_directory(folder, "served", faults)
            write_durably(folder / "clients", "\n".join(names).encode(), "served", faults)

    def _store(self) -> Store:
        return Store.open(self._options.store, self._options.faults)

    def stop(self, run_id: str) -> RunStatus:
        """End a run in good order, after its round.

        Raises:
            AnabranchError: AB-771 no such run is served.
        """
        run = self._of(run_id)
        run.stop()
        return run.status()

    def drain(self) -> None:
        """Take no more runs, let every round end, then close; runs go on at the next start."""
        with self._changing:
            self._draining = True
            for run in self._runs.values():
                run.stop(drained=True)
        threading.Thread(target=self._drained, name="drain", daemon=True).start()

    def _drained(self) -> None:
        for run in list(self._runs.values()):
            run.join()
        self.server.drain()
        self.ended.set()

    def status(self) -> FleetStatus:
        """How everything stands."""
        counter = self.server.counter
        return FleetStatus(
            url=self.url,
            fleet=counter.fleet,
            software=metadata.version("anabranch"),
            draining=self._draining,
            runs=(*self._ended, *(run.status() for run in list(self._runs.values()))),
            clients=tuple(
                ClientSeen(client=name, silent_milliseconds=int(1000 * seconds))
                for name, seconds in sorted(self.server.seen().items())
            ),
        )

    def wait(self, run_id: str, timeout: float | None = None) -> RunStatus:
        """Wait for the end of a run.

        Raises:
            AnabranchError: AB-771 no such run is served.
        """
        run = self._of(run_id)
        run.join(timeout)
        return run.status()

    def close(self) -> None:
        """Stop serving at once; runs go on from their last round at the next start."""
        for run in self._runs.values():
            run.stop(drained=True)
        for run in self._runs.values():
            run.join(5.0)
        self.server.close()
        self._control.remove()
        self._lock.close()
        self.ended.set()

    # Inside --------------------------------------------------------------------------------

    def _start(self, run_id: str, plan: Plan, names: tuple[str, ...]) -> None:
        run = ServedRun(
            id=run_id,
            plan=plan,
            names=names,
            server=self.server,
            store=Path(self._options.store),
            folder=run_folder(self._options.store, run_id),
            listener=self._listener,
            patience=self._options.patience,
            faults=self._options.faults,
        )
        self.server.counter.office.expect(names)
        run.start()  # before it is shown: a run without a thread counts as dead
        self._runs[run_id] = run

    def _go_on(self) -> None:
        """Runs that the last daemon left open."""
        with self._store() as store:
            for run_id in pending_runs(self._folder / "runs"):
                folder = run_folder(self._options.store, run_id)
                apply_pending(store, run_id, folder, self._options.faults)
            runs = [run for run in store.runs() if self._clients_file(run.id).exists()]
            ended = [run for run in runs if run.status != "running"][:_ENDED]
            self._ended = tuple(as_stored(store, run) for run in reversed(ended))
        open_ = [run for run in runs if run.status == "running"]
        for record in sorted(open_, key=lambda record: record.created):
            self._start(record.id, Plan.model_validate(record.plan), self._names(record.id))
        self._tell_last_fates()

    def _clients_file(self, run_id: str) -> Path:
        return self._folder / "runs" / run_id / "clients"

    def _tell_last_fates(self) -> None:
        """Of runs that ended before every client had heard how its last task went."""
        for run_id in self.server.counter.spool.untold():
            clients = self._clients_file(run_id)
            if run_id not in self._runs and clients.exists():
                names = tuple(clients.read_text("utf-8").split("\n"))
                desk = self.server.open(RunFacts(run_id, names))
                desk.recover(2**53)
                desk.close(farewell=False)

    def _clients(self, plan: Plan) -> tuple[tuple[str, ...], bool]:
        """The clients of a new run, and whether its data are of persons."""
        members = self._members()
        if plan.data.source in OWN_SOURCES:
            names = members if members is not None else self._options.clients
            if not names:
                raise nobody("the roster has no active client, and none was named")
            return names, True
        federation = load_federation(plan.data, plan.seed).federation
        missing = [] if members is None else [n for n in federation.names if n not in members]
        if missing:
            shown = ", ".join(missing[:5])
            raise nobody(f"the data have clients that are not on the roster: {shown}")
        return federation.names, bool(federation.card and federation.card.personal)

    def _members(self) -> tuple[str, ...] | None:
        if self._fleet is None:
            return None
        roster = self._fleet.membership().roster
        return tuple(e.name for e in roster.active() if Role.CLIENT in e.roles)

    def _trust(self) -> str:
        """What is to be believed of the members: part of a served run's trust line."""
        return self._fleet.trust.value if self._fleet is not None else "clients without identities"

    def _of(self, run_id: str) -> ServedRun:
        return self._runs[only_run(run_id, self._runs)]

    def _any_of(self, run_id: str) -> str:
        """The id of a run that this daemon carries, or an earlier one carried."""
        with self._store() as store:
            return only_run(
                run_id, [r.id for r in store.runs() if self._clients_file(r.id).exists()]
            )
