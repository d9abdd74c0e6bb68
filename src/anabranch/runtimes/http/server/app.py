"""The application: fleet routes, control routes, and what every answer has in common."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from anabranch.errors import AnabranchError
from anabranch.runtimes.http.messages import Problem
from anabranch.runtimes.http.server.contract_routes import contract_routes
from anabranch.runtimes.http.server.counter import Counter
from anabranch.runtimes.http.server.fleet_routes import fleet_routes
from anabranch.runtimes.http.server.ledger_routes import ledger_routes
from anabranch.runtimes.http.server.membership_routes import membership_routes
from anabranch.runtimes.http.server.proof_routes import proof_routes
from anabranch.runtimes.http.server.report_routes import report_routes
from anabranch.runtimes.http.server.requests import problem
from anabranch.runtimes.http.server.speaking import Speaking
from anabranch.runtimes.http.server.upload_routes import upload_routes

__all__ = ["application"]


async def _problem(request: Request, error: Exception) -> Response:
    if not isinstance(error, AnabranchError):
        raise error
    return problem(error)


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # nobody is there to read it


async def _nowhere(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    told = Problem(
        code="AB-717",
        message="the protocol has no such request.",
        fix="follow docs/protocol.md; ask /hello which versions are served.",
    )
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    return JSONResponse(told.model_dump(), status_code=status, headers=headers)


async def _unexpected(request: Request, error: Exception) -> Response:
    """The last resort: the log has the traceback, the client has none."""
    told = Problem(
        code="AB-758",
        message="the coordinator could not do this just now.",
        fix="send the request again; the coordinator's log says what happened.",
    )
    return JSONResponse(told.model_dump(), status_code=503, headers={"Retry-After": "5"})


def application(counter: Counter, hosts: Sequence[str], control: Sequence[Route] = ()) -> Starlette:
    """The application of one port.

    Args:
        counter: what the fleet's routes need.
        hosts: what the header ``Host`` may say; on loopback a page in a browser of this machine
            that has another host's name is turned away. ``["*"]`` allows all.
        control: further routes, which authenticate by themselves.
    """
    return Starlette(
        routes=[
            *fleet_routes(counter),
            *upload_routes(counter),
            *membership_routes(counter),
            *proof_routes(counter),
            *ledger_routes(counter),
            *report_routes(counter),
            *contract_routes(counter),
            *control,
        ],
        exception_handlers={
            AnabranchError: _problem,
            ClientDisconnect: _gone,
            HTTPException: _nowhere,
            Exception: _unexpected,
        },
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts)),
            Middleware(Speaking, counter=counter),
        ],
    )
