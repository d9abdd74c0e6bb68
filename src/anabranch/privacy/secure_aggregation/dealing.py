"""Sealing shares for the neighbours, and opening theirs."""

from __future__ import annotations

from dataclasses import dataclass, field

from anabranch.privacy.secure_aggregation.group import (
    Active,
    Group,
    active_fault,
    check_context,
    told_fits,
)
from anabranch.privacy.secure_aggregation.keys import Keys, transport_binding, transport_key
from anabranch.privacy.secure_aggregation.messages import SealedShare, ShareDelivery, ShareKind
from anabranch.privacy.secure_aggregation.primitives import (
    KEY_BYTES,
    Agree,
    Entropy,
    agreeing,
    decapsulate,
    encapsulate,
    open_sealed,
    seal,
)
from anabranch.privacy.secure_aggregation.refusals import share_unreadable, shares_refused
from anabranch.privacy.secure_aggregation.sharing import commit_share, split

__all__ = ["Held", "deal", "open_delivery", "open_share"]


@dataclass(frozen=True)
class Held:
    """One share of each secret of a neighbour, of which at most one is ever revealed."""

    seed: bytes = field(repr=False)
    key: bytes = field(repr=False)


def deal(keys: Keys, group: Group, entropy: Entropy) -> tuple[SealedShare, ...]:
    """Sealed shares of both secrets for each neighbour, sorted by recipient."""
    neighbours = sorted(group.graph[keys.name])
    places = group.places
    holders = [places[name] for name in neighbours]
    seeds = split(keys.seed, group.threshold, holders, entropy)
    secrets = split(keys.mask.root, group.threshold, holders, entropy)
    exchange = agreeing(keys.transport_secret)
    return tuple(
        _seal(
            keys, group, exchange, name, Held(seeds[places[name]], secrets[places[name]]), entropy
        )
        for name in neighbours
    )


def _commitments(group: Group, dealer: str, to: str, held: Held) -> tuple[bytes, bytes]:
    return (
        commit_share(group.digest, dealer, to, ShareKind.SEED, held.seed),
        commit_share(group.digest, dealer, to, ShareKind.KEY, held.key),
    )


def _seal(
    keys: Keys, group: Group, exchange: Agree, to: str, held: Held, entropy: Entropy
) -> SealedShare:
    seed, key = _commitments(group, keys.name, to, held)
    theirs = group.adverts[to]
    kem, ciphertext, told = b"", b"", b""
    if keys.mask.hybrid:
        kem, ciphertext = encapsulate(theirs.transport_kem)
        told = keys.mask.tell(to, theirs.mask_kem) if keys.name < to else b""
    shared = exchange(theirs.transport_key) + kem
    secret = transport_key(shared, group.digest, keys.name, to)
    bound = transport_binding(group.digest, keys.name, to, seed + key + ciphertext + told)
    return SealedShare(
        dealer=keys.name,
        recipient=to,
        seed_commitment=seed,
        key_commitment=key,
        sealed=seal(secret, held.seed + held.key, bound, entropy),
        transport_kem=ciphertext,
        pair_kem=told,
    )


def open_share(keys: Keys, group: Group, exchange: Agree, share: SealedShare) -> Held | None:
    """The shares inside, or None if they do not open or are not what the dealer committed to."""
    try:
        kem = decapsulate(keys.transport_kem, share.transport_kem) if keys.mask.hybrid else b""
    except ValueError:
        return None
    shared = exchange(group.adverts[share.dealer].transport_key) + kem
    secret = transport_key(shared, group.digest, share.dealer, share.recipient)
    commitments = share.seed_commitment + share.key_commitment
    public = commitments + share.transport_kem + share.pair_kem
    bound = transport_binding(group.digest, share.dealer, share.recipient, public)
    content = open_sealed(secret, share.sealed, bound)
    if content is None or len(content) != 2 * KEY_BYTES:
        return None
    held = Held(content[:KEY_BYTES], content[KEY_BYTES:])
    expected = _commitments(group, share.dealer, share.recipient, held)
    return held if expected == (share.seed_commitment, share.key_commitment) else None


def open_delivery(
    keys: Keys, group: Group, delivery: ShareDelivery
) -> tuple[Active, dict[str, Held], tuple[str, ...]]:
    """Check who takes part and open the shares that they dealt to this client.

    Returns:
        Those who take part; shares by dealer; dealers whose shares are useless.
        One bad dealer stops nobody: the client goes on while a threshold of shares is good.

    Raises:
        AnabranchError: AB-955 for another round, AB-960 if too few shares are good, AB-961 if
            the participants or the dealers are not what the graph says, or are too few.
    """
    check_context(keys.context, delivery, "the coordinator")
    names = delivery.participants
    if list(names) != sorted(set(names)) or not set(names) <= set(group.adverts):
        raise shares_refused("the participants are not sorted clients of the key list")
    if keys.name not in names or delivery.recipient != keys.name:
        raise shares_refused(f"they are not for {keys.name}")
    active = group.activate(names)
    if fault := active_fault(group, active):
        raise shares_refused(fault)
    dealers = [share.dealer for share in delivery.shares]
    meant = all(
        share.recipient == keys.name and told_fits(keys.context, share) for share in delivery.shares
    )
    if not meant or dealers != sorted(active.graph[keys.name]):
        raise shares_refused("they are not one share from each participating neighbour")
    exchange = agreeing(keys.transport_secret)
    opened = {s.dealer: open_share(keys, group, exchange, s) for s in delivery.shares}
    held = {dealer: one for dealer, one in opened.items() if one is not None}
    complaints = tuple(dealer for dealer, one in opened.items() if one is None)
    if len(held) < group.threshold:
        raise share_unreadable(complaints[0])
    return active, held, complaints
