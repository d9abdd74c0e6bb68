"""The routes: they check sizes, checksums and names, and ask the desk. See ``docs/protocol.md``."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Mapping

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from anabranch.coordinator.runtime import Fate
from anabranch.errors import AnabranchError
from anabranch.runtimes.http.desk import Desk
from anabranch.runtimes.http.limits import HttpLimits
from anabranch.runtimes.http.messages import (
    PROTOCOL,
    Failure,
    Problem,
    Receipt,
    digest_of_header,
    sha256,
)
from anabranch.values import Value

__all__ = ["Bell", "fleet_app"]

_STATUS: Mapping[str, int] = {
    "AB-712": 404,
    "AB-713": 410,
    "AB-714": 400,
    "AB-715": 413,
    "AB-716": 409,
    "AB-717": 400,
}


class Bell:
    """Wakes the requests that wait for a task; rung by the coordinator's thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: dict[int, asyncio.Event] = {}

    def attach(self) -> None:
        """Called inside the server's event loop, before anybody waits."""
        with self._lock:
            self._loop = asyncio.get_running_loop()

    def detach(self) -> None:
        """The loop ends: ringing does nothing from now on."""
        with self._lock:
            self._loop = None

    def ring(self, clients: Iterable[int]) -> None:
        """Wake these clients' requests; any thread."""
        with self._lock:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._ring, tuple(clients))

    def _ring(self, clients: tuple[int, ...]) -> None:
        for client in clients:
            if client in self._waiting:
                self._waiting[client].set()

    def expect(self, client: int) -> asyncio.Event:
        """The event of a new waiting request; an older request of the client ends."""
        self._ring((client,))
        event = self._waiting[client] = asyncio.Event()
        return event

    def forget(self, client: int, event: asyncio.Event) -> None:
        """The request ended."""
        if self._waiting.get(client) is event:
            del self._waiting[client]


class _Routes:
    def __init__(
        self, desk: Desk, bell: Bell, numbers: Mapping[str, int], limits: HttpLimits
    ) -> None:
        self._desk, self._bell = desk, bell
        self._numbers, self._limits = numbers, limits

    async def tasks(self, request: Request) -> Response:
        """Hold the request until there is a task, the run ends, or the time is over."""
        client = self._client(request)
        heard = request.query_params.getlist("heard")
        event = self._bell.expect(client)  # before looking: a task that comes now rings it
        try:
            contact = self._desk.contact(client, heard)
            if contact.task is None and not contact.closed:
                async with asyncio.timeout(self._wait(request)):
                    await event.wait()
                contact = self._desk.contact(client, ())
        except TimeoutError:
            contact = self._desk.contact(client, ())
        finally:
            self._bell.forget(client, event)
        return _answer(contact)

    async def blob(self, request: Request) -> Response:
        """Bytes named by their SHA-256: they never change, so they may be kept."""
        digest = request.path_params["digest"]
        content = self._desk.blob(digest)
        if content is None:
            raise AnabranchError(
                "AB-713",
                "no open task refers to this download.",
                fix="nothing: the client asks for its next task.",
            )
        headers = {"ETag": f'"{digest}"', "Cache-Control": "private, immutable, max-age=86400"}
        return Response(content, media_type="application/octet-stream", headers=headers)

    async def update(self, request: Request) -> Response:
        """Take an update: whole, of the stated checksum, not larger than the plan allows."""
        client, task = self._client(request), request.path_params["task"]
        limit = self._desk.limit(task, client)
        try:
            content = await self._body(request, limit)
        except AnabranchError as error:
            if error.code == "AB-715":  # whoever sends too much sends no update: nobody waits
                self._desk.fail(task, client, Fate.REFUSED, str(error))
            raise
        stated = digest_of_header(request.headers.get("content-digest", ""))
        if stated != sha256(content):
            raise AnabranchError(
                "AB-714",
                "the upload has no checksum or not the one that it states.",
                fix="send the header Content-Digest with the SHA-256, and send it again.",
            )
        return _answer(Receipt(repeated=self._desk.accept(task, client, content)))

    async def failure(self, request: Request) -> Response:
        """The client tells why it has no update."""
        client, task = self._client(request), request.path_params["task"]
        self._desk.limit(task, client)
        body = await self._body(request, self._limits.message_bytes)
        try:
            failure = Failure.model_validate_json(body)
        except ValidationError as error:
            raise _malformed("the report of a failure is not the declared JSON object") from error
        self._desk.fail(task, client, Fate.FAILED, f"{failure.code} {failure.detail}".strip())
        return Response(status_code=204)

    def _client(self, request: Request) -> int:
        number = self._numbers.get(request.query_params.get("client", ""))
        if number is None:
            raise AnabranchError(
                "AB-712",
                "this federation has no client of that name.",
                fix="join with a name that the coordinator's data or roster lists.",
            )
        return number

    def _wait(self, request: Request) -> float:
        try:
            wait = float(request.query_params.get("wait", self._limits.poll_seconds))
        except ValueError as error:
            raise _malformed("'wait' is not a number of seconds") from error
        if not wait >= 0:  # also what is not a number
            raise _malformed("'wait' is not a number of seconds")
        return min(wait, self._limits.poll_seconds)

    async def _body(self, request: Request, limit: int) -> bytes:
        stated = request.headers.get("content-length", "")
        if stated.isdecimal() and len(stated) < 20 and int(stated) > limit:
            raise _too_large(limit)
        parts, size = [], 0
        try:
            async with asyncio.timeout(self._limits.request_seconds):
                async for part in request.stream():
                    size += len(part)
                    if size > limit:
                        raise _too_large(limit)
                    parts.append(part)
        except TimeoutError as error:
            raise _malformed("the request did not end in time") from error
        return b"".join(parts)


def _answer(message: Value) -> Response:
    return Response(message.model_dump_json(), media_type="application/json")


def _too_large(limit: int) -> AnabranchError:
    return AnabranchError(
        "AB-715",
        f"the request is larger than the {limit} bytes that are allowed here.",
        fix="use the same plan and software version at the client and the coordinator.",
        kept="The update was refused; the round goes on.",
    )


def _malformed(what: str) -> AnabranchError:
    return AnabranchError("AB-717", f"{what}.", fix="follow docs/protocol.md.")


async def _problem(request: Request, error: Exception) -> Response:
    if not isinstance(error, AnabranchError):
        raise error
    problem = Problem(code=error.code, message=error.message, fix=error.fix)
    return JSONResponse(problem.model_dump(), status_code=_STATUS.get(error.code, 500))


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # nobody is there to read it


def fleet_app(
    desk: Desk, bell: Bell, numbers: Mapping[str, int], limits: HttpLimits, hosts: list[str]
) -> Starlette:
    """The application of the fleet's routes.

    Args:
        desk: the state.
        bell: wakes waiting requests.
        numbers: client numbers by name.
        limits: bounds.
        hosts: what the header ``Host`` may say: a page in a browser of this machine that has
            another host's name is turned away.
    """
    routes = _Routes(desk, bell, numbers, limits)
    base = f"/v{PROTOCOL}"
    return Starlette(
        routes=[
            Route(f"{base}/tasks", routes.tasks, methods=["GET"]),
            Route(f"{base}/blobs/{{digest}}", routes.blob, methods=["GET"]),
            Route(f"{base}/tasks/{{task}}/update", routes.update, methods=["PUT"]),
            Route(f"{base}/tasks/{{task}}/failure", routes.failure, methods=["POST"]),
        ],
        exception_handlers={AnabranchError: _problem, ClientDisconnect: _gone},
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts)],
    )
