"""`HttpRuntime`: carries work to clients that come over HTTP; a server in a background thread."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
import time
from collections.abc import Mapping, Sequence

import uvicorn

from anabranch.client.task import TaskKind
from anabranch.coordinator.runtime import Fate, Outcome, Runtime, RuntimeEvent, Work
from anabranch.errors import AnabranchError
from anabranch.runtimes.http.app import Bell, fleet_app
from anabranch.runtimes.http.desk import Desk
from anabranch.runtimes.http.limits import HttpLimits
from anabranch.runtimes.http.messages import pack_broadcast
from anabranch.updates.sections import Sections

__all__ = ["HttpRuntime"]

_PATIENCE = 0.5
"""Longest wait of one `HttpRuntime.poll` without a limit: an interrupt is then noticed."""


class HttpRuntime:
    """Serves the clients of one run on the loopback interface.

    Args:
        names: client identifiers, in the order of client numbers.
        broadcast: sections of what goes down.
        own: does the hold-out tasks, whose data the coordinator owns; None when there are none.
        host: ``localhost`` or an IPv4 loopback address.
        port: 0 lets the system choose.
        limits: bounds.

    Raises:
        AnabranchError: AB-710 the address is not loopback, AB-711 it cannot be listened on.
    """

    def __init__(
        self,
        names: Sequence[str],
        broadcast: Sections,
        *,
        own: Runtime | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        limits: HttpLimits | None = None,
    ) -> None:
        _require_loopback(host)
        limits = limits or HttpLimits()
        self._sections, self._own = broadcast, own
        self._own_open = False
        self._hold = False
        self._bell = Bell()
        self._desk = Desk(limits, self._bell.ring)
        self._socket = _listening(host, port)
        self.url = f"http://{host}:{self._socket.getsockname()[1]}"
        numbers = {name: number for number, name in enumerate(names)}
        app = fleet_app(self._desk, self._bell, numbers, limits, [host, "127.0.0.1", "localhost"])
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="off",
                ws="none",
                server_header=False,
                timeout_keep_alive=60,
                timeout_graceful_shutdown=1,
                limit_concurrency=4 * len(numbers) + 64,
            )
        )
        ready = threading.Event()
        self._thread = threading.Thread(
            target=self._serve, args=(ready,), name="anabranch-http", daemon=True
        )
        self._thread.start()
        ready.wait(10.0)

    def _serve(self, ready: threading.Event) -> None:
        async def main() -> None:
            self._bell.attach()
            ready.set()
            try:
                await self._server.serve(sockets=[self._socket])
            finally:
                self._bell.detach()

        asyncio.run(main())

    def submit(self, work: Work) -> None:
        if work.kind is TaskKind.HOLDOUT:
            if self._own is None:
                raise RuntimeError("hold-out tasks need the coordinator's own data")
            self._own.submit(work)
            self._own_open = True
            return
        self._desk.submit(work, pack_broadcast(work.broadcast, self._sections))

    def poll(self, timeout: float | None) -> Sequence[RuntimeEvent]:
        if self._own is not None and self._own_open:
            self._own_open = False
            return self._own.poll(timeout)
        if not self._thread.is_alive():
            raise RuntimeError("the HTTP server has ended")
        return self._desk.events(_PATIENCE if timeout is None else min(timeout, _PATIENCE))

    def abandon(self, task: str | None = None) -> Sequence[Outcome]:
        own = self._own.abandon(task) if self._own is not None else ()
        self._own_open = False
        return (*own, *self._desk.abandon(task))

    def now(self) -> float:
        return time.monotonic()

    def settle(self, task: str, fates: Mapping[int, Fate]) -> None:
        """Clients hear of their fate with their next contact, at the earliest after the commit."""
        self._desk.settle(fates, hold=self._hold)

    def two_phase(self) -> FatesAfterCommit:
        """From now on fates wait for the store: pass this to `GroupedCommits` as ``states``."""
        self._hold = True
        return FatesAfterCommit(self._desk)

    @property
    def unheard(self) -> int:
        """Fates that clients have not confirmed yet."""
        return self._desk.unheard

    def close(self) -> None:
        """Tell the clients that the run is over, then stop serving; may be called twice."""
        if not self._thread.is_alive():
            return
        self._desk.close()
        self._server.should_exit = True
        self._thread.join(10.0)
        self._socket.close()
        if self._own is not None:
            self._own.close()


class FatesAfterCommit:
    """A client is told "merged" only once the round is durable.

    Otherwise a coordinator that crashes in between would do the round again, and the client would
    have promoted a memory that belongs to no round. It is a
    `anabranch.coordinator.store.grouped.TwoPhase` whose states lie at the clients.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def sync(self) -> None:
        """Nothing of the coordinator's is to be synced."""

    def durable(self) -> Mapping[int, int]:
        """No slot is named by the commit."""
        return {}

    def committed(self) -> None:
        """The round is durable: its fates may be told."""
        self._desk.release()


def _require_loopback(host: str) -> None:
    if host == "localhost":
        return
    try:
        if ipaddress.IPv4Address(host).is_loopback:
            return
    except ValueError:  # a name, or an address of another family
        pass
    raise AnabranchError(
        "AB-710",
        f"this version serves the loopback interface only, not {host!r}: it has no identities "
        "and no encryption.",
        fix="use 127.0.0.1.",
        kept="Nothing was started.",
    )


def _listening(host: str, port: int) -> socket.socket:
    # The protocol is named because asyncio sends small answers at once only on such sockets.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(1024)
        return listener
    except (OSError, OverflowError) as error:
        listener.close()
        raise AnabranchError(
            "AB-711",
            f"cannot listen on {host}:{port} ({error}).",
            fix="choose another port, or 0 to let the system choose; end what uses this one.",
            kept="Nothing was started.",
        ) from error
