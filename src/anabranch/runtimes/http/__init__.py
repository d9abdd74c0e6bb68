"""Clients across a network: a server that hands out tasks, and the loop of a client.

A first version of the protocol (``docs/protocol.md``): loopback only, without identities. Needs the
extra ``http``; nothing else in the package imports these libraries.
"""

from anabranch.runtimes.http.client import ClientData, JoinOptions, join
from anabranch.runtimes.http.limits import HttpLimits
from anabranch.runtimes.http.memory import ClientMemory
from anabranch.runtimes.http.server import HttpRuntime

__all__ = ["ClientData", "ClientMemory", "HttpLimits", "HttpRuntime", "JoinOptions", "join"]
