"""What everybody knows of a round: its keys, its graph, who takes part, who survived.

These are the checks that a client makes before it trusts what the coordinator sends, and that the
coordinator makes before it sends it. Both sides call the same functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from anabranch.privacy.secure_aggregation.context import RoundContext
from anabranch.privacy.secure_aggregation.graph import neighbour_graph
from anabranch.privacy.secure_aggregation.message import Message, SignedMessage
from anabranch.privacy.secure_aggregation.messages import (
    KeyAdvert,
    KeyList,
)
from anabranch.privacy.secure_aggregation.primitives import agree, digest, verify
from anabranch.privacy.secure_aggregation.refusals import (
    bad_signature,
    foreign_context,
    key_list_refused,
)

__all__ = [
    "Active",
    "Group",
    "active_fault",
    "check_context",
    "check_signature",
    "check_usable",
    "form_group",
    "survivors_fault",
]

_ANY_SECRET = bytes([64]) * 32


@dataclass(frozen=True)
class Group:
    """The clients whose keys are fixed.

    Attributes:
        context: the round.
        adverts: advert by name, sorted.
        graph: neighbours by name.
        threshold: t shares reconstruct a secret.
        digest: stands for the context, the keys and therefore the graph.
    """

    context: RoundContext
    adverts: Mapping[str, KeyAdvert] = field(repr=False)
    graph: Mapping[str, frozenset[str]] = field(repr=False)
    threshold: int
    digest: bytes

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


def check_signature(context: RoundContext, message: SignedMessage) -> None:
    """Refuse a message that its sender did not sign in this round.

    Raises:
        AnabranchError: AB-955 for another context, AB-958 for a wrong signature or a sender that
            is not in the roster.
    """
    check_context(context, message, message.sender)
    public = context.roster.get(message.sender)
    if public is None or not verify(public, message.signature, message.signed_content()):
        raise bad_signature(message.sender, type(message).__name__)


def check_usable(advert: KeyAdvert) -> None:
    """Refuse keys with which nobody can agree on a secret.

    Raises:
        AnabranchError: AB-959.
    """
    try:
        agree(_ANY_SECRET, advert.mask_key)
        agree(_ANY_SECRET, advert.transport_key)
    except ValueError as error:
        raise key_list_refused(f"the keys of {advert.sender} are of small order") from error


def form_group(context: RoundContext, key_list: KeyList) -> Group:
    """Check a key list and derive everything that follows from it.

    Raises:
        AnabranchError: AB-953 if the clients are too few, AB-955 or AB-958 for a foreign or
            unsigned advert, AB-959 if the list is not sorted and distinct.
    """
    check_context(context, key_list, "the coordinator")
    names = [advert.sender for advert in key_list.adverts]
    if names != sorted(set(names)):
        raise key_list_refused("its clients are not sorted and distinct")
    for advert in key_list.adverts:
        check_signature(context, advert)
    shape = context.neighbourhood(len(names))
    fixed = digest("key list", key_list.to_bytes())
    graph = neighbour_graph(names, shape.neighbours, fixed)
    adverts = dict(zip(names, key_list.adverts, strict=True))
    return Group(context, adverts, graph, shape.threshold, fixed)


def active_fault(group: Group, active: Active) -> str | None:
    """Why these participants can not go on, or None."""
    context = group.context
    if len(active.participants) < max(context.minimum_survivors, context.quorum):
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
    least = max(group.context.minimum_survivors, group.context.quorum)
    if len(present) < least:
        return f"{len(present)} clients survive, at least {least} must"
    for name in active.participants:
        # Fewer could neither open the survivor's seed nor the dropped client's key; and a survivor
        # with few surviving neighbours is hidden by few masks.
        if len(active.graph[name] & present) < group.threshold:
            return f"{name} has fewer than {group.threshold} surviving neighbours"
    return None
