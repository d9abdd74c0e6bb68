"""`FleetServer`: one port, in a background thread, for the clients of every run."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path

import uvicorn
from starlette.routing import Route

from anabranch.disk import Faults, no_faults
from anabranch.fleet.folder import FleetFolder
from anabranch.fleet.identity import Identity
from anabranch.plan.migrate import PLAN_SCHEMA
from anabranch.runtimes.http.limits import HttpLimits
from anabranch.runtimes.http.server.app import application
from anabranch.runtimes.http.server.bell import Bell
from anabranch.runtimes.http.server.counter import Counter
from anabranch.runtimes.http.server.desk import Desk, RunFacts
from anabranch.runtimes.http.server.listening import (
    Tls,
    guarded_protocol,
    is_loopback,
    listening,
    require_loopback,
)
from anabranch.runtimes.http.server.office import Office
from anabranch.runtimes.http.server.sessions import Door, OpenDoor, SessionDoor
from anabranch.runtimes.http.server.shelf import Shelf
from anabranch.runtimes.http.server.spool import Spool
from anabranch.runtimes.http.server.uploads import Uploads
from anabranch.runtimes.http.statements import Signer

__all__ = ["FleetServer"]

_START_SECONDS = 30.0

ControlRoutes = Callable[["FleetServer"], Sequence[Route]]


def _no_control(server: FleetServer) -> Sequence[Route]:
    return ()


class FleetServer:
    """Serves the clients of one fleet.

    Args:
        host: loopback unless there is a certificate.
        port: 0 lets the system choose.
        directory: for accepted answers and downloads; a temporary one when None.
        members: the fleet's folder; None believes every name (loopback only).
        identity: the coordinator's key; the folder's own when None.
        tls: certificate; None speaks plain HTTP on loopback.
        limits: bounds.
        control: makes further routes.
        faults: told about every step between a request and the disk (tests).

    Raises:
        AnabranchError: AB-710 beyond loopback without TLS, AB-711 the address is taken, AB-750 the
            certificate, AB-6xx the disk.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        directory: Path | None = None,
        members: FleetFolder | None = None,
        identity: Identity | None = None,
        tls: Tls | None = None,
        limits: HttpLimits | None = None,
        control: ControlRoutes = _no_control,
        faults: Faults = no_faults,
    ) -> None:
        if tls is None or members is None:
            require_loopback(host)
        self.limits = limits or HttpLimits()
        context = tls.context() if tls is not None else None
        with ExitStack() as stack:
            self._socket = stack.enter_context(listening(host, port))
            if directory is None:
                directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            spool = Spool(directory, faults)
            stack.callback(spool.close)
            spool.collect()
            bell, office = Bell(), Office()
            if members is not None and identity is None:
                identity = members.coordinator()
            signer = Signer(identity)
            self.counter = Counter(
                office=office,
                bell=bell,
                shelf=Shelf(directory / "downloads"),
                spool=spool,
                uploads=Uploads(directory / "uploads", self.limits, faults=faults),
                door=self._door(members, signer, office),
                signer=signer,
                limits=self.limits,
                software=metadata.version("anabranch"),
                plan_schema=PLAN_SCHEMA,
                fleet=members.settings.name if members is not None else "",
                folder=members,
                faults=faults,
            )
            scheme = "http" if tls is None else "https"
            shown = f"[{host}]" if ":" in host else host
            self.url = f"{scheme}://{shown}:{self._socket.getsockname()[1]}"
            hosts = [host, "127.0.0.1", "localhost", "[::1]"] if is_loopback(host) else ["*"]
            app = application(self.counter, hosts, control(self))
            self._server = uvicorn.Server(self._configured(app))
            if context is not None:
                self._server.config.ssl = context
            self._start()
            self._stack = stack.pop_all()

    def _door(self, members: FleetFolder | None, signer: Signer, office: Office) -> Door:
        if members is None:
            return OpenDoor(office.knows)
        door = SessionDoor(members.membership(), signer, self.limits)
        door.on_barred(lambda name: office.lose(name, "it was revoked or suspended"))
        return door

    def _configured(self, app: object) -> uvicorn.Config:
        config = uvicorn.Config(
            app,  # type: ignore[arg-type]  # Starlette is an ASGI application
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=1,
            limit_concurrency=self.limits.connections,
            http=guarded_protocol(self.limits.idle_seconds),
        )
        config.load()
        return config

    def _start(self) -> None:
        ready = threading.Event()
        self._thread = threading.Thread(
            target=self._serve, args=(ready,), name="anabranch-http", daemon=True
        )
        self._thread.start()
        ready.wait(_START_SECONDS)

    def _serve(self, ready: threading.Event) -> None:
        async def main() -> None:
            self.counter.bell.attach()
            ready.set()
            try:
                await self._server.serve(sockets=[self._socket])
            finally:
                self.counter.bell.detach()

        factory = self._server.config.get_loop_factory()
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())

    @property
    def alive(self) -> bool:
        """Whether the server's thread runs."""
        return self._thread.is_alive()

    def open(self, facts: RunFacts) -> Desk:
        """The desk of a run that begins or goes on."""
        counter = self.counter
        desk = Desk(
            facts,
            counter.shelf,
            counter.spool,
            self.limits,
            counter.bell.ring,
            barred=counter.door.barred,
            wake_later=counter.bell.ring_later,
        )
        counter.office.add(desk)
        counter.bell.ring(facts.names)
        return desk

    def end(self, desk: Desk, *, forget: bool) -> None:
        """A run is over, or interrupted; ``forget`` deletes what a resumed run would need."""
        self.counter.office.remove(desk)
        if forget:
            self.counter.spool.end(desk.facts.run)

    def drain(self) -> None:
        """Give out no more tasks; clients are told to come back later."""
        self.counter.office.draining = True
        self.counter.bell.ring(self.counter.bell.waiting)

    def revoked(self, names: Sequence[str]) -> None:
        """The roster changed: requests of these clients that wait are looked at again."""
        self.counter.bell.ring(names)

    def seen(self) -> Mapping[str, float]:
        """Seconds since each client's last contact."""
        now = self.counter.clock()
        return {name: now - seen.at for name, seen in dict(self.counter.office.seen).items()}

    def close(self) -> None:
        """Stop serving; may be called twice."""
        if self._thread.is_alive():
            self._server.should_exit = True
            self._thread.join(10.0)
        self._stack.close()
