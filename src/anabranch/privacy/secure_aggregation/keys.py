"""The secrets of a client in one round, and the mask seeds that follow from them."""

from __future__ import annotations

from dataclasses import dataclass, field

from anabranch.privacy.secure_aggregation.context import RoundContext
from anabranch.privacy.secure_aggregation.group import Active
from anabranch.privacy.secure_aggregation.messages import KeyAdvert
from anabranch.privacy.secure_aggregation.primitives import agree, derive, digest

__all__ = ["Keys", "commit_seed", "pair_seed", "self_seed", "transport_binding", "transport_secret"]


@dataclass(frozen=True)
class Keys:
    """What a client made up for this round, and for no other. Never printed.

    Attributes:
        context: the round.
        identity: 32 secret bytes of Ed25519.
        mask_secret: X25519, behind the masks with neighbours.
        transport_secret: X25519, behind the sealed shares.
        seed: behind the client's own mask.
        advert: what the client published of them.
    """

    context: RoundContext
    identity: bytes = field(repr=False)
    mask_secret: bytes = field(repr=False)
    transport_secret: bytes = field(repr=False)
    seed: bytes = field(repr=False)
    advert: KeyAdvert

    @property
    def name(self) -> str:
        """The client's name."""
        return self.advert.sender


def commit_seed(context: bytes, name: str, seed: bytes) -> bytes:
    """What an advert says of the seed."""
    return digest("seed", context, name.encode(), seed)


def pair_seed(secret: bytes, public: bytes, active: Active, one: str, other: str) -> bytes:
    """The stream seed of two clients, the same from both sides.

    It is bound to run, round, model, plan, keys, graph and participants (through the digest of
    ``active``) and to both names.
    """
    first, second = sorted((one, other))
    info = digest("pair mask", active.digest, first.encode(), second.encode())
    return derive(agree(secret, public), info)


def self_seed(seed: bytes, active: Active, name: str) -> bytes:
    """The stream seed of a client's own mask."""
    return derive(seed, digest("own mask", active.digest, name.encode()))


def transport_secret(secret: bytes, public: bytes, group: bytes, dealer: str, to: str) -> bytes:
    """The key under which ``dealer`` seals shares for ``to``; one for each direction."""
    info = digest("transport", group, dealer.encode(), to.encode())
    return derive(agree(secret, public), info)


def transport_binding(group: bytes, dealer: str, to: str, commitments: bytes) -> bytes:
    """What a sealed share is authenticated with."""
    return digest("sealed share", group, dealer.encode(), to.encode(), commitments)
