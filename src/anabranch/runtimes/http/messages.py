"""What goes over the wire: small JSON messages, and byte strings named by their SHA-256.

Every message is a flat JSON object of text, integers below 2^53, booleans and lists: a browser can
read and write them. Durations are whole milliseconds, so that no clock is compared with another.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from typing import Annotated, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from anabranch.algorithms.base import Broadcast
from anabranch.client.task import Fate, TaskKind
from anabranch.errors import AnabranchError
from anabranch.fleet import receipts as fleet_receipts
from anabranch.updates.container import Buffer, parts_of, read_views
from anabranch.updates.sections import Sections, Vector
from anabranch.values import Value

__all__ = [
    "OLDEST_PROTOCOL",
    "PROTOCOL",
    "Acceptance",
    "Challenge",
    "Contact",
    "Enrolled",
    "Failure",
    "Hello",
    "LedgerShown",
    "OpenUpload",
    "Problem",
    "Proofs",
    "ProvedUpload",
    "Receipt",
    "Session",
    "SessionRequest",
    "Summons",
    "TaskFate",
    "TaskOffer",
    "UploadState",
    "checked_vectors",
    "content_digest",
    "digest_of_header",
    "pack_broadcast",
    "sha256",
    "unpack_broadcast",
]

PROTOCOL: Final = 1
"""Major version of the protocol; part of every path. What minor versions added stands in
`anabranch.runtimes.http.versions`."""

OLDEST_PROTOCOL: Final = 1
"""The oldest major version that is still served."""

TaskId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Decimal = Annotated[str, Field(pattern=r"^([0-9]{1,16}(\.[0-9]{1,20})?(e-?[0-9]{1,3})?|inf)$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Digest = Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]
"""A SHA-256, or nothing."""
Length = Annotated[int, Field(ge=0, lt=2**53)]
Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
VersionText = Annotated[str, Field(pattern=r"^[0-9]{1,4}\.[0-9]{1,4}$")]
Signed = Annotated[str, Field(pattern=r"^([0-9a-f]{128})?$")]
"""An Ed25519 signature; empty where the coordinator has no key (loopback only)."""


class Hello(Value):
    """Who answers here, and what it speaks."""

    software: str = Field(max_length=64)
    protocols: tuple[int, int]
    """The oldest and the newest major version that is served."""
    versions: tuple[VersionText, ...] = ()
    """The oldest and the newest version that is served, such as 1.0 and 1.2."""
    protocol: VersionText = "1.0"
    """The version of this answer: the newest that both ends speak."""
    plan_schema: int
    """The plan schema of its contracts."""
    key: str = Field(pattern=r"^([0-9a-f]{64})?$")
    """The coordinator's public key; empty where it has none."""
    identities: bool
    """Whether clients must show that they are on the roster."""
    fleet: str = Field(default="", max_length=64)


class Challenge(Value):
    """A number that the client signs to open a session; it counts once, for a minute."""

    challenge: Hex


class SessionRequest(Value):
    """The client shows that it holds its key, and asks the coordinator to do the same."""

    client: str = Field(min_length=1, max_length=128)
    challenge: Hex
    nonce: Hex
    """Fresh, of the client's own: the coordinator's signature covers it."""
    signature: str = Field(pattern=r"^[0-9a-f]{128}$")


class Session(Value):
    """A short session: its token stands for the signature in every request."""

    token: Hex
    milliseconds: Length
    signature: Signed
    """The coordinator's, over the client's nonce: it holds the key that was pinned."""


class Enrolled(Value):
    """A token was redeemed."""

    name: str = Field(max_length=128)
    admitted: bool
    """Whether the roster lists the client already; else its signature is waited for."""
    key: Hex
    """The coordinator's public key, which signs this with the application's key in mind."""
    signature: Signed = ""


class TaskOffer(Value):
    """One question to one client."""

    task: TaskId
    """Names the piece of work, and never a path: it becomes part of a file name at the client."""
    kind: TaskKind
    round: Length
    draw: Length = 0
    """The number from which this task's public generators derive."""
    fraction: str = Field(default="", pattern=r"^([01](\.[0-9]+)?(e-[0-9]+)?)?$", max_length=32)
    """Share of the planned local work that is asked, as a decimal number; empty for all of it."""
    update_bytes: Length = 0
    """Most bytes of the encoded update; 0 where the contract says so alone."""
    broadcast: Sha256
    """What to download."""
    bytes: Length
    """Length of the download."""
    decoded: Digest = ""
    """Of the vectors, where the download is encoded by the plan's downlink; empty where it holds
    them as they are."""
    base: Length = 0
    """Version from which the encoded download leads on; 0: the first broadcast, which follows from
    the contract."""
    whole: Digest = ""
    """With ``base``: the download for a client that does not hold that version."""
    whole_bytes: Length = 0
    """Length of that one."""
    run: str = Field(default="", pattern=r"^[A-Za-z0-9._-]{0,96}$")
    """The run; part of a folder name at the client."""
    contract: Digest = ""
    """What the task belongs to; a download of that name is the contract."""
    equipment: Digest = ""
    """Shapes and preprocessing that the contract leaves open; a download."""
    letter: Digest = ""
    """Bytes for this client alone (interactive stages)."""
    milliseconds: Length = 0
    """Time until the coordinator stops waiting, at most; 0 when it does not say."""
    signature: Signed = ""

    def question(self) -> str:
        """What is asked, however its vectors travel: equal for the same task asked again."""
        left_out = {"signature", "letter", "milliseconds"}
        if self.decoded:
            left_out |= {"broadcast", "bytes", "base", "whole", "whole_bytes"}
        return self.model_dump_json(exclude=left_out)

    def self_contained(self) -> TaskOffer:
        """The task with the download that a client can read whatever it holds."""
        if not self.base:
            return self
        whole = {"broadcast": self.whole, "bytes": self.whole_bytes}
        return self.model_copy(update={**whole, "base": 0, "whole": "", "whole_bytes": 0})


