"""One run of a daemon, in a thread of its own: preparation, rounds, and how it stands now."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from anabranch.api.amending import amendment_in_force, muster_of
from anabranch.api.conduct import conduct
from anabranch.api.prepare import Prepared
from anabranch.api.preparing import Preparation, PreparationStopped
from anabranch.coordinator.archive import UpdateArchive
from anabranch.coordinator.events import ClientTrouble, Event, RoundCommitted, RunEnded, RunStarted
from anabranch.coordinator.store import Store
from anabranch.disk import Faults, explained, no_faults
from anabranch.errors import AnabranchError
from anabranch.plan import Plan
from anabranch.plan.amend import amended_contract
from anabranch.plan.contract import canonical_json
from anabranch.runtimes.http.server.desk import RunFacts
from anabranch.runtimes.http.server.fleet_server import FleetServer
from anabranch.runtimes.http.server.muster import Muster
from anabranch.runtimes.http.server.runtime import HttpRuntime
from anabranch.runtimes.http.status import OpenPart, RunStatus, Unaccepted, WaitingFor
from anabranch.runtimes.local import InlineRuntime
from anabranch.updates.sections import Sections

__all__ = ["ServedRun"]

_OF_THE_DISK: Final = frozenset({"AB-602", "AB-603", "AB-613", "AB-614"})
_DISK_SECONDS: Final = 2.0
_LOOK_SECONDS: Final = 0.5
_NEAR_SECONDS: Final = 5.0
_WAITS: Final = "waiting"
"""For the coordinator's own disk; `status` says the same of a run that waits for clients."""

Listener = Callable[[str, Event], None]


