"""The routes of device reports: a client's device, and what it measured in a task."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from anabranch.runtimes.http.messages import PROTOCOL
from anabranch.runtimes.http.reports import DeviceMessage, TaskMessage
from anabranch.runtimes.http.server.counter import Counter
from anabranch.runtimes.http.server.requests import message_of

__all__ = ["report_routes"]


class _Reporting:
    def __init__(self, counter: Counter) -> None:
        self._counter = counter

    async def device(self, request: Request) -> Response:
        """The client's device, as far as it says."""
        name = self._counter.client(request)
        message = await message_of(request, DeviceMessage, self._counter.limits)
        self._counter.reports.device(name, message.report(name))
        return Response(status_code=204)

    async def task(self, request: Request) -> Response:
        """What the client measured; it comes before the answer to the task."""
        name, task = self._counter.client(request), request.path_params["task"]
        self._counter.office.of_task(task, name)
        message = await message_of(request, TaskMessage, self._counter.limits)
        self._counter.reports.task(task, name, message.task_report(name))
        return Response(status_code=204)


def report_routes(counter: Counter) -> list[Route]:
    """What a client may tell of its device."""
    reporting, base = _Reporting(counter), f"/v{PROTOCOL}"
    return [
        Route(f"{base}/device", reporting.device, methods=["POST"]),
        Route(f"{base}/tasks/{{task}}/report", reporting.task, methods=["POST"]),
    ]
