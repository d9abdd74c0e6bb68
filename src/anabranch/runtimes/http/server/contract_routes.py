"""The route of amended contracts: a client says whether it accepts one."""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from anabranch.runtimes.http.messages import PROTOCOL, Acceptance
from anabranch.runtimes.http.server.counter import Counter
from anabranch.runtimes.http.server.requests import malformed, message_of

__all__ = ["contract_routes"]


class _Contracts:
    def __init__(self, counter: Counter) -> None:
        self._counter = counter

    async def acceptance(self, request: Request) -> Response:
        """Yes or no; an answer about a contract that is no longer in force changes nothing."""
        name = self._counter.client(request)
        said = await message_of(request, Acceptance, self._counter.limits)
        desk = self._counter.office.of_run(request.path_params["run"], name)
        muster = desk.facts.muster if desk is not None else None
        if muster is None:
            raise malformed("the client takes part in no such run")
        await run_in_threadpool(muster.answered, name, said)
        return Response(status_code=204)


def contract_routes(counter: Counter) -> list[Route]:
    """What a client may say of a contract."""
    path = f"/v{PROTOCOL}/runs/{{run}}/acceptance"
    return [Route(path, _Contracts(counter).acceptance, methods=["POST"])]
