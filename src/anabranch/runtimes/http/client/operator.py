"""The operator's line to the daemon of a store: submit, stop, drain, status."""

from __future__ import annotations

import json
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import httpx
from pydantic import Field, ValidationError

from anabranch.errors import AnabranchError
from anabranch.runtimes.http.client.line import checked, parsed
from anabranch.runtimes.http.status import FleetStatus, RunStatus
from anabranch.values import Value

__all__ = ["CONTROL", "Amending", "Operator", "Submission", "Submitted"]

CONTROL: Final = "/control/v1"
_SECONDS: Final = 60.0


class Submission(Value):
    """A plan to run."""

    plan: str = Field(max_length=1 << 20)
    """Its TOML text, every change applied."""


class Amending(Value):
    """A change of a run's contract."""

    plan: str = Field(max_length=1 << 20)
    """The whole plan as it shall be, as TOML text."""
    added: tuple[str, ...] = ()
    """Sites that take part from now on."""
    reason: str = Field(default="", max_length=500)


class Submitted(Value):
    """A run was begun."""

    run: str


class _Address(Value):
    url: str
    token: str
    certificate: str


class Operator:
    """Speaks to the daemon as the user who started it.

    Args:
        store: folder of the run store.

    Raises:
        AnabranchError: AB-772 nobody serves this store.
    """

    def __init__(self, store: Path) -> None:
        self._store = Path(store)
        path = self._store / "served" / "control.json"
        try:
            address = _Address.model_validate(json.loads(path.read_bytes()))
        except (OSError, ValueError, ValidationError) as error:
            raise self._not_served() from error
        self._http = httpx.Client(
            base_url=address.url,
            headers={"Authorization": f"Bearer {address.token}"},
            timeout=_SECONDS,
            trust_env=False,
            verify=_pinned(address.certificate),
        )

    def __enter__(self) -> Operator:
        return self

    def __exit__(self, *error: object) -> None:
        self._http.close()

    def submit(self, text: str) -> str:
        """Begin a run; its id."""
        content = Submission(plan=text).model_dump_json().encode()
        return parsed(Submitted, self._send("POST", "/runs", content)).run

    def amend(self, run: str, text: str, added: Sequence[str] = (), reason: str = "") -> RunStatus:
        """Change the contract of a run to the plan in ``text``, after its round."""
        asked = Amending(plan=text, added=tuple(added), reason=reason)
        content = asked.model_dump_json().encode()
        return parsed(RunStatus, self._send("POST", f"/runs/{run}/amend", content))

    def stop(self, run: str) -> RunStatus:
        """End a run after its round."""
        return parsed(RunStatus, self._send("POST", f"/runs/{run}/stop"))

    def drain(self) -> FleetStatus:
        """Let rounds end, then end the daemon."""
        return parsed(FleetStatus, self._send("POST", "/drain"))

    def status(self) -> FleetStatus:
        """How everything stands."""
        return parsed(FleetStatus, self._send("GET", "/status"))

    def _send(self, method: str, path: str, content: bytes | None = None) -> httpx.Response:
        try:
            return checked(self._http.request(method, CONTROL + path, content=content))
        except httpx.TransportError as error:
            raise self._not_served() from error

    def _not_served(self) -> AnabranchError:
        return AnabranchError(
            "AB-772",
            f"no daemon serves {self._store}.",
            fix="start one: anabranch serve --store DIR; runs that were interrupted then go on.",
        )


def _pinned(certificate: str) -> ssl.SSLContext:
    """Trusts exactly the daemon's own certificate, whatever its name says: it is on this disk."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if certificate:
        context.load_verify_locations(certificate)
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.check_hostname = False
    return context
