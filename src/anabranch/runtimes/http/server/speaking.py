"""Which version of the protocol a request is in: agreed before any route is reached."""

from __future__ import annotations

from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from anabranch.errors import AnabranchError
from anabranch.runtimes.http.messages import PROTOCOL
from anabranch.runtimes.http.server.counter import Counter
from anabranch.runtimes.http.server.requests import malformed, problem
from anabranch.runtimes.http.versions import FIRST, HEADER, Span, Version, agreed

__all__ = ["Speaking", "version_of"]

_KEY: Final = "anabranch.version"
_FLEET: Final = ("/hello", f"/v{PROTOCOL}/")


class Speaking:
    """Agrees on a version, or refuses; the answer's header names it.

    Args:
        app: the routes.
        counter: knows what this coordinator serves.
    """

    def __init__(self, app: ASGIApp, counter: Counter) -> None:
        self._app, self._counter = app, counter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(_FLEET):
            await self._app(scope, receive, send)
            return
        try:
            version = self._agreed(Headers(scope=scope).get(HEADER))
        except AnabranchError as error:
            await problem(error)(scope, receive, send)
            return
        scope.setdefault("state", {})[_KEY] = version

        async def telling(message: Message) -> None:
            if message["type"] == "http.response.start" and version > FIRST:
                MutableHeaders(scope=message)[HEADER] = str(version)
            await send(message)

        await self._app(scope, receive, telling)

    def _agreed(self, stated: str | None) -> Version:
        """The newest common version; who states nothing speaks the first one."""
        span = Span(FIRST, FIRST) if stated is None else Span.parse(stated)
        if span is None:
            raise malformed(f"the header {HEADER} is not a version or a range such as 1.0-1.2")
        return agreed(span, self._counter.serves, software=self._counter.software)


def version_of(request: Request) -> Version:
    """The version that was agreed on for a request."""
    found = request.scope.get("state", {}).get(_KEY, FIRST)
    assert isinstance(found, Version)
    return found
