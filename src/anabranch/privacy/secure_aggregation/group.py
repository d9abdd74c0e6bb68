"""What everybody knows of a round: its keys, its graph, who takes part, who survived.

These are the checks that a client makes before it trusts what the coordinator sends, and that the
coordinator makes before it sends it. Both sides call the same functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from anabranch.privacy.secure_aggregation.context import Listed, RoundContext
from anabranch.privacy.secure_aggregation.graph import drawn_cohort, neighbour_graph
from anabranch.privacy.secure_aggregation.key_messages import (
    KeyAdvert,
    KeyList,
    NonceList,
    NonceOpening,
)
from anabranch.privacy.secure_aggregation.message import Message, SignedMessage
from anabranch.privacy.secure_aggregation.messages import SealedShare
from anabranch.privacy.secure_aggregation.primitives import (
    Verify,
    agreeing,
    digest,
    encapsulate,
    verify,
)
from anabranch.privacy.secure_aggregation.refusals import (
    bad_signature,
    foreign_context,
    key_list_refused,
    nonces_refused,
)

__all__ = [
    "Active",
    "Group",
    "KeyRing",
    "accept_keys",
    "active_fault",
    "check_context",
    "check_signature",
    "check_usable",
    "commit_nonce",
    "form_group",
    "told_fits",
    "opening_fault",
    "survivors_fault",
]

_ANY_SECRET = bytes([64]) * 32
_KEM_CIPHERTEXT = 1088


@dataclass(frozen=True)
class KeyRing:
    """The clients whose keys are fixed, before their nonces are open.

    Attributes:
        context: the round.
        adverts: advert by name, sorted.
        counts: cohort, k, t and quorums for so many clients.
        digest: stands for the context and the keys.
    """

    context: RoundContext
    adverts: Mapping[str, KeyAdvert] = field(repr=False)
    counts: Listed
    digest: bytes


@dataclass(frozen=True)
class Group:
    """The cohort: clients whose keys are fixed and who were drawn.

    Attributes:
        context: the round.
        adverts: advert by name, sorted.
        graph: neighbours by name.
        counts: k, t and quorums.
        digest: stands for the context, the keys, the nonces and therefore the graph.
        ring, nonces: what all this follows from.
    """

    context: RoundContext
    adverts: Mapping[str, KeyAdvert] = field(repr=False)
    graph: Mapping[str, frozenset[str]] = field(repr=False)
    counts: Listed
    digest: bytes
    ring: KeyRing = field(repr=False)
    nonces: NonceList = field(repr=False)

    @property
    def threshold(self) -> int:
        """t shares reconstruct a secret."""
        return self.counts.shape.threshold

    @property
    def quorum(self) -> int:
        """Signatures that open the sum."""
        return self.counts.quorum

    def holder(self, name: str) -> int:
        """The point at which ``name`` holds shares: its place in the list, from 1."""
        return self.places[name]

    @property
    def places(self) -> Mapping[str, int]:
        """The point of every client."""
        return {name: place for place, name in enumerate(self.adverts, start=1)}

    def activate(self, participants: Iterable[str]) -> Active:
        """The group, reduced to those who dealt shares."""
        present = frozenset(participants)
        names = tuple(sorted(present))
        graph = {name: self.graph[name] & present for name in names}
        encoded = (name.encode() for name in names)
        return Active(names, graph, digest("active", self.digest, *encoded))


@dataclass(frozen=True)
class Active:
    """Those whose masks are in play.

    Attributes:
        participants: sorted names.
        graph: participating neighbours of each.
        digest: stands for the group and the participants; it is bound into every mask.
    """

    participants: tuple[str, ...]
    graph: Mapping[str, frozenset[str]] = field(repr=False)
    digest: bytes

    def view(self, survivors: Iterable[str]) -> bytes:
        """What clients sign: who took part, and who survived."""
        return digest("survivors", self.digest, *(name.encode() for name in survivors))


def check_context(context: RoundContext, message: Message, sender: str) -> None:
    """Refuse a message of another round.

    Raises:
        AnabranchError: AB-955.
    """
    if message.context != context.digest:
        raise foreign_context(sender)


def check_signature(context: RoundContext, message: SignedMessage, check: Verify = verify) -> None:
    """Refuse a message that its sender did not sign in this round.

    Raises:
        AnabranchError: AB-955 for another context, AB-958 for a wrong signature or a sender that
            is not in the roster.
    """
    check_context(context, message, message.sender)
    public = context.roster.get(message.sender)
    if public is None or not check(public, message.signature, message.signed_content()):
        raise bad_signature(message.sender, type(message).__name__)


def check_usable(adverts: Iterable[KeyAdvert]) -> None:
    """Refuse keys with which nobody can agree on a secret.

    Raises:
        AnabranchError: AB-959.
    """
    exchange = agreeing(_ANY_SECRET)
    for advert in adverts:
        try:
            exchange(advert.mask_key)
            exchange(advert.transport_key)
            if advert.mask_kem or advert.transport_kem:
                encapsulate(advert.mask_kem)
                encapsulate(advert.transport_kem)
        except ValueError as error:
            raise key_list_refused(f"the keys of {advert.sender} are unusable") from error


def told_fits(context: RoundContext, share: SealedShare) -> bool:
    """Whether the ciphertexts of a share have the sizes that the round wants."""
    told = _KEM_CIPHERTEXT + 32 if context.hybrid and share.dealer < share.recipient else 0
    kem = _KEM_CIPHERTEXT if context.hybrid else 0
    return (len(share.transport_kem), len(share.pair_kem)) == (kem, told)


def accept_keys(context: RoundContext, key_list: KeyList, check: Verify = verify) -> KeyRing:
    """Check a key list.

    Raises:
        AnabranchError: AB-953 if the clients are too few, AB-955 or AB-958 for a foreign or
            unsigned advert, AB-959 if the list is not sorted and distinct, lacks so many of those
            asked that a second list could have as many, or mixes plain and hybrid keys.
    """
    check_context(context, key_list, "the coordinator")
    names = [advert.sender for advert in key_list.adverts]
    if names != sorted(set(names)):
        raise key_list_refused("its clients are not sorted and distinct")
    for advert in key_list.adverts:
        check_signature(context, advert, check)
        if bool(advert.mask_kem and advert.transport_kem) is not context.hybrid:
            raise key_list_refused(f"the keys of {advert.sender} are not what the plan asks for")
    counts = context.listed(len(names))
    if len(names) < context.quorum:
        raise key_list_refused(f"it has {len(names)} clients, {context.quorum} must send keys")
    adverts = dict(zip(names, key_list.adverts, strict=True))
    return KeyRing(context, adverts, counts, digest("key list", key_list.to_bytes()))


def opening_fault(ring: KeyRing, opening: NonceOpening) -> str | None:
    """Why a nonce does not count, or None."""
    advert = ring.adverts.get(opening.sender)
    if advert is None:
        return f"{opening.sender} is not on the key list"
    if opening.listed != ring.digest:
        return f"{opening.sender} opened its nonce for another key list"
    if commit_nonce(ring.context.digest, opening.sender, opening.nonce) != advert.nonce_commitment:
        return f"the nonce of {opening.sender} is not the one it committed to"
    return None


def commit_nonce(context: bytes, name: str, nonce: bytes) -> bytes:
    """What an advert says of the nonce."""
    return digest("nonce", context, name.encode(), nonce)


def form_group(ring: KeyRing, nonces: NonceList, check: Verify = verify) -> Group:
    """Check the opened nonces and derive cohort and graph, which nobody could choose.

    Raises:
        AnabranchError: AB-953 if the clients are too few, AB-955 or AB-958 for a foreign or
            unsigned opening, AB-965 if an opening does not fit or too many are missing.
    """
    context = ring.context
    check_context(context, nonces, "the coordinator")
    names = [opening.sender for opening in nonces.openings]
    if names != sorted(set(names)):
        raise nonces_refused("its clients are not sorted and distinct")
    for opening in nonces.openings:
        if fault := opening_fault(ring, opening):
            raise nonces_refused(fault)
        check_signature(context, opening, check)
    closed, most = len(ring.adverts) - len(names), context.may_stay_closed(len(ring.adverts))
    if closed > most or len(names) < context.quorum:
        raise nonces_refused(f"{closed} of {len(ring.adverts)} nonces are missing, at most {most}")
    counts = context.listed(len(names), of=len(ring.adverts))
    fixed = digest("nonces", ring.digest, nonces.to_bytes())
    cohort = sorted(drawn_cohort(names, counts.cohort, fixed))
    graph = neighbour_graph(cohort, counts.shape.neighbours, fixed)
    adverts = {name: ring.adverts[name] for name in cohort}
    return Group(context, adverts, graph, counts, fixed, ring, nonces)


def active_fault(group: Group, active: Active) -> str | None:
    """Why these participants can not go on, or None."""
    if len(active.participants) < group.counts.least:
        return f"{len(active.participants)} clients take part"
    for name in active.participants:
        if len(active.graph[name]) < group.threshold:
            return f"{name} has {len(active.graph[name])} of {group.threshold} neighbours left"
    return None


def survivors_fault(group: Group, active: Active, survivors: Sequence[str]) -> str | None:
    """Why the sum of these clients must not be opened, or None."""
    present = frozenset(survivors)
    if list(survivors) != sorted(present):
        return "its clients are not sorted and distinct"
    if not present <= frozenset(active.participants):
        return "it names a client that takes no part"
    least = group.counts.least
    if len(present) < least:
        return f"{len(present)} clients survive, at least {least} must"
    for name in active.participants:
        # Fewer could neither open the survivor's seed nor the dropped client's key; and a survivor
        # with few surviving neighbours is hidden by few masks.
        if len(active.graph[name] & present) < group.threshold:
            return f"{name} has fewer than {group.threshold} surviving neighbours"
    return None
