"""What goes over the wire: small JSON messages, and byte strings named by their SHA-256."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Annotated, Final

import numpy as np
from pydantic import Field

from anabranch.algorithms.base import Broadcast
from anabranch.client.task import Fate, TaskKind
from anabranch.errors import AnabranchError
from anabranch.updates.sections import Sections, Update
from anabranch.updates.wire import pack, unpack
from anabranch.values import Value

__all__ = [
    "PROTOCOL",
    "Contact",
    "Failure",
    "Problem",
    "Receipt",
    "TaskFate",
    "TaskOffer",
    "content_digest",
    "digest_of_header",
    "pack_broadcast",
    "sha256",
    "unpack_broadcast",
]

PROTOCOL: Final = 1
"""Version of the protocol; part of every path."""

TaskId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class TaskOffer(Value):
    """One question to one client."""

    task: TaskId
    """Names the piece of work, and never a path: it becomes part of a file name at the client."""
    kind: TaskKind
    round: int = Field(ge=0, lt=2**53)
    broadcast: Sha256
    """What to download."""
    bytes: int = Field(ge=0, lt=2**53)
    """Length of the download."""


class TaskFate(Value):
    """What became of an earlier training task of this client."""

    task: TaskId
    fate: Fate


class Contact(Value):
    """The answer to "is there something to do?"."""

    task: TaskOffer | None = None
    fates: tuple[TaskFate, ...] = ()
    closed: bool = False
    """There will be no more tasks."""


class Failure(Value):
    """Why a client has no update: an error's code and text, never values of its data."""

    code: str = Field(max_length=16)
    detail: str = Field(max_length=2000)


class Receipt(Value):
    """An upload was taken."""

    repeated: bool
    """It had been taken before; it counts once."""


class Problem(Value):
    """An error as the server tells it."""

    code: str
    message: str
    fix: str


def sha256(content: bytes) -> str:
    """In hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def content_digest(content: bytes) -> str:
    """The header ``Content-Digest`` of RFC 9530.

    >>> content_digest(b"")
    'sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:'
    """
    value = base64.b64encode(hashlib.sha256(content).digest()).decode()
    return f"sha-256=:{value}:"


def digest_of_header(header: str) -> str | None:
    """The SHA-256 that the header states, in hexadecimal; None when it states none.

    >>> digest_of_header(content_digest(b"")) == sha256(b"")
    True
    >>> digest_of_header("sha-256=:what:") is None
    True
    """
    for part in header.split(","):
        name, _, value = part.strip().partition("=")
        if name != "sha-256" or len(value) < 2 or value[0] != ":" or value[-1] != ":":
            continue
        try:
            raw = base64.b64decode(value[1:-1], validate=True)
        except (binascii.Error, ValueError):
            return None
        return raw.hex() if len(raw) == hashlib.sha256().digest_size else None
    return None


def pack_broadcast(broadcast: Broadcast, sections: Sections) -> bytes:
    """The declared vectors of a broadcast, and no others, in the container of updates."""
    vectors = {name: np.ascontiguousarray(vector) for name, vector in broadcast.items()}
    return pack(Update(vectors, {}), sections)


def unpack_broadcast(content: bytes, sections: Sections) -> Broadcast:
    """The inverse of `pack_broadcast`.

    Raises:
        AnabranchError: AB-720 these are not the vectors that the client's program expects.
    """
    try:
        vectors = unpack(content, sections, "coordinator").vectors
    except AnabranchError as error:
        raise AnabranchError(
            "AB-720",
            "the coordinator's download does not hold the vectors that this client's program "
            "expects.",
            fix="use the same plan and software version at the client and the coordinator.",
            kept="Nothing was sent.",
        ) from error
    return {name: np.asarray(vector, np.float32) for name, vector in vectors.items()}
