"""The socket, its encryption, and connections that say nothing."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from anabranch.errors import AnabranchError

__all__ = ["Tls", "guarded_protocol", "is_loopback", "listening", "require_loopback"]

_BACKLOG: Final = 2048


@dataclass(frozen=True)
class Tls:
    """The server's certificate.

    Attributes:
        certificate: PEM file: its certificate, then those of intermediate authorities.
        key: PEM file with the private key.
    """

    certificate: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        """TLS 1.2 and later.

        Raises:
            AnabranchError: AB-750 the files cannot be read or do not belong together, AB-741 the
                certificate does not count now.
        """
        from anabranch.fleet.pki import check_server_files

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        try:
            # A key with a passphrase would ask for it on the terminal of a server.
            context.load_cert_chain(self.certificate, self.key, password=lambda: "")
        except (OSError, ValueError) as error:
            raise AnabranchError(
                "AB-750",
                f"the certificate {self.certificate} and the key {self.key} cannot be used "
                f"({error}).",
                fix="give PEM files that belong together and that this user may read; `anabranch "
                "pki` makes both for a trial.",
                kept="Nothing was started.",
            ) from error
        check_server_files(self.certificate, self.key)  # clients would only be told later
        return context


def is_loopback(host: str) -> bool:
    """Whether an address reaches this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return False


def require_loopback(host: str) -> None:
    """Refuse other addresses to a server without encryption.

    Raises:
        AnabranchError: AB-710.
    """
    if not is_loopback(host):
        raise AnabranchError(
            "AB-710",
            f"without TLS the loopback interface only is served, not {host!r}.",
            fix="give a certificate and its key (--tls-cert, --tls-key; `anabranch pki` makes "
            "both for a trial), or use 127.0.0.1.",
            kept="Nothing was started.",
        )


def listening(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        AnabranchError: AB-711 the address cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio sends small answers at once only on such sockets.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
        return listener
    except (OSError, OverflowError) as error:
        listener.close()
        raise AnabranchError(
            "AB-711",
            f"cannot listen on {host}:{port} ({error}).",
            fix="choose another port, or 0 to let the system choose; end what uses this one.",
            kept="Nothing was started.",
        ) from error


def guarded_protocol(seconds: float) -> type[asyncio.Protocol]:
    """The server's protocol, which closes connections whose request header does not come.

    The HTTP library watches idle connections only after their first answer; a client that connects
    and says nothing, or one byte a minute, would hold its place for ever.
    """
    base = _fastest()

    class Guarded(base):  # type: ignore[misc,valid-type]  # chosen at run time
        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self._watch = _Watch(asyncio.get_running_loop(), seconds, self._hang_up)

        def _hang_up(self) -> bool:
            """Close unless a request is being served or was served; whether it was closed."""
            cycle = getattr(self, "cycle", None)
            if cycle is None and not self.transport.is_closing():
                self.transport.abort()
                return True
            return False

        def connection_lost(self, exc: Exception | None) -> None:
            self._watch.stop()
            super().connection_lost(exc)

    return Guarded


def _fastest() -> type[asyncio.Protocol]:
    try:
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
    except ImportError:
        from uvicorn.protocols.http.h11_impl import H11Protocol

        return H11Protocol
    return HttpToolsProtocol


class _Watch:
    """Calls once, after some time, unless stopped."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, seconds: float, act: Callable[[], bool]
    ) -> None:
        self._handle: asyncio.TimerHandle | None = loop.call_later(seconds, act)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
