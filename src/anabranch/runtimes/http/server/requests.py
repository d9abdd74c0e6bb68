"""Reading requests and writing answers: sizes, times, JSON, ranges. What is wrong has a code."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from typing import Final, TypeVar

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from anabranch.errors import AnabranchError
from anabranch.runtimes.http.limits import HttpLimits
from anabranch.runtimes.http.messages import Problem
from anabranch.runtimes.http.versions import SPOKEN, Version, as_of
from anabranch.values import Value

__all__ = [
    "answer",
    "body_of",
    "malformed",
    "message_of",
    "pieces_of",
    "problem",
    "range_of",
    "stated_length",
    "too_large",
]

Message = TypeVar("Message", bound=Value)

STATUS: Final[Mapping[str, int]] = {
    "AB-602": 507,
    "AB-603": 503,
    "AB-613": 503,
    "AB-614": 503,
    "AB-712": 404,
    "AB-713": 410,
    "AB-714": 400,
    "AB-715": 413,
    "AB-716": 409,
    "AB-717": 400,
    "AB-733": 403,
    "AB-735": 503,
    "AB-736": 409,
    "AB-737": 403,
    "AB-738": 403,
    "AB-751": 426,
    "AB-752": 404,
    "AB-754": 409,
    "AB-755": 401,
    "AB-756": 403,
    "AB-758": 503,
    "AB-760": 401,
}
_RANGE: Final = re.compile(r"bytes=(\d{0,15})-(\d{0,15})")


def answer(message: Value, status: int = 200, version: Version = SPOKEN.newest) -> Response:
    """A message as JSON, as a client of this version of the protocol reads it."""
    return Response(as_of(message, version), status, media_type="application/json")


def problem(error: AnabranchError) -> Response:
    """An error as a client is told it; never a traceback."""
    told = Problem(code=error.code, message=error.message, fix=error.fix)
    status = STATUS.get(error.code, 400)
    headers = {"Retry-After": "5"} if status in (503, 507) else {}
    return JSONResponse(told.model_dump(), status_code=status, headers=headers)


def malformed(what: str) -> AnabranchError:
    """AB-717."""
    return AnabranchError("AB-717", f"{what}.", fix="follow docs/protocol.md.")


def too_large(limit: int) -> AnabranchError:
    """AB-715."""
    return AnabranchError(
        "AB-715",
        f"the request is larger than the {limit} bytes that are allowed here.",
        fix="use the same plan and software version at the client and the coordinator.",
        kept="The update was refused; the round goes on.",
    )


def stated_length(request: Request) -> int | None:
    """The header ``Content-Length``; None when there is none."""
    stated = request.headers.get("content-length", "")
    return int(stated) if stated.isdecimal() and len(stated) < 16 else None


async def pieces_of(request: Request, limit: int, limits: HttpLimits) -> AsyncIterator[bytes]:
    """The body as it comes: at most ``limit`` bytes, in bounded time, never silent for long.

    Raises:
        AnabranchError: AB-715 too large, AB-717 too slow.
    """
    stated = stated_length(request)
    if stated is not None and stated > limit:
        raise too_large(limit)
    size, stream = 0, request.stream()
    try:
        async with asyncio.timeout(limits.request_seconds) as whole:
            while True:
                soon = asyncio.get_running_loop().time() + limits.idle_seconds
                ends = whole.when()
                async with asyncio.timeout_at(soon if ends is None else min(soon, ends)):
                    piece = await anext(stream, None)
                if piece is None:
                    return
                size += len(piece)
                if size > limit:
                    raise too_large(limit)
                if piece:
                    yield piece
    except TimeoutError as error:
        raise malformed("the request did not end in time") from error


async def body_of(request: Request, limit: int, limits: HttpLimits) -> bytes:
    """The whole body, as `pieces_of`."""
    return b"".join([piece async for piece in pieces_of(request, limit, limits)])


async def message_of(request: Request, kind: type[Message], limits: HttpLimits) -> Message:
    """The body as a message.

    Raises:
        AnabranchError: AB-715, AB-717 it is not the declared JSON object.
    """
    content = await body_of(request, limits.message_bytes, limits)
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        raise malformed(f"the body is not the declared JSON object ({kind.__name__})") from error


def range_of(header: str, size: int) -> tuple[int, int] | None:
    """First byte and end of the one range that a header asks for; None serves everything.

    >>> range_of("bytes=2-", 10), range_of("bytes=-3", 10), range_of("bytes=0-3", 10)
    ((2, 10), (7, 10), (0, 4))
    >>> range_of("bytes=0-1,4-5", 10) is None
    True

    Raises:
        ValueError: nothing of it is there.
    """
    match = _RANGE.fullmatch(header.strip())
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
    if start >= end:
        raise ValueError("the range is outside")
    return start, end
