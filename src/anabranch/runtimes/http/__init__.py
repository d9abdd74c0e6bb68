"""Clients across a network: a server that hands out tasks, and the loop of a client.

The protocol is described in ``docs/protocol.md``. A client needs neither the server's libraries nor
the store, so names are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anabranch.runtimes.http.client.joining import join
    from anabranch.runtimes.http.client.options import Credentials, JoinOptions, Route
    from anabranch.runtimes.http.client.workplace import ClientData
    from anabranch.runtimes.http.limits import HttpLimits
    from anabranch.runtimes.http.memory import ClientMemory
    from anabranch.runtimes.http.server.fleet_server import FleetServer
    from anabranch.runtimes.http.server.listening import Tls
    from anabranch.runtimes.http.server.runtime import HttpRuntime

__all__ = [
    "ClientData",
    "ClientMemory",
    "Credentials",
    "FleetServer",
    "HttpLimits",
    "HttpRuntime",
    "JoinOptions",
    "Route",
    "Tls",
    "join",
]

_HOMES = {
    "ClientData": "client.workplace",
    "ClientMemory": "memory",
    "Credentials": "client.options",
    "FleetServer": "server.fleet_server",
    "HttpLimits": "limits",
    "HttpRuntime": "server.runtime",
    "JoinOptions": "client.options",
    "Route": "client.options",
    "Tls": "server.listening",
    "join": "client.joining",
}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
