"""From shares to the sum: one secret of each client, its streams, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from anabranch.privacy.secure_aggregation.group import Active, Group
from anabranch.privacy.secure_aggregation.keys import commit_seed, pair_seed, self_seed
from anabranch.privacy.secure_aggregation.primitives import public_agreement_key
from anabranch.privacy.secure_aggregation.sharing import combine, lagrange_at_zero
from anabranch.privacy.secure_aggregation.streams import Lanes, add_streams

__all__ = ["UnrecoverableError", "unmask"]


class UnrecoverableError(Exception):
    """A secret that the shares do not give; the round is abandoned.

    Attributes:
        lied: the shares are those that were dealt, and give another secret than was committed to.
    """

    def __init__(self, what: str, *, lied: bool) -> None:
        super().__init__(what)
        self.lied = lied


class _Recovery:
    """Reconstructs secrets; weights are computed once for each set of holders."""

    def __init__(self, group: Group, shares: Mapping[str, Mapping[str, bytes]]) -> None:
        self._group = group
        self._shares = shares
        self._places = group.places
        self._weights: dict[tuple[int, ...], tuple[int, ...]] = {}

    def secret(self, dealer: str) -> bytes:
        """What ``dealer`` shared.

        Raises:
            UnrecoverableError: fewer good shares than the threshold.
        """
        found = self._shares.get(dealer, {})
        threshold = self._group.threshold
        if len(found) < threshold:
            what = f"{len(found)} of {threshold} shares of {dealer} were revealed"
            raise UnrecoverableError(what, lied=False)
        chosen = sorted(found)[:threshold]
        points = tuple(self._places[name] for name in chosen)
        if points not in self._weights:
            self._weights[points] = lagrange_at_zero(points)
        values = {self._places[name]: found[name] for name in chosen}
        return combine(values, self._weights[points])


def unmask(
    group: Group,
    active: Active,
    total: Lanes,
    survivors: Sequence[str],
    shares: Mapping[str, Mapping[str, bytes]],
) -> Lanes:
    """The sum of the survivors' vectors.

    Args:
        group: keys and graph.
        active: who took part.
        total: sum of the survivors' masked vectors; it is not changed.
        survivors: whose vectors are in the sum.
        shares: revealed shares that match their commitments, by dealer and holder.

    Raises:
        UnrecoverableError: too few shares, or a dealer that lied.
    """
    recovery = _Recovery(group, shares)
    alive = frozenset(survivors)
    plus: list[bytes] = []
    minus: list[bytes] = []
    for name in survivors:
        seed = recovery.secret(name)
        if commit_seed(group.context.digest, name, seed) != group.adverts[name].seed_commitment:
            raise UnrecoverableError(f"{name} shared another seed", lied=True)
        minus.append(self_seed(seed, active, name))
    for name in active.participants:
        if name in alive or not active.graph[name] & alive:
            continue
        secret = recovery.secret(name)
        if public_agreement_key(secret) != group.adverts[name].mask_key:
            raise UnrecoverableError(f"{name} shared another key", lied=True)
        for peer in sorted(active.graph[name] & alive):
            # The peer added the stream if the dropped client comes before it: take it off.
            seed = pair_seed(secret, group.adverts[peer].mask_key, active, name, peer)
            (minus if name < peer else plus).append(seed)
    opened = total.copy()
    add_streams(opened, plus, minus, group.context.encoding.bits)
    return opened
