"""The states of a client in a round; ``client`` has the steps between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from anabranch.privacy.secure_aggregation.dealing import Held
from anabranch.privacy.secure_aggregation.group import Active, Group, KeyRing
from anabranch.privacy.secure_aggregation.keys import Keys

__all__ = [
    "AwaitingKeys",
    "AwaitingNonces",
    "AwaitingShares",
    "AwaitingSignatures",
    "AwaitingSurvivors",
    "ClientState",
    "Done",
]


@dataclass(frozen=True)
class AwaitingKeys:
    """Keys are advertised; the key list comes next."""

    keys: Keys


@dataclass(frozen=True)
class AwaitingNonces:
    """The nonce is opened, for this list and no other; those of the others come next."""

    keys: Keys
    ring: KeyRing


@dataclass(frozen=True)
class AwaitingShares:
    """Shares are dealt; those of the neighbours come next."""

    keys: Keys
    group: Group


@dataclass(frozen=True)
class AwaitingSurvivors:
    """The masked vector is sent; the set of survivors comes next.

    Attributes:
        held: shares of the neighbours by dealer, never printed.
        complaints: neighbours whose sealed share did not open or was not what they committed to.
    """

    keys: Keys
    group: Group
    active: Active
    held: Mapping[str, Held] = field(repr=False)
    complaints: tuple[str, ...]


@dataclass(frozen=True)
class AwaitingSignatures:
    """A set of survivors is signed, the only one; the request to unmask comes next."""

    before: AwaitingSurvivors
    survivors: tuple[str, ...]


@dataclass(frozen=True)
class Done:
    """One share of each neighbour is revealed. Every secret is forgotten.

    Attributes:
        opened: digest of the context; keep it, and refuse the context for ever.
        request: digest of the request that was answered.
        reply: the answer, for a coordinator that lost it; the same request gets the same answer.
    """

    opened: bytes
    request: bytes = b""
    reply: bytes = field(default=b"", repr=False)


ClientState = (
    AwaitingKeys | AwaitingNonces | AwaitingShares | AwaitingSurvivors | AwaitingSignatures | Done
)
