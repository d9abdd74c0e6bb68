"""The secrets of a client in one round, and the mask seeds that follow from them.

In a hybrid round both X25519 secrets stand beside ML-KEM-768 keys, and everything that is derived
needs both to fall. The masks of two clients then also take a contribution: derived from the root of
the one that comes first, and told to the other under its ML-KEM key. Root and ciphertext give it
back to who reconstructs either root, as the coordinator does for a client that vanished.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from anabranch.privacy.secure_aggregation.context import RoundContext
from anabranch.privacy.secure_aggregation.group import Active
from anabranch.privacy.secure_aggregation.key_messages import KeyAdvert
from anabranch.privacy.secure_aggregation.primitives import (
    KEY_BYTES,
    Entropy,
    agree,
    clamped,
    decapsulate,
    derive,
    digest,
    encapsulate,
    kem_public,
    new_agreement_key,
    public_agreement_key,
)
from anabranch.privacy.secure_aggregation.sharing import new_secret

__all__ = [
    "Keys",
    "MaskKey",
    "bound_seed",
    "commit_seed",
    "new_mask_root",
    "pair_seed",
    "self_seed",
    "told_contribution",
    "transport_binding",
    "transport_key",
]


@dataclass(frozen=True)
class MaskKey:
    """What is behind the masks with neighbours, from the 32-byte root that is shared out.

    Attributes:
        root: in a plain round the X25519 secret itself.
        hybrid: whether an ML-KEM key is derived from it, too.
    """

    root: bytes = field(repr=False)
    hybrid: bool

    @property
    def secret(self) -> bytes:
        """Of X25519."""
        return clamped(derive(self.root, b"mask x25519")) if self.hybrid else self.root

    @property
    def kem_seed(self) -> bytes:
        """Of ML-KEM-768; 64 bytes, and empty in a plain round."""
        return derive(self.root, b"mask ml-kem", 64) if self.hybrid else b""

    def public(self) -> tuple[bytes, bytes]:
        """The two public keys as an advert has them."""
        kem = kem_public(self.kem_seed) if self.hybrid else b""
        return public_agreement_key(self.secret), kem

    def contribution(self, to: str) -> bytes:
        """What this client, which comes before ``to``, adds to their masks."""
        return derive(self.root, digest("contribution", to.encode())) if self.hybrid else b""

    def tell(self, to: str, public: bytes) -> bytes:
        """The contribution, readable by the owner of the ML-KEM key ``public`` alone."""
        secret, ciphertext = encapsulate(public)
        return ciphertext + _xor(self.contribution(to), derive(secret, b"contribution"))

    def hear(self, told: bytes) -> bytes:
        """What another client told this one.

        Raises:
            ValueError: ``told`` has another size.
        """
        ciphertext, hidden = told[:-KEY_BYTES], told[-KEY_BYTES:]
        secret = decapsulate(self.kem_seed, ciphertext)
        return _xor(hidden, derive(secret, b"contribution"))


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))


def new_mask_root(hybrid: bool, entropy: Entropy) -> MaskKey:
    """A fresh root, below the prime of the shares."""
    return MaskKey(new_secret(entropy) if hybrid else new_agreement_key(entropy), hybrid)


@dataclass(frozen=True)
class Keys:
    """What a client made up for this round, and for no other. Never printed.

    Attributes:
        context: the round.
        identity: 32 secret bytes of Ed25519.
        mask: behind the masks with neighbours.
        transport_secret: X25519, behind the sealed shares.
        seed: behind the client's own mask.
        nonce: opened when the key list is fixed.
        advert: what the client published of them.
        transport_kem: 64-byte seed of ML-KEM-768 behind the sealed shares; empty when not hybrid.
    """

    context: RoundContext
    identity: bytes = field(repr=False)
    mask: MaskKey = field(repr=False)
    transport_secret: bytes = field(repr=False)
    seed: bytes = field(repr=False)
    nonce: bytes = field(repr=False)
    advert: KeyAdvert
    transport_kem: bytes = field(default=b"", repr=False)

    @property
    def name(self) -> str:
        """The client's name."""
        return self.advert.sender

    @property
    def mask_secret(self) -> bytes:
        """X25519, behind the masks with neighbours."""
        return self.mask.secret


def commit_seed(context: bytes, name: str, seed: bytes) -> bytes:
    """What an advert says of the seed."""
    return digest("seed", context, name.encode(), seed)


def told_contribution(mask: MaskKey, name: str, peer: str, told: bytes) -> bytes:
    """The contribution to the masks of ``name``, whose key ``mask`` is, and ``peer``.

    Args:
        told: the ciphertext that passed between them.
    """
    if not mask.hybrid:
        return b""
    return mask.contribution(peer) if name < peer else mask.hear(told)


def pair_seed(
    secret: bytes, public: bytes, active: Active, one: str, other: str, contribution: bytes = b""
) -> bytes:
    """The stream seed of two clients, the same from both sides.

    It is bound to run, round, model, plan, keys, graph and participants (through the digest of
    ``active``) and to both names.
    """
    return bound_seed(agree(secret, public) + contribution, active, one, other)


def bound_seed(shared: bytes, active: Active, one: str, other: str) -> bytes:
    """``pair_seed`` from what the two share."""
    first, second = sorted((one, other))
    info = digest("pair mask", active.digest, first.encode(), second.encode())
    return derive(shared, info)


def self_seed(seed: bytes, active: Active, name: str) -> bytes:
    """The stream seed of a client's own mask."""
    return derive(seed, digest("own mask", active.digest, name.encode()))


def transport_key(shared: bytes, group: bytes, dealer: str, to: str) -> bytes:
    """The key under which ``dealer`` seals shares for ``to``; one for each direction.

    Args:
        shared: by X25519 and, in a hybrid round, ML-KEM.
    """
    info = digest("transport", group, dealer.encode(), to.encode())
    return derive(shared, info)


def transport_binding(group: bytes, dealer: str, to: str, commitments: bytes) -> bytes:
    """What a sealed share is authenticated with."""
    return digest("sealed share", group, dealer.encode(), to.encode(), commitments)