class TaskFate(Value):
    """What became of an earlier training task of this client."""

    task: TaskId
    fate: Fate
    signature: Signed = ""


class Summons(Value):
    """The contract of a run was amended: the client is asked whether it accepts that."""

    run: str = Field(pattern=r"^[A-Za-z0-9._-]{1,96}$")
    contract: Sha256
    """A download: the amended contract, which names those before it."""
    signature: Signed = ""


class Acceptance(Value):
    """What a client thinks of an amended contract. Without a yes it is given no work under it."""

    contract: Sha256
    accepted: bool
    code: str = Field(default="", max_length=16)
    """Of the reason why not; it ends nothing: the client may accept later."""
    reason: str = Field(default="", max_length=2000)


class Contact(Value):
    """The answer to "is there something to do?"."""

    task: TaskOffer | None = None
    fates: tuple[TaskFate, ...] = ()
    closed: bool = False
    """There will be no more tasks."""
    again: Length = 0
    """Milliseconds after which the client should come back: the coordinator is being drained."""
    contracts: tuple[Summons, ...] = ()
    """Amended contracts that the client has not accepted."""


class Failure(Value):
    """Why a client has no update: an error's code and text, never values of its data."""

    code: str = Field(max_length=16)
    detail: str = Field(max_length=2000)
    declined: bool = False
    """The client's own policy says no."""


class Receipt(Value):
    """An upload was taken: it is on the coordinator's disk."""

    repeated: bool
    """It had been taken before; it counts once."""
    sha256: Digest = ""
    signature: Signed = ""


class ProvedUpload(Value):
    """That one update is among those that made a round."""

    receipt: fleet_receipts.Receipt
    hashes: tuple[Hex, ...] = ()
    """Every leaf of the round's tree, in order; none where they are many."""


class Proofs(Value):
    """What lets a client verify at home what its updates did."""

    heads: tuple[fleet_receipts.SignedHead, ...] = ()
    """Of consecutive rounds."""
    uploads: tuple[ProvedUpload, ...] = ()


class LedgerShown(Value):
    """Where the ledger of a private run's population stands, signed."""

    population: str = Field(max_length=64)
    """Whose ledger it is."""
    sequence: int = Field(ge=0)
    """Number of its last entry."""
    digest: Sha256
    """Of that entry; it binds all before."""
    epsilon: Decimal
    """Spent over all runs, what open runs may still spend included. What is signed has no
    fractions, so the three numbers are text."""
    budget: Decimal
    """Of the population."""
    delta: Decimal
    """Of both."""
    contents: tuple[Sha256, ...] = ()
    """Content digests of the entries after the one that was asked about: they show that nothing of
    what the client has seen was taken back."""
    given: Length = 0
    """Rounds of private runs for which this client gave an update, over all runs of the
    coordinator: a client that knows of fewer has an old folder."""
    signature: str = ""
    """Of the coordinator."""


class OpenUpload(Value):
    """The client wants to upload in parts."""

    sha256: Sha256
    length: Length


class UploadState(Value):
    """An upload in parts, as far as the coordinator has it."""

    upload: TaskId
    offset: Length
    """Bytes that are there; the next part begins with them."""
    length: Length


class Problem(Value):
    """An error as the server tells it."""

    code: str
    message: str
    fix: str


def sha256(content: Buffer) -> str:
    """In hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def content_digest(content: Buffer) -> str:
    """The header ``Content-Digest`` of RFC 9530.

    >>> content_digest(b"")
    'sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:'
    """
    return digest_header(sha256(content))


def digest_header(digest: str) -> str:
    """The header for a SHA-256 that is known already."""
    return f"sha-256=:{base64.b64encode(bytes.fromhex(digest)).decode()}:"


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


def pack_broadcast(broadcast: Broadcast, sections: Sections) -> tuple[Buffer, ...]:
    """The declared vectors of a broadcast, and no others, in the container of updates.

    Returns the parts of one byte string; vectors are views, not copies.
    """
    return parts_of({s.name: np.ascontiguousarray(broadcast[s.name]) for s in sections})


def unpack_broadcast(content: Buffer, sections: Sections) -> Broadcast:
    """The inverse of `pack_broadcast`; the vectors are views of ``content``.

    Raises:
        AnabranchError: AB-720 these are not the vectors that the client's program expects.
    """
    try:
        vectors = read_views(content)
    except ValueError as error:
        raise _unexpected() from error
    return checked_vectors(vectors, sections)


def checked_vectors(
    vectors: Mapping[str, NDArray[np.generic]], sections: Sections
) -> dict[str, Vector]:
    """Arrays of a download, if they are exactly the vectors of ``sections``.

    Raises:
        AnabranchError: AB-720 they are not.
    """
    wanted = {s.name: ((s.length,), np.dtype(np.float32)) for s in sections}
    if {name: (v.shape, v.dtype) for name, v in vectors.items()} != wanted:
        raise _unexpected()
    return {name: np.asarray(vector, np.float32) for name, vector in vectors.items()}


def _unexpected() -> AnabranchError:
    return AnabranchError(
        "AB-720",
        "the coordinator's download does not hold the vectors that this client's program expects.",
        fix="use the same plan and software version at the client and the coordinator.",
        kept="Nothing was sent.",
    )
