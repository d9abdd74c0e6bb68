"""The OpenAPI description of the protocol, made from the messages themselves.

``docs/openapi.json`` is what this gives; a test compares them, and another plays requests against
the server and checks every answer against the description.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from pydantic import BaseModel

from anabranch.fleet.enrolment import Application
from anabranch.fleet.roster import SignedRoster
from anabranch.runtimes.http import messages
from anabranch.runtimes.http.messages import PROTOCOL
from anabranch.runtimes.http.reports import DeviceMessage, TaskMessage
from anabranch.runtimes.http.versions import HEADER, MINORS, SPOKEN

__all__ = ["Json", "openapi"]

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

_V: Final = f"/v{PROTOCOL}"
_BYTES: Final = "application/octet-stream"
_REF: Final = "#/components/schemas/{model}"


@dataclass(frozen=True)
class _Operation:
    """One request.

    Attributes:
        method: in small letters.
        path: with parameters in braces.
        summary: one line.
        asked: the JSON body; bytes when it is the type ``bytes``.
        answers: status to message, to ``bytes``, to ``dict`` for any object, to None for nothing.
        query: names of query parameters.
        headers: names of headers that it needs.
        open: whether it needs no session.
    """

    method: str
    path: str
    summary: str
    answers: Mapping[int, type | None]
    asked: type | None = None
    query: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    open: bool = False


_OPERATIONS: Final = (
    _Operation("get", "/hello", "Who answers here", {200: messages.Hello}, open=True),
    _Operation(
        "post",
        f"{_V}/enrolment",
        "Redeem a token",
        {200: messages.Enrolled},
        Application,
        open=True,
    ),
    _Operation("get", f"{_V}/roster", "The signed roster", {200: SignedRoster}),
    _Operation(
        "post",
        f"{_V}/challenge",
        "A number to sign",
        {200: messages.Challenge},
        open=True,
    ),
    _Operation(
        "post",
        f"{_V}/session",
        "Open a session",
        {200: messages.Session},
        messages.SessionRequest,
        open=True,
    ),
    _Operation(
        "get",
        f"{_V}/tasks",
        "Wait for a task",
        {200: messages.Contact},
        query=("wait", "heard", "unresolved"),
    ),
    _Operation(
        "get",
        f"{_V}/blobs/{{digest}}",
        "A download by its SHA-256",
        {200: bytes, 206: bytes, 304: None, 416: None},
    ),
    _Operation(
        "get",
        f"{_V}/tasks/{{task}}/letter",
        "Bytes for this client",
        {200: bytes, 206: bytes, 416: None},
    ),
    _Operation(
        "put",
        f"{_V}/tasks/{{task}}/update",
        "An answer in one request",
        {200: messages.Receipt},
        bytes,
        headers=("Content-Digest",),
    ),
    _Operation(
        "post",
        f"{_V}/tasks/{{task}}/uploads",
        "Begin an upload in parts",
        {200: messages.Receipt, 201: messages.UploadState},
        messages.OpenUpload,
    ),
    _Operation(
        "get",
        f"{_V}/uploads/{{upload}}",
        "Where an upload stands",
        {200: messages.UploadState},
    ),
    _Operation(
        "patch",
        f"{_V}/uploads/{{upload}}",
        "Append a part; the last one is answered by the receipt",
        {200: messages.UploadState},
        bytes,
        headers=("Upload-Offset",),
    ),
    _Operation(
        "post",
        f"{_V}/tasks/{{task}}/failure",
        "Why there is no answer",
        {204: None},
        messages.Failure,
    ),
    _Operation(
        "post",
        f"{_V}/tasks/{{task}}/report",
        "What the client measured in a task, before its answer",
        {204: None},
        TaskMessage,
    ),
    _Operation("post", f"{_V}/device", "The client's device", {204: None}, DeviceMessage),
    _Operation(
        "get",
        f"{_V}/runs/{{run}}/ledger",
        "Where the ledger of a private run's population stands",
        {200: messages.LedgerShown},
        query=("after",),
    ),
    _Operation(
        "post",
        f"{_V}/runs/{{run}}/acceptance",
        "What the client thinks of an amended contract (since 1.1)",
        {204: None},
        messages.Acceptance,
    ),
    _Operation(
        "get",
        f"{_V}/runs/{{run}}/proofs",
        "Heads of rounds and receipts",
        {200: messages.Proofs},
        query=("after", "task"),
    ),
)
_PROBLEMS: Final = (400, 401, 403, 404, 409, 410, 413, 426, 503, 507)


def openapi() -> dict[str, Json]:
    """The description, OpenAPI 3.1."""
    schemas: dict[str, Json] = {}
    paths: dict[str, Json] = {}
    for operation in _OPERATIONS:
        place = paths.setdefault(operation.path, {})
        assert isinstance(place, dict)
        place[operation.method] = _described(operation, schemas)
    _reference(messages.Problem, schemas)
    _mark_newer(schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Anabranch, routes of the fleet",
            "version": str(SPOKEN.newest),
            "description": "See docs/protocol.md. Integers are below 2^53. What is marked x-since "
            f"is there for requests whose header {HEADER} allows that version.",
        },
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {"session": {"type": "http", "scheme": "bearer"}},
        },
    }


def _mark_newer(schemas: Mapping[str, Json]) -> None:
    """Say of each field that a minor version added which one it was."""
    for minor in MINORS:
        for message, names in minor.fields.items():
            schema = schemas[message]
            assert isinstance(schema, dict)
            assert isinstance(schema["properties"], dict)
            for name in sorted(names):
                field = schema["properties"][name]
                assert isinstance(field, dict)
                field["x-since"] = str(minor.version)


def _described(operation: _Operation, schemas: dict[str, Json]) -> dict[str, Json]:
    responses: dict[str, Json] = {
        str(status): _answer(kind, schemas) for status, kind in operation.answers.items()
    }
    if operation.method == "patch":
        one = [_reference(k, schemas) for k in (messages.UploadState, messages.Receipt)]
        responses["200"] = {
            "description": "200",
            "content": {"application/json": {"schema": {"oneOf": [*one]}}},
        }
    for status in _PROBLEMS:
        responses.setdefault(str(status), _answer(messages.Problem, schemas))
    described: dict[str, Json] = {
        "summary": operation.summary,
        "parameters": _parameters(operation),
        "responses": responses,
        "security": [] if operation.open else [{"session": []}],
    }
    if operation.asked is not None:
        described["requestBody"] = {
            "required": True,
            "content": _content(operation.asked, schemas),
        }
    return described


def _parameters(operation: _Operation) -> list[Json]:
    text: dict[str, Json] = {"type": "string"}
    named = [part[1:-1] for part in operation.path.split("/") if part.startswith("{")]
    found: list[Json] = [
        {"name": name, "in": "path", "required": True, "schema": dict(text)} for name in named
    ]
    for name in operation.query:
        schema: Json = dict(text)
        if name in ("heard", "unresolved", "task"):
            schema = {"type": "array", "items": dict(text)}
        found.append({"name": name, "in": "query", "required": False, "schema": schema})
    found += [
        {"name": name, "in": "header", "required": True, "schema": dict(text)}
        for name in operation.headers
    ]
    return found


def _answer(kind: type | None, schemas: dict[str, Json]) -> dict[str, Json]:
    described: dict[str, Json] = {"description": kind.__name__ if kind is not None else "nothing"}
    if kind is not None:
        described["content"] = _content(kind, schemas)
    return described


def _content(kind: type, schemas: dict[str, Json]) -> dict[str, Json]:
    if kind is bytes:
        return {_BYTES: {"schema": {"type": "string", "format": "binary"}}}
    if kind is dict:  # a signed statement whose fields another page describes
        return {"application/json": {"schema": {"type": "object"}}}
    return {"application/json": {"schema": _reference(kind, schemas)}}


def _reference(kind: type, schemas: dict[str, Json]) -> dict[str, Json]:
    assert issubclass(kind, BaseModel)
    if kind.__name__ not in schemas:
        schema = kind.model_json_schema(ref_template=_REF, mode="serialization")
        inner = schema.pop("$defs", {})
        if "Receipt" in inner:  # of a round's tree; the name is the upload's
            text = json.dumps([schema, inner]).replace("schemas/Receipt", "schemas/ProofReceipt")
            schema, inner = json.loads(text)
            inner["ProofReceipt"] = inner.pop("Receipt")
        for name, described in inner.items():
            schemas.setdefault(name, described)
        schemas[kind.__name__] = schema
    return {"$ref": _REF.format(model=kind.__name__)}
