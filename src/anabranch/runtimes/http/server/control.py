"""The routes of whoever runs the coordinator: submit, stop, drain, status.

They are apart from the fleet's routes and have an authentication of their own: a token in a file
that only the coordinator's user may read. No client's session opens them.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from anabranch.disk import Faults, explained, no_faults, write_durably
from anabranch.errors import AnabranchError
from anabranch.plan import Plan
from anabranch.plan.load import parse_plan
from anabranch.runtimes.http.client.operator import CONTROL, Amending, Submission, Submitted
from anabranch.runtimes.http.limits import HttpLimits
from anabranch.runtimes.http.server.listening import Tls
from anabranch.runtimes.http.server.requests import answer, message_of
from anabranch.runtimes.http.status import FleetStatus, RunStatus

__all__ = ["ControlFile", "Controlled", "control_routes"]


class Controlled(Protocol):
    """What can be controlled: the daemon."""

    def submit(self, plan: Plan) -> str: ...

    def amend(self, run_id: str, plan: Plan, added: Sequence[str], reason: str) -> RunStatus: ...

    def stop(self, run_id: str) -> RunStatus: ...

    def drain(self) -> None: ...

    def status(self) -> FleetStatus: ...


class ControlFile:
    """Where programs of the same user find the daemon and its token.

    Args:
        path: readable by the user alone.
        token: of this daemon.
        faults: told about every step that touches the disk (tests).
    """

    def __init__(self, path: Path, token: str, faults: Faults = no_faults) -> None:
        self._path, self.token, self._faults = path, token, faults

    def write(self, url: str, tls: Tls | None) -> None:
        """Tell the address.

        Raises:
            AnabranchError: AB-6xx from the disk.
        """
        certificate = str(tls.certificate.resolve()) if tls is not None else ""
        told = {"url": url, "token": self.token, "certificate": certificate}
        with explained(self._path, "writing the daemon's address"):
            content = json.dumps(told).encode()
            write_durably(self._path, content, "control", self._faults, mode=0o600)

    def remove(self) -> None:
        """The daemon has ended."""
        self._path.unlink(missing_ok=True)


class _Control:
    def __init__(self, daemon: Controlled, token: str, limits: HttpLimits) -> None:
        self._daemon, self._token, self._limits = daemon, token, limits

    async def status(self, request: Request) -> Response:
        self._admit(request)
        return answer(self._daemon.status())

    async def submit(self, request: Request) -> Response:
        self._admit(request)
        bounds = HttpLimits(message_bytes=1 << 21)
        asked = await message_of(request, Submission, bounds)
        plan = parse_plan(asked.plan)
        return answer(Submitted(run=await run_in_threadpool(self._daemon.submit, plan)), 201)

    async def amend(self, request: Request) -> Response:
        self._admit(request)
        asked = await message_of(request, Amending, HttpLimits(message_bytes=1 << 21))
        run, plan = request.path_params["run"], parse_plan(asked.plan)
        told = await run_in_threadpool(self._daemon.amend, run, plan, asked.added, asked.reason)
        return answer(told, 202)

    async def stop(self, request: Request) -> Response:
        self._admit(request)
        return answer(self._daemon.stop(request.path_params["run"]))

    async def drain(self, request: Request) -> Response:
        self._admit(request)
        self._daemon.drain()
        return answer(self._daemon.status(), 202)

    def _admit(self, request: Request) -> None:
        given = request.headers.get("authorization", "").encode()
        if not hmac.compare_digest(given, f"Bearer {self._token}".encode()):
            raise AnabranchError(
                "AB-760",
                "this request does not carry the token of the coordinator's operator.",
                fix="run the command as the user who started the daemon, with the same --store.",
            )


def control_routes(daemon: Controlled, token: str, limits: HttpLimits) -> list[Route]:
    """How the daemon is controlled."""
    control = _Control(daemon, token, limits)
    return [
        Route(f"{CONTROL}/status", control.status, methods=["GET"]),
        Route(f"{CONTROL}/runs", control.submit, methods=["POST"]),
        Route(f"{CONTROL}/runs/{{run}}/stop", control.stop, methods=["POST"]),
        Route(f"{CONTROL}/runs/{{run}}/amend", control.amend, methods=["POST"]),
        Route(f"{CONTROL}/drain", control.drain, methods=["POST"]),
    ]
