"""Conformance vectors of the protocol, and a player of exchanges for any client library.

``docs/conformance.json`` has two parts. ``values`` are inputs and outputs of everything that both
ends must compute alike: canonical JSON, signatures, statements, session claims, fingerprints,
tokens, digests, containers. ``exchanges`` are requests with the answers that a server of the
protocol gives, one after the other; what the server chooses is captured (``"capture"``) and used in
later requests as ``{name}``. A server that is written in another language passes when it gives
these answers for a run with one task for client ``c0``; a client when it computes these values.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from anabranch.canonical import canonical_bytes
from anabranch.client.task import Fate, TaskKind
from anabranch.fleet.enrolment import Token, apply, token_text
from anabranch.fleet.identity import Identity
from anabranch.runtimes.http.broadcasts import pack_frame, vectors_digest
from anabranch.runtimes.http.messages import (
    Receipt,
    Session,
    Summons,
    TaskFate,
    TaskOffer,
    content_digest,
)
from anabranch.runtimes.http.statements import SESSION, Signer, session_claim, statement
from anabranch.runtimes.http.versions import FIRST, HEADER, SPOKEN
from anabranch.updates.container import joined, parts_of
from anabranch.updates.downlink_state import frame_of
from anabranch.updates.grid import Change, Grid
from anabranch.updates.sections import Sections

__all__ = ["Json", "Sent", "play", "vectors"]

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

_CLIENT = Identity.from_secret(bytes(range(32)))
_COORDINATOR = Identity.from_secret(bytes(range(32, 64)))
_DELTA = np.array([0.5, -1.0, 2.0], np.float32)


def vectors() -> dict[str, Json]:
    """Everything in ``docs/conformance.json``."""
    return {"protocol": str(SPOKEN.newest), "values": _values(), "exchanges": _exchanges()}


def _values() -> dict[str, Json]:
    documents: list[Json] = [{}, {"b": [1, True, None], "a": "ä\n"}, {"n": 2**53 - 1, "s": '"\\'}]
    token = Token(
        url="https://coordinator.example:8443",
        coordinator=_COORDINATOR.fingerprint,
        secret="00112233445566778899aabbccddeeff",
        name="north",
    )
    application = apply(token, _CLIENT)
    claim = session_claim("north", "11" * 32, "22" * 32, _COORDINATOR.public_key.hex())
    container = joined(parts_of({"delta": _DELTA, "weight": np.array([8.0])}))
    return {
        "canonical_json": [
            {"document": document, "text": _canonical(document)} for document in documents
        ],
        "keys": {
            "client_secret": _CLIENT.secret.hex(),
            "client_public": _CLIENT.public_key.hex(),
            "coordinator_secret": _COORDINATOR.secret.hex(),
            "coordinator_public": _COORDINATOR.public_key.hex(),
            "coordinator_fingerprint": _COORDINATOR.fingerprint,
        },
        "token": {
            "secret": token.secret,
            "text": token_text(token),
            "id": token.id,
            "application": application.model_dump(mode="json"),
        },
        "session": {
            "claim": claim.decode(),
            "signature": _CLIENT.sign(SESSION, claim).hex(),
        },
        "statements": _statements(),
        "content_digest": {"bytes_hex": b"anabranch".hex(), "header": content_digest(b"anabranch")},
        "container": {
            "delta": [0.5, -1.0, 2.0],
            "weight": 8.0,
            "bytes_hex": container.hex(),
            "sha256": hashlib.sha256(container).hexdigest(),
        },
        "downlink": _downlink(),
    }


def _downlink() -> Json:
    """Two versions of a model of four numbers: the frames that lead to them, and what they are."""
    origin = np.array([0.0, 0.5, -0.25, 1.0], np.float32)
    first = Grid(-2, np.array([1, -2, 0, 3], np.int32))
    second = Grid(-3, np.array([2, -5, 1, 6], np.int32))
    zero = Grid.zero(len(origin))
    steps = ((0, zero, 1, first), (1, first, 2, second), (0, zero, 2, second))
    frames: list[Json] = []
    for base, old, version, new in steps:
        frame = frame_of(base, version, {"model": Change.between(old, new)})
        vectors = {"model": new.vector(origin)}
        frames.append(
            {
                "base": base,
                "version": version,
                "exponent": new.exponent,
                "units": new.units.tolist(),
                "model": vectors["model"].tolist(),
                "download_hex": joined(pack_frame(frame, vectors, Sections(()))).hex(),
                "decoded": vectors_digest(vectors),
            }
        )
    return {"origin": origin.tolist(), "frames": frames}


def _canonical(document: Json) -> str:
    return canonical_bytes(document).decode()  # type: ignore[arg-type]  # no fractions among them


def _statements() -> list[Json]:
    signer = Signer(_COORDINATOR)
    offer = TaskOffer(
        task="5f" * 16,
        kind=TaskKind.TRAIN,
        round=7,
        draw=7,
        fraction="0.5",
        broadcast="9b" * 32,
        bytes=41234,
        run="heart-1",
        contract="1f" * 32,
        equipment="77" * 32,
        milliseconds=3599000,
    )
    newest = SPOKEN.newest
    messages = (
        (offer, "", FIRST),
        (offer, "", newest),
        (TaskFate(task="5f" * 16, fate=Fate.MERGED), "", newest),
        (Receipt(repeated=False, sha256="ab" * 32), "5f" * 16, newest),
        (Session(token="cd" * 32, milliseconds=900000, signature=""), "22" * 32, newest),
        (Summons(run="heart-1", contract="1f" * 32), "", newest),
    )
    return [
        {
            "message": type(message).__name__,
            "version": str(version),
            "about": about,
            "client": "north",
            "statement": statement(message, "north", about, version).decode(),
            "signature": signer.signed(message, "north", about, version).signature,
        }
        for message, about, version in messages
    ]


_GOOD = joined(parts_of({"delta": _DELTA, "weight": np.array([8.0])}))
_OTHER = joined(parts_of({"delta": _DELTA + 1, "weight": np.array([8.0])}))
_UPDATE = "/v1/tasks/{task}/update?client=c0"
_ASK = "/v1/tasks?client=c0"


def _exchanges() -> list[Json]:
    """Requests to a server without a roster whose run has one open task for ``c0``."""
    return [
        *_greetings(),
        _step("GET", "/v1/tasks?client=nobody&wait=0", 404, answer={"code": "AB-712"}),
        _step("GET", f"{_ASK}&wait=soon", 400, answer={"code": "AB-717"}),
        _step("GET", "/v2/tasks?client=c0", 404, answer={"code": "AB-717"}),
        _step(
            "GET",
            f"{_ASK}&wait=5",
            200,
            answer={"fates": [], "closed": False, "again": 0},
            capture={"task": ["task", "task"], "broadcast": ["task", "broadcast"]},
        ),
        *_downloads(),
        *_uploads(),
        *_repetitions(),
        _step("GET", f"{_ASK}&wait=0", 200, answer={"task": None}),
        _step("DELETE", _ASK, 405, answer={"code": "AB-717"}),
    ]


def _step(method: str, path: str, status: int, **more: Json) -> Json:
    return {"method": method, "path": path, "status": status, **more}


def _greetings() -> list[Json]:
    """Versions: none stated is the first; else the newest of both ends; or there is none."""
    newest, beyond = SPOKEN.newest, f"1.{SPOKEN.newest.minor + 7}"
    none = {"code": "AB-751"}

    def hello(stated: str, status: int, **answer: Json) -> Json:
        headers: Json = {HEADER: stated}
        return _step("GET", "/hello", status, headers=headers, answer=dict(answer))

    return [
        _step("GET", "/hello", 200, answer={"protocols": [1, 1], "identities": False}),
        hello(str(SPOKEN), 200, protocol=str(newest), versions=[str(v) for v in SPOKEN]),
        hello("1.0-1.1", 200, protocol="1.1"),
        hello(f"1.1-{beyond}", 200, protocol=str(newest)),
        hello("1.0", 200, protocols=[1, 1]),
        hello(beyond, 426, **none),
        hello("0.8-0.9", 426, **none),
        hello("newest", 400, code="AB-717"),
        _step("GET", f"{_ASK}&wait=0", 426, headers={HEADER: beyond}, answer={**none}),
    ]


def _downloads() -> list[Json]:
    blob = "/v1/blobs/{broadcast}"
    return [
        _step("GET", blob, 200, names_its_sha256=True),
        _step("GET", blob, 206, headers={"Range": "bytes=0-7"}, length=8),
        _step("GET", blob, 416, headers={"Range": "bytes=99999999-"}),
        _step("GET", blob, 304, headers={"If-None-Match": '"{broadcast}"'}),
        _step("GET", "/v1/blobs/" + "0" * 64, 410, answer={"code": "AB-713"}),
    ]


def _uploads() -> list[Json]:
    """Wrong checksums, then an upload in parts: gaps are refused, overlaps are harmless."""
    body, size = base64.b64encode(_GOOD).decode(), len(_GOOD)
    begun = json.dumps({"sha256": hashlib.sha256(_GOOD).hexdigest(), "length": size})
    place, upload = "/v1/tasks/{task}/uploads?client=c0", "/v1/uploads/{upload}?client=c0"
    wrong: Json = {"Content-Digest": content_digest(b"")}

    def part(status: int, offset: str, start: int, end: int, **more: Json) -> Json:
        content = base64.b64encode(_GOOD[start:end]).decode()
        headers: Json = {"Upload-Offset": offset}
        return _step("PATCH", upload, status, headers=headers, body_base64=content, **more)

    return [
        _step("PUT", _UPDATE, 400, body_base64=body, answer={"code": "AB-714"}),
        _step("PUT", _UPDATE, 400, body_base64=body, headers=wrong, answer={"code": "AB-714"}),
        _step("POST", place, 400, answer={"code": "AB-717"}),
        _step(
            "POST",
            place,
            201,
            body=begun,
            answer={"offset": 0, "length": size},
            capture={"upload": ["upload"]},
        ),
        part(409, "40", 40, 80, answer={"code": "AB-754"}),
        part(200, "0", 0, 50, answer={"offset": 50}),
        part(200, "20", 20, 70, answer={"offset": 70}),
        _step("GET", upload, 200, answer={"offset": 70}),
        _step("GET", "/v1/uploads/" + "0" * 32 + "?client=c0", 404, answer={"code": "AB-752"}),
        part(200, "70", 70, size, answer={"repeated": False}),
    ]


def _repetitions() -> list[Json]:
    """The same answer again counts once; another one is refused."""

    def put(content: bytes, status: int, **answer: Json) -> Json:
        headers: Json = {"Content-Digest": content_digest(content)}
        body = base64.b64encode(content).decode()
        told = dict(answer)
        return _step("PUT", _UPDATE, status, body_base64=body, headers=headers, answer=told)

    return [
        put(_GOOD, 200, repeated=True, sha256=hashlib.sha256(_GOOD).hexdigest()),
        put(_OTHER, 409, code="AB-716"),
    ]


@dataclass(frozen=True)
class Sent:
    """What a server answered.

    Attributes:
        status: of HTTP.
        content: the body.
    """

    status: int
    content: bytes


Send: TypeAlias = Callable[[str, str, Mapping[str, str], bytes], Sent]


def play(path: Path, send: Send) -> int:
    """Play every exchange of a file; returns how many.

    Args:
        path: of ``conformance.json``.
        send: sends method, path, headers and body.

    Raises:
        AssertionError: an answer differs.
    """
    exchanges = json.loads(path.read_text("utf-8"))["exchanges"]
    known: dict[str, str] = {}

    def filled(text: str) -> str:
        for name, value in known.items():
            text = text.replace("{" + name + "}", value)
        return text

    for number, step in enumerate(exchanges):
        place = filled(step["path"])
        headers = {name: filled(value) for name, value in step.get("headers", {}).items()}
        body = base64.b64decode(step.get("body_base64", "")) or step.get("body", "").encode()
        got = send(step["method"], place, headers, body)
        told = f"exchange {number} ({step['method']} {place}): {got.status} {got.content[:300]!r}"
        assert got.status == step["status"], told
        if step.get("names_its_sha256"):
            assert hashlib.sha256(got.content).hexdigest() in place, told
        if "length" in step:
            assert len(got.content) == step["length"], told
        if "answer" in step or "capture" in step:
            answer = json.loads(got.content)
            for key, value in step.get("answer", {}).items():
                assert answer[key] == value, told
            for name, keys in step.get("capture", {}).items():
                value = answer
                for key in keys:
                    value = value[key]
                known[name] = value
    return len(exchanges)
