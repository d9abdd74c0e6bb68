"""The states of the coordinator in a round; ``server`` has the steps between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from anabranch.privacy.secure_aggregation.context import RoundContext
from anabranch.privacy.secure_aggregation.group import Active, Group, KeyRing
from anabranch.privacy.secure_aggregation.key_messages import (
    KeyAdvert,
    KeyList,
    NonceList,
    NonceOpening,
)
from anabranch.privacy.secure_aggregation.messages import (
    InputProof,
    SealedShare,
    ShareBundle,
    UnmaskRequest,
)
from anabranch.privacy.secure_aggregation.streams import Lanes

__all__ = [
    "Abandoned",
    "CollectingInputs",
    "CollectingKeys",
    "CollectingNonces",
    "CollectingReveals",
    "CollectingShares",
    "CollectingSignatures",
    "Finished",
    "Outcome",
    "ServerState",
]


class Outcome(StrEnum):
    """Why a round was abandoned."""

    TOO_FEW_KEYS = "too few clients sent keys"
    TOO_FEW_NONCES = "too few clients opened their nonces"
    TOO_FEW_SHARES = "too few clients shared their secrets"
    TOO_FEW_INPUTS = "too few clients sent their vector"
    TOO_FEW_SIGNATURES = "too few clients signed the survivors"
    TOO_FEW_REVEALS = "too few shares were revealed"
    BAD_DEALER = "a client shared another secret than it committed to"


@dataclass(frozen=True)
class CollectingKeys:
    """Waits for adverts."""

    context: RoundContext
    adverts: Mapping[str, KeyAdvert] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class CollectingNonces:
    """The key list is out; waits for openings."""

    ring: KeyRing
    key_list: KeyList = field(repr=False)
    openings: Mapping[str, NonceOpening] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class CollectingShares:
    """The nonces are out, cohort and graph fixed; waits for sealed shares."""

    group: Group
    key_list: KeyList = field(repr=False)
    nonces: NonceList = field(repr=False)
    bundles: Mapping[str, ShareBundle] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, eq=False)
class CollectingInputs:
    """Shares are delivered; waits for masked vectors and adds them up as they come.

    Attributes:
        total: sum of the masked vectors so far, modulo 2^b; never written to.
        proofs: of whose vector is in it.
    """

    group: Group
    active: Active
    bundles: Mapping[str, ShareBundle] = field(repr=False)
    total: Lanes = field(repr=False)
    proofs: Mapping[str, InputProof] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, eq=False)
class CollectingSignatures:
    """The survivors are fixed; waits for signatures under the set."""

    inputs: CollectingInputs
    survivors: tuple[str, ...]
    signatures: Mapping[str, bytes] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, eq=False)
class CollectingReveals:
    """The request to unmask is out; waits for shares.

    Attributes:
        shares: good shares by dealer, then by the client that revealed them.
        replied: who answered.
        blamed: clients that revealed another share than was dealt to them.
    """

    inputs: CollectingInputs
    request: UnmaskRequest = field(repr=False)
    commitments: Mapping[tuple[str, str], SealedShare] = field(repr=False)
    shares: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict, repr=False)
    replied: frozenset[str] = frozenset()
    blamed: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Finished:
    """The sum is open.

    Attributes:
        context: the round.
        total: the sum of the survivors' vectors modulo 2^b; ``FixedPoint.decode`` reads it.
        survivors: whose vectors are in it.
        blamed: clients that revealed wrong shares.
    """

    context: RoundContext
    total: Lanes = field(repr=False)
    survivors: tuple[str, ...]
    blamed: tuple[str, ...]


@dataclass(frozen=True)
class Abandoned:
    """The round ended without a sum; no vector was opened, and none will be."""

    context: RoundContext
    outcome: Outcome
    detail: str


ServerState = (
    CollectingKeys
    | CollectingNonces
    | CollectingShares
    | CollectingInputs
    | CollectingSignatures
    | CollectingReveals
    | Finished
    | Abandoned
)
