"""Wakes the requests that wait for a task; rung by the coordinator's threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable

__all__ = ["Bell"]


class Bell:
    """One event for each client that waits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: dict[str, asyncio.Event] = {}

    def attach(self) -> None:
        """Called inside the server's event loop, before anybody waits."""
        with self._lock:
            self._loop = asyncio.get_running_loop()

    def detach(self) -> None:
        """The loop ends: ringing does nothing from now on."""
        with self._lock:
            self._loop = None

    def ring(self, clients: Iterable[str]) -> None:
        """Wake these clients' requests; any thread."""
        with self._lock:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._ring, tuple(clients))

    def ring_later(
        self, clients: Iterable[str], seconds: float, wanted: Callable[[str], bool]
    ) -> None:
        """Wake those of these clients for whom it is still ``wanted`` after a while; any thread."""
        named = tuple(clients)

        def later() -> None:
            self._ring(tuple(client for client in named if wanted(client)))

        with self._lock:
            loop = self._loop
            if loop is not None and named:
                loop.call_soon_threadsafe(lambda: loop.call_later(seconds, later))

    def _ring(self, clients: tuple[str, ...]) -> None:
        for client in clients:
            if client in self._waiting:
                self._waiting[client].set()

    def expect(self, client: str) -> asyncio.Event:
        """The event of a new waiting request; an older request of the client ends."""
        self._ring((client,))
        event = self._waiting[client] = asyncio.Event()
        return event

    def forget(self, client: str, event: asyncio.Event) -> None:
        """The request ended."""
        if self._waiting.get(client) is event:
            del self._waiting[client]

    @property
    def waiting(self) -> frozenset[str]:
        """Who waits now."""
        return frozenset(self._waiting)