@dataclass
class ServedRun:
    """A run that the daemon carries.

    Attributes:
        id: of the run.
        plan: what is run.
        names: its clients.
        server: of the fleet.
        store: folder of the store.
        folder: where what sites told is kept.
        listener: told every event, with the run's id.
        patience: seconds that a stage of the preparation waits for sites.
        faults: told about every step that touches the disk (tests).
    """

    id: str
    plan: Plan
    names: tuple[str, ...]
    server: FleetServer
    store: Path
    folder: Path
    listener: Listener
    patience: float = 3600.0
    faults: Faults = no_faults
    _stop: threading.Event = field(default_factory=threading.Event)
    _drained: bool = False
    _state: str = "preparing"
    _reason: str = ""
    _round: int = 0
    _seconds: float | None = None
    _since: float = field(default_factory=time.monotonic)
    _troubles: dict[str, str] = field(default_factory=dict)
    _runtime: HttpRuntime | None = None
    _thread: threading.Thread | None = None
    _muster: Muster | None = None
    _mustering: str = ""
    _amending: str = ""

    def start(self) -> None:
        """Begin, or go on after a restart."""
        self._thread = threading.Thread(target=self._work, name=f"run {self.id}", daemon=True)
        self._thread.start()

    def stop(self, *, drained: bool = False) -> None:
        """End in good order after the round; ``drained``: it goes on when the daemon restarts."""
        self._drained = drained
        self._stop.set()

    def pause(self, why: str) -> None:
        """End after the round, because the run is amended; the daemon starts it again."""
        self._amending = why
        self.stop(drained=True)

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the end; whether it came."""
        if self._thread is not None:
            self._thread.join(timeout)
        return not self.alive

    @property
    def alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def _work(self) -> None:
        try:
            while not self._through():
                if self._stop.wait(_DISK_SECONDS):
                    raise PreparationStopped
        except PreparationStopped:
            self._interrupted()
        except AnabranchError as error:
            self._failed(error)
        except Exception as error:
            if self._drained and not self.server.alive:  # closed while the round was open
                self._interrupted()
                return
            # The last resort of a thread: a run that dies is shown as dead, with the reason.
            self._failed(
                AnabranchError(
                    "AB-767",
                    f"the run ended with an error that Anabranch does not know: "
                    f"{type(error).__name__}: {error}.",
                    fix="report it; the run goes on from its last round when the daemon restarts.",
                    kept="Rounds that were committed are kept.",
                )
            )

    def _through(self) -> bool:
        """Carry the run to its end; false when the disk failed: it goes on from its last round."""
        try:
            with explained(self.store, "carrying the run"):
                self._carried()
        except AnabranchError as error:
            if error.code not in _OF_THE_DISK:
                raise
            self._state, self._reason = _WAITS, f"{error} It is tried again by itself."
            return False
        return True

    def _carried(self) -> None:
        shelf = self.server.counter.shelf
        with Store.open(self.store, self.faults) as store:
            amendment = amendment_in_force(store, self.id)
            document = amended_contract(self.plan, amendment)
            contract = shelf.put([canonical_json(document).encode()])
            self._muster = muster_of(
                self.plan, self.id, contract.digest, amendment, self.folder, len(self.names)
            )
            facts = RunFacts(self.id, self.names, contract.digest, muster=self._muster)
            self._runtime = runtime = HttpRuntime(
                self.names, Sections(()), server=self.server, facts=facts
            )
            self._state, over = "preparing", True
            try:
                last = max((stored.round for stored in store.rounds(self.id)), default=-1)
                runtime.recover(last)
                self._round = max(last, 0)
                self._assemble(self._muster, begun=last > 0)
                prepared = self._prepared(runtime, begun=last >= 0)
                run = conduct(
                    prepared, store, self.id, self._heard, self._stop.is_set, self._remote
                )
                self._state, self._reason = run.status, run.reason
                if self._drained and run.status == "stopped":
                    with store.session(self.id) as session:
                        session.finish("running", "drained: goes on when the daemon starts again")
                    over = not self._amending
            except AnabranchError as error:
                over = error.code not in _OF_THE_DISK
                raise
            except OSError:
                over = False
                raise
            finally:
                self._runtime = None
                runtime.leave(over=over)
                shelf.drop(contract.digest)
                if self._state in ("complete", "failed"):
                    self.server.counter.spool.end(self.id)

    def _assemble(self, muster: Muster, *, begun: bool) -> None:
        """Before the first round, and after an amendment: ask sites whether they take part.

        Every site that is there is waited for; after an amendment also those that are away, as long
        as a client may be. While so many say no that the others make no round, it waits without
        end: somebody at a site has to agree first.
        """
        if begun and not muster.amended:
            return
        needed, limits = self.plan.rounds.needed(len(self.names)), self.server.limits
        began, barred = time.monotonic(), self.server.counter.door.barred
        try:
            while not self._stop.is_set():
                seen, near = self.server.seen(), limits.poll_seconds + _NEAR_SECONDS
                early = time.monotonic() - began < limits.absent_seconds
                standings = muster.standings(self.names)
                silent = [
                    s.client
                    for s in standings
                    if not s.answered
                    and not barred(s.client)
                    and (muster.amended or seen.get(s.client, near) < near)
                ]
                willing = sum(s.willing for s in standings)
                hopeful = willing if muster.amended else sum(not s.reason for s in standings)
                if hopeful >= needed and not (silent and early):
                    return
                self._mustering = _gathers(silent, willing, len(self.names), needed)
                muster.wait(_LOOK_SECONDS)
        finally:
            self._mustering = ""
        raise PreparationStopped

    def _prepared(self, runtime: HttpRuntime, *, begun: bool) -> Prepared:
        preparation = Preparation(
            self.plan, self.id, self.names, self.folder, self.patience, self._stop.is_set
        )
        preparation.begun, preparation.faults = begun, self.faults
        preparation.store = self.store
        return preparation.prepared(runtime)

    def _remote(self, prepared: Prepared) -> HttpRuntime:
        assert self._runtime is not None
        own = InlineRuntime(prepared.simulant(None))
        self._runtime.ready(prepared.program.broadcast_sections, own)
        if (kept := prepared.plan.runtime.keep_updates) is not None:
            self._runtime.archive = UpdateArchive(Path(kept))
        self._state = "running"
        return self._runtime

    def _interrupted(self) -> None:
        """Stopped for good, or only until the daemon starts again."""
        self._state, self._reason = "stopped", "stopped by the operator"
        with Store.open(self.store, self.faults) as store, store.session(self.id) as session:
            if self._drained:
                session.finish("running", "drained: goes on when the daemon starts again")
            else:
                session.finish("stopped", self._reason)

    def _failed(self, error: AnabranchError) -> None:
        self._state, self._reason = "failed", str(error)
        with (
            suppress(AnabranchError),  # a store that cannot say so finds out at the next start
            Store.open(self.store, self.faults) as store,
            store.session(self.id) as session,
        ):
            session.finish("failed", str(error))
        self.listener(self.id, RunEnded("failed", str(error), 0.0, {}, ()))

    def _heard(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            self._round = event.first_round - 1
        elif isinstance(event, RoundCommitted):
            self._round, self._seconds = event.round, event.seconds
            self._since = time.monotonic()
        elif isinstance(event, ClientTrouble):
            before = self._troubles.get(event.client, "").partition(": ")[2]
            what = f"{event.fate} {event.reason}"
            self._troubles[event.client] = f"round {event.round}: {what}"
            if what == before:
                return  # who declines every round is told of once
        if self._amending and isinstance(event, RunEnded):
            return  # it goes on in a moment
        self.listener(self.id, event)

    def status(self) -> RunStatus:
        """How it stands now."""
        parts = self._open_parts()
        state, reason = self._state, self._reason
        if state in ("preparing", "running", _WAITS) and not self.alive:
            state, reason = "dead", reason or "its thread has ended"
        elif state in ("preparing", "running"):
            missing = [w for part in parts for w in part.waiting]
            state = "waiting" if missing or self._mustering else "working"
            reason = self._mustering or ("" if not missing else _waits_for(parts))
        if self._amending:  # also of a run that was over: it goes on in a moment
            state = state if state in ("working", "waiting") else "working"
            reason = (
                f"{reason}; {self._amending}"
                if reason and reason != self._reason
                else (self._amending)
            )
        return RunStatus(
            run=self.id,
            name=self.plan.name,
            state=state,
            reason=reason,
            round=self._round,
            rounds=self.plan.rounds.count,
            milliseconds=int(1000 * (time.monotonic() - self._since)),
            last_round_milliseconds=int(1000 * (self._seconds or 0.0)),
            open=parts,
            contract=self._muster.contract if self._muster is not None else "",
            unaccepted=self._unaccepted(),
            troubles=tuple(f"{name}: {text}" for name, text in sorted(self._troubles.items()))[:50],
        )

    def _unaccepted(self) -> tuple[Unaccepted, ...]:
        """Clients that are given no work, with the reason."""
        if self._muster is None:
            return ()
        standings = self._muster.standings(self.names)
        return tuple(Unaccepted(client=s.client, reason=s.reason) for s in standings if s.reason)

    def _open_parts(self) -> tuple[OpenPart, ...]:
        if self._runtime is None:
            return ()
        seen = self.server.seen()
        return tuple(
            OpenPart(
                kind=task.kind.value,
                round=task.round,
                answered=task.answered,
                milliseconds=int(1000 * task.seconds),
                waiting=tuple(
                    WaitingFor(
                        client=name,
                        fetched=name in task.offered,
                        silent_milliseconds=int(1000 * seen[name]) if name in seen else -1,
                    )
                    for name in task.waiting
                ),
            )
            for task in self._runtime.desk.status()
        )


def _gathers(silent: list[str], willing: int, sites: int, needed: int) -> str:
    shown = ", ".join(silent[:5]) + (f" and {len(silent) - 5} more" if len(silent) > 5 else "")
    asked = f"{willing} of {sites} sites have accepted the contract, and a round needs {needed}"
    return f"{asked}; asks {shown}" if silent else asked


def _waits_for(parts: tuple[OpenPart, ...]) -> str:
    names = [w.client for part in parts for w in part.waiting]
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    seconds = min(part.milliseconds for part in parts) / 1000
    return f"{parts[0].kind}: waits for {shown}, at most {seconds:.0f} s longer"
