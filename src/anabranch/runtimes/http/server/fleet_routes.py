"""The routes of the fleet: tasks, downloads, failures, sessions. See ``docs/protocol.md``."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from anabranch.client.task import Fate
from anabranch.errors import AnabranchError
from anabranch.runtimes.http.messages import (
    OLDEST_PROTOCOL,
    PROTOCOL,
    Contact,
    Failure,
    Hello,
    SessionRequest,
    sha256,
)
from anabranch.runtimes.http.server.counter import Counter
from anabranch.runtimes.http.server.requests import (
    answer,
    malformed,
    message_of,
    range_of,
)
from anabranch.runtimes.http.server.sessions import SessionDoor
from anabranch.runtimes.http.server.speaking import version_of
from anabranch.runtimes.http.versions import Version
from anabranch.updates.container import Buffer

__all__ = ["fleet_routes"]

_PIECE: Final = 1 << 20
_TASK: Final = re.compile(r"[0-9a-f]{32}")
_OF_RUN: Final = re.compile(r"[A-Za-z0-9._-]{0,96}/[0-9a-f]{32}")
_MOST: Final = 64


class _Fleet:
    def __init__(self, counter: Counter) -> None:
        self._counter = counter

    async def hello(self, request: Request) -> Response:
        """Who answers here, and what it speaks; for everybody."""
        counter = self._counter
        hello = Hello(
            software=counter.software,
            protocols=(OLDEST_PROTOCOL, PROTOCOL),
            plan_schema=counter.plan_schema,
            key=counter.signer.key,
            identities=counter.door.identities,
            fleet=counter.fleet,
            versions=tuple(str(version) for version in counter.serves),
            protocol=str(version_of(request)),
        )
        return answer(hello, version=version_of(request))

    async def challenge(self, request: Request) -> Response:
        """A number to sign."""
        return answer(self._sessions().challenge())

    async def session(self, request: Request) -> Response:
        """A session for a signed number."""
        asked = await message_of(request, SessionRequest, self._counter.limits)
        return answer(self._sessions().open(asked))

    async def tasks(self, request: Request) -> Response:
        """Hold the request until there is a task, the run ends, or the time is over."""
        counter, name = self._counter, self._counter.client(request)
        wait, version = self._wait(request), version_of(request)
        heard = _named(request, "heard", _TASK)
        unresolved = _named(request, "unresolved", _OF_RUN)
        event = counter.bell.expect(name)  # before looking: a task that comes now rings it
        try:
            contact = self._contact(name, heard, unresolved, version)
            if contact == Contact():
                async with asyncio.timeout(wait):
                    await event.wait()
                contact = self._contact(name, (), (), version)
        except TimeoutError:
            contact = self._contact(name, (), (), version)
        finally:
            counter.bell.forget(name, event)
        self._counter.client(request)  # a member that was revoked while it waited is out
        return answer(self._signed(contact, name, version), version=version)

    def _contact(
        self, name: str, heard: tuple[str, ...], unresolved: tuple[str, ...], version: Version
    ) -> Contact:
        counter = self._counter
        return counter.office.contact(name, heard, unresolved, counter.clock(), version)

    def _signed(self, contact: Contact, name: str, version: Version) -> Contact:
        signer, task = self._counter.signer, contact.task
        if not signer.key:
            return contact
        signed = {
            "task": signer.signed(task, name, version=version) if task is not None else None,
            "fates": tuple(signer.signed(fate, name) for fate in contact.fates),
            "contracts": tuple(signer.signed(asked, name) for asked in contact.contracts),
        }
        return contact.model_copy(update=signed)

    async def blob(self, request: Request) -> Response:
        """Bytes named by their SHA-256: they never change, so they may be kept."""
        name, digest = self._counter.reader(request), request.path_params["digest"]
        content = self._counter.shelf.get(digest)
        if content is None:
            raise AnabranchError(
                "AB-713",
                "no open task refers to this download.",
                fix="nothing: the client asks for its next task.",
            )
        for desk in self._counter.office.desks:
            desk.fetched(digest, name)
        headers = {
            "ETag": f'"{digest}"',
            "Cache-Control": "private, immutable, max-age=86400",
            "Accept-Ranges": "bytes",
        }
        if f'"{digest}"' in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return _ranged(request, content, headers)

    async def letter(self, request: Request) -> Response:
        """The bytes of an interactive stage for this client alone; never kept by a cache."""
        name, task = self._counter.client(request), request.path_params["task"]
        letter = self._counter.office.of_task(task, name).letter(task, name)
        if letter is None:
            raise malformed("the task has no letter")
        headers = {"ETag": f'"{sha256(letter)}"', "Cache-Control": "no-store"}
        return _ranged(request, letter, headers | {"Accept-Ranges": "bytes"})

    async def failure(self, request: Request) -> Response:
        """The client tells why it has no update."""
        name, task = self._counter.client(request), request.path_params["task"]
        desk = self._counter.office.of_task(task, name)
        failure = await message_of(request, Failure, self._counter.limits)
        fate = Fate.DECLINED if failure.declined else Fate.FAILED
        desk.fail(task, name, fate, f"{failure.code} {failure.detail}".strip())
        return Response(status_code=204)

    def _sessions(self) -> SessionDoor:
        door = self._counter.door
        if not isinstance(door, SessionDoor):
            raise malformed("this coordinator has no sessions: it serves the loopback interface")
        return door

    def _wait(self, request: Request) -> float:
        longest = self._counter.limits.poll_seconds
        try:
            wait = float(request.query_params.get("wait", longest))
        except ValueError as error:
            raise malformed("'wait' is not a number of seconds") from error
        if not wait >= 0:  # also what is not a number
            raise malformed("'wait' is not a number of seconds")
        return min(wait, longest)


def _named(request: Request, key: str, form: re.Pattern[str]) -> tuple[str, ...]:
    named = request.query_params.getlist(key)[:_MOST]
    return tuple(task for task in named if form.fullmatch(task))


def _ranged(request: Request, content: Buffer, headers: dict[str, str]) -> Response:
    kind = "application/octet-stream"
    asked = request.headers.get("range", "")
    if_range = request.headers.get("if-range", "")
    if if_range and if_range != headers["ETag"]:
        asked = ""
    try:
        part = range_of(asked, len(content)) if asked else None
    except ValueError:
        headers["Content-Range"] = f"bytes */{len(content)}"
        return Response(status_code=416, headers=headers)
    start, end = part or (0, len(content))
    headers["Content-Length"] = str(end - start)
    if part is not None:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
    status = 200 if part is None else 206
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=kind)
    if end - start <= _PIECE:
        return Response(bytes(content[start:end]), status, headers=headers, media_type=kind)
    return StreamingResponse(_pieces(content, start, end), status, headers, media_type=kind)


async def _pieces(content: Buffer, start: int, end: int) -> AsyncIterator[bytes]:
    view = memoryview(content)
    for place in range(start, end, _PIECE):
        yield bytes(view[place : min(end, place + _PIECE)])


def fleet_routes(counter: Counter) -> list[Route]:
    """What clients may ask for."""
    fleet, base = _Fleet(counter), f"/v{PROTOCOL}"
    return [
        Route("/hello", fleet.hello, methods=["GET"]),
        Route(f"{base}/challenge", fleet.challenge, methods=["POST"]),
        Route(f"{base}/session", fleet.session, methods=["POST"]),
        Route(f"{base}/tasks", fleet.tasks, methods=["GET"]),
        Route(f"{base}/blobs/{{digest}}", fleet.blob, methods=["GET"]),
        Route(f"{base}/tasks/{{task}}/letter", fleet.letter, methods=["GET"]),
        Route(f"{base}/tasks/{{task}}/failure", fleet.failure, methods=["POST"]),
    ]
