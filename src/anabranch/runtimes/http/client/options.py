"""How patient a client is, whom it trusts, and how it gets out of its network."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from anabranch.disk import Faults, no_faults
from anabranch.errors import AnabranchError
from anabranch.runtimes.http.messages import Acceptance, Summons, TaskOffer
from anabranch.runtimes.http.versions import SPOKEN, Span

if TYPE_CHECKING:
    from anabranch.client.measuring import DeviceMeter
    from anabranch.fleet.identity import Identity

__all__ = ["Credentials", "JoinOptions", "Route", "not_the_protocol", "opened"]


def _silent(offer: TaskOffer) -> None:
    """The listener of a client that nobody watches."""


def _noted(summons: Summons, acceptance: Acceptance) -> None:
    """The same for amended contracts."""


def _at_ease(error: Exception) -> None:
    """The same for trouble."""


@dataclass(frozen=True)
class JoinOptions:
    """How patient a client is.

    Attributes:
        wait: seconds that it lets the coordinator hold a request for a task.
        timeout: seconds that connecting, and each read or write, may take beyond that.
        patience: seconds without any contact after which the client gives up; ``inf`` never does.
        on_task: told about every task before it is done.
        on_trouble: told when a task could not be done here, or an answer of the coordinator not be
            kept.
        on_summons: told what this client answered about an amended contract.
        running: asked between tasks; false ends the client in good order.
        meter: what the client tells of its device; None tells nothing.
        faults: told about every step between a task and its acknowledgement (tests).
        speaks: versions of the protocol; an older client speaks fewer.
    """

    wait: float = 20.0
    timeout: float = 30.0
    patience: float = 300.0
    on_task: Callable[[TaskOffer], None] = _silent
    on_trouble: Callable[[Exception], None] = _at_ease
    on_summons: Callable[[Summons, Acceptance], None] = _noted
    running: Callable[[], bool] = lambda: True
    meter: DeviceMeter | None = None
    faults: Faults = no_faults
    speaks: Span = SPOKEN


@dataclass(frozen=True)
class Credentials:
    """Who a client is, and whom it believes.

    Attributes:
        identity: the client's key.
        coordinator: public key that the coordinator must sign with.
    """

    identity: Identity
    coordinator: bytes


@dataclass(frozen=True)
class Route:
    """How the coordinator is reached.

    Attributes:
        ca: PEM file with the authorities that are trusted; the system's when None.
        proxy: address of an HTTP(S) proxy; None goes directly, or as the environment says.
        environment: whether ``HTTPS_PROXY``, ``NO_PROXY`` and ``SSL_CERT_FILE`` count.
    """

    ca: Path | None = None
    proxy: str | None = None
    environment: bool = True

    def verification(self) -> ssl.SSLContext:
        """TLS as a client.

        Raises:
            AnabranchError: AB-750 the file is no certificate.
        """
        try:
            # httpx would load a bundle of its own; the system's is what administrators maintain.
            return ssl.create_default_context(cafile=str(self.ca) if self.ca is not None else None)
        except (OSError, ValueError) as error:
            raise AnabranchError(
                "AB-750",
                f"{self.ca} gives no certificate authority ({error}).",
                fix="give the PEM file of the authority that signed the coordinator's certificate.",
                kept="Nothing was sent.",
            ) from error


def opened(url: str, options: JoinOptions, route: Route) -> httpx.Client:
    """The HTTP client for an address.

    Raises:
        AnabranchError: AB-719 not an address, AB-710 plain HTTP beyond this machine, AB-750 the
            certificate authority, AB-717 the proxy's address.
    """
    parsed = _parsed(url)
    plain = parsed.scheme == "http"
    if plain and parsed.host not in ("localhost", "127.0.0.1", "::1"):
        raise AnabranchError(
            "AB-710",
            f"{url!r} is beyond this machine and not encrypted.",
            fix="use the https:// address of the coordinator.",
            kept="Nothing was sent.",
        )
    # A plain connection is to this machine: it needs no authority, and a proxy has no business.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if plain else route.verification()
    try:
        return httpx.Client(
            base_url=url,
            timeout=httpx.Timeout(options.timeout, read=options.wait + options.timeout),
            trust_env=route.environment and not plain,
            proxy=route.proxy,
            verify=context,
        )
    except ValueError as error:
        raise not_the_protocol(f"{route.proxy!r} is not the address of a proxy") from error


def _parsed(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise not_the_protocol(f"{url!r} is not an address") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise not_the_protocol(f"{url!r} is not an address like https://coordinator.example:8443")
    return parsed


def not_the_protocol(what: str) -> AnabranchError:
    """AB-719."""
    return AnabranchError(
        "AB-719",
        f"the server does not speak this protocol: {what}.",
        fix="check the address, and the software versions at both ends.",
        kept="Nothing was sent.",
    )
