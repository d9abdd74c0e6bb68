"""Versions of the protocol: what each minor version added, and which one two ends speak.

The major version is part of every path; under one major version, minor versions only add. A client
states the range that it speaks in the header ``Anabranch-Protocol`` of every request, the
coordinator takes the newest version that both know, says in the same header of its answer which one
that is, and leaves out of that answer whatever is newer. A request without the header is one of
version 1.0, which had none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from anabranch.canonical import Document
from anabranch.errors import AnabranchError
from anabranch.runtimes.http.messages import PROTOCOL
from anabranch.values import Value

if TYPE_CHECKING:
    from pydantic.main import IncEx

__all__ = [
    "AMENDMENTS",
    "ENCODED",
    "FIRST",
    "HEADER",
    "MINORS",
    "SPOKEN",
    "Minor",
    "Span",
    "Version",
    "agreed",
    "as_of",
    "document_as_of",
    "read_version",
]

HEADER: Final = "Anabranch-Protocol"


class Version(NamedTuple):
    """A version of the protocol.

    >>> str(Version(1, 2)), Version(1, 10) > Version(1, 9)
    ('1.2', True)
    """

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


class Span(NamedTuple):
    """The versions that one end speaks, both ends included.

    >>> str(Span(Version(1, 0), Version(1, 2)))
    '1.0-1.2'
    """

    oldest: Version
    newest: Version

    def __str__(self) -> str:
        return f"{self.oldest}-{self.newest}"

    @staticmethod
    def parse(text: str) -> Span | None:
        """The inverse of ``str``; one version alone is a span of itself. None: neither of them."""
        oldest, dash, newest = text.strip().partition("-")
        found = read_version(oldest), read_version(newest if dash else oldest)
        if found[0] is None or found[1] is None or found[0] > found[1]:
            return None
        return Span(found[0], found[1])


@dataclass(frozen=True)
class Minor:
    """A minor version.

    Attributes:
        version: its number.
        adds: what it added, for people.
        fields: names of the fields that it added, by message.
    """

    version: Version
    adds: str
    fields: Mapping[str, frozenset[str]]


FIRST: Final = Version(PROTOCOL, 0)
AMENDMENTS: Final = Version(PROTOCOL, 1)
"""The first version that can ask a client to accept an amended contract."""
ENCODED: Final = Version(PROTOCOL, 2)
"""The first version with encoded downloads and with tasks of kind ``mask``."""

MINORS: Final = (
    Minor(FIRST, "the protocol without what follows", MappingProxyType({})),
    Minor(
        AMENDMENTS,
        "the header Anabranch-Protocol; amended contracts, and what a client thinks of them",
        MappingProxyType(
            {
                "Hello": frozenset({"versions", "protocol"}),
                "Contact": frozenset({"contracts"}),
            }
        ),
    ),
    Minor(
        ENCODED,
        "downloads that the plan's downlink encodes; tasks of kind mask; budgets of single tasks; "
        "rotations of the federation key; a client's own rounds beside a ledger",
        MappingProxyType(
            {
                "TaskOffer": frozenset({"decoded", "base", "whole", "whole_bytes", "update_bytes"}),
                "SignedRoster": frozenset({"rotations"}),
                "LedgerShown": frozenset({"given"}),
            }
        ),
    ),
)
"""Every minor version, oldest first."""

SPOKEN: Final = Span(MINORS[-3].version, MINORS[-1].version)
"""What this software speaks: its own version, and the two before it."""

_VERSION: Final = re.compile(r"([0-9]{1,4})\.([0-9]{1,4})")


def read_version(text: str) -> Version | None:
    """A version as text says it.

    >>> read_version("1.2"), read_version("one") is None
    (Version(major=1, minor=2), True)
    """
    found = _VERSION.fullmatch(text.strip())
    return Version(int(found[1]), int(found[2])) if found else None


def agreed(client: Span, server: Span, *, software: str) -> Version:
    """The newest version that both ends speak.

    Args:
        client: what the client speaks.
        server: what the coordinator serves.
        software: version of the coordinator's software.

    Raises:
        AnabranchError: AB-751 there is none; the fix names what to install, and where.

    >>> one, two, three = (Version(1, n) for n in (0, 1, 2))
    >>> str(agreed(Span(one, three), Span(one, two), software="0.1.0"))
    '1.1'
    """
    newest = min(client.newest, server.newest)
    if newest >= max(client.oldest, server.oldest):
        return newest
    if client.newest < server.oldest:
        fix = (
            f"install the coordinator's version at the client: pip install 'anabranch=={software}'"
        )
    else:
        fix = (
            f"ask the coordinator's operator for a version that speaks protocol {client.oldest}, "
            "or install the coordinator's version at the client: pip install "
            f"'anabranch=={software}'"
        )
    raise AnabranchError(
        "AB-751",
        f"the client speaks protocol {client.oldest} to {client.newest}, the coordinator serves "
        f"{server.oldest} to {server.newest}.",
        fix=f"{fix}.",
        kept="Nothing was sent.",
    )


def as_of(message: Value, version: Version) -> bytes:
    """A message as JSON, without what was added after ``version``."""
    newer = _newer(message, version)
    return message.model_dump_json(exclude=newer or None).encode()


def document_as_of(message: Value, version: Version) -> dict[str, Document]:
    """The same as plain values."""
    found: dict[str, Document] = message.model_dump(mode="json", exclude=_newer(message, version))
    return found


def _newer(value: Value, version: Version) -> dict[str, IncEx | bool]:
    """What to leave out, as Pydantic wants it: names, and by name what to leave out below."""
    kind = type(value).__name__
    found: dict[str, IncEx | bool] = {
        name: True
        for minor in MINORS
        if minor.version > version
        for name in minor.fields.get(kind, ())
        if name in type(value).model_fields
    }
    for name, inner in value:
        if isinstance(inner, Value) and name not in found:
            below = _newer(inner, version)
            if below:
                found[name] = below
    return found
