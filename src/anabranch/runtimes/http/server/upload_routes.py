"""The routes of uploads: at once, or in parts that survive a broken connection."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from anabranch.client.task import Fate
from anabranch.errors import AnabranchError
from anabranch.runtimes.http.messages import (
    PROTOCOL,
    OpenUpload,
    Receipt,
    UploadState,
    digest_of_header,
    sha256,
)
from anabranch.runtimes.http.server.counter import Counter
from anabranch.runtimes.http.server.desk import Desk
from anabranch.runtimes.http.server.requests import (
    answer,
    body_of,
    malformed,
    message_of,
    pieces_of,
    stated_length,
    too_large,
)
from anabranch.runtimes.http.server.spool import Answer
from anabranch.runtimes.http.server.uploads import Upload, wrong_checksum

__all__ = ["upload_routes"]


class _Uploading:
    def __init__(self, counter: Counter) -> None:
        self._counter = counter

    async def update(self, request: Request) -> Response:
        """Take an update in one request: of the stated checksum, not larger than allowed."""
        name, task = self._counter.client(request), request.path_params["task"]
        desk = self._counter.office.of_task(task, name)
        limit = desk.limit(task, name)
        digest = digest_of_header(request.headers.get("content-digest", ""))
        length = stated_length(request)
        small = self._counter.limits.small_bytes
        try:
            if length is None or length <= small or length > limit:
                return await self._small(request, desk, task, name, min(limit, 16 * small), digest)
            if digest is None:
                raise wrong_checksum()
            upload = self._counter.uploads.begin(task, name, digest, length)
            pieces = pieces_of(request, length, self._counter.limits)
            await self._counter.uploads.append(upload, 0, pieces)
            if not upload.whole:
                raise malformed("the body is shorter than its stated length")
            return await self._finished(desk, upload)
        except AnabranchError as error:
            self._refuse(desk, task, name, error)
            raise

    async def _small(
        self, request: Request, desk: Desk, task: str, name: str, limit: int, digest: str | None
    ) -> Response:
        content = await body_of(request, limit, self._counter.limits)
        if digest is None or digest != sha256(content):
            raise wrong_checksum()
        if desk.reserve(task, name, digest):
            return self._receipt(task, name, digest, repeated=True)
        found = Answer(task, name, digest, len(content), 0, content)
        return await self._accepted(desk, found)

    async def begin(self, request: Request) -> Response:
        """Announce an upload in parts; the answer says where it stands."""
        name, task = self._counter.client(request), request.path_params["task"]
        desk = self._counter.office.of_task(task, name)
        asked = await message_of(request, OpenUpload, self._counter.limits)
        if asked.length > desk.limit(task, name):
            error = too_large(desk.limit(task, name))
            self._refuse(desk, task, name, error)
            raise error
        if desk.reserve(task, name, asked.sha256):
            return self._receipt(task, name, asked.sha256, repeated=True)
        desk.unreserve(task, name)  # others may still send another answer first
        upload = self._counter.uploads.begin(task, name, asked.sha256, asked.length)
        if upload.whole:
            return await self._finished(desk, upload)
        return _state(upload, 201)

    async def stand(self, request: Request) -> Response:
        """Where an upload stands."""
        return _state(self._find(request), 200)

    async def part(self, request: Request) -> Response:
        """Append a part; the last one makes the answer durable."""
        upload = self._find(request)
        offset = request.headers.get("upload-offset", "")
        if not offset.isdecimal() or len(offset) > 15:
            raise malformed("the header Upload-Offset is not a number of bytes")
        desk = self._counter.office.of_task(upload.task, upload.client)
        pieces = pieces_of(request, upload.length, self._counter.limits)
        await self._counter.uploads.append(upload, int(offset), pieces)
        if upload.whole:
            return await self._finished(desk, upload)
        return _state(upload, 200)

    def _find(self, request: Request) -> Upload:
        name = self._counter.client(request)
        return self._counter.uploads.find(request.path_params["upload"], name)

    async def _finished(self, desk: Desk, upload: Upload) -> Response:
        counter, task, name = self._counter, upload.task, upload.client
        if desk.reserve(task, name, upload.digest):
            counter.uploads.drop(upload)
            return self._receipt(task, name, upload.digest, repeated=True)
        try:
            file = await counter.uploads.finish(upload, counter.spool.files)
        except AnabranchError:
            desk.unreserve(task, name)
            raise
        return await self._accepted(
            desk, Answer(task, name, upload.digest, upload.length, 0, None, file)
        )

    async def _accepted(self, desk: Desk, found: Answer) -> Response:
        """Durable first, then counted, then acknowledged."""
        task, name = found.task, found.client
        faults = self._counter.faults
        try:
            faults.reach("answer.arrived")
            milliseconds = int(1000 * desk.seconds(task, name))
            found = replace(found, milliseconds=milliseconds)
            run = desk.facts.run
            private = desk.trained(task, name) if run in self._counter.ledgers else None
            await asyncio.wrap_future(self._counter.spool.add(run, found, private))
        except AnabranchError:
            desk.unreserve(task, name)
            raise
        faults.reach("answer.durable")
        repeated = desk.accept(found)
        self._counter.uploads.end(task, name)
        faults.reach("answer.counted")
        return self._receipt(task, name, found.digest, repeated=repeated)

    def _receipt(self, task: str, name: str, digest: str, *, repeated: bool) -> Response:
        receipt = Receipt(repeated=repeated, sha256=digest)
        return answer(self._counter.signer.signed(receipt, name, task))

    @staticmethod
    def _refuse(desk: Desk, task: str, name: str, error: AnabranchError) -> None:
        if error.code == "AB-715":  # whoever sends too much sends no update: nobody waits
            desk.fail(task, name, Fate.REFUSED, str(error))


def _state(upload: Upload, status: int) -> Response:
    state = UploadState(upload=upload.id, offset=upload.offset, length=upload.length)
    response = answer(state, status)
    response.headers["Upload-Offset"] = str(upload.offset)
    response.headers["Cache-Control"] = "no-store"
    return response


def upload_routes(counter: Counter) -> list[Route]:
    """How answers come in."""
    uploading, base = _Uploading(counter), f"/v{PROTOCOL}"
    return [
        Route(f"{base}/tasks/{{task}}/update", uploading.update, methods=["PUT"]),
        Route(f"{base}/tasks/{{task}}/uploads", uploading.begin, methods=["POST"]),
        Route(f"{base}/uploads/{{upload}}", uploading.stand, methods=["GET"]),
        Route(f"{base}/uploads/{{upload}}", uploading.part, methods=["PATCH"]),
    ]
