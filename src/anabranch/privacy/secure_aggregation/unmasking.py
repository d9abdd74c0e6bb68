"""From shares to the sum: one secret of each client, its streams, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from anabranch.privacy.secure_aggregation.group import Active, Group
from anabranch.privacy.secure_aggregation.keys import (
    MaskKey,
    bound_seed,
    commit_seed,
    self_seed,
    told_contribution,
)
from anabranch.privacy.secure_aggregation.primitives import agreeing
from anabranch.privacy.secure_aggregation.sharing import combine, lagrange_at_zero
from anabranch.privacy.secure_aggregation.streams import Lanes, add_streams

__all__ = ["Revealed", "UnrecoverableError", "unmask"]


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


@dataclass(frozen=True)
class Revealed:
    """What the clients answered to the request to unmask.

    Attributes:
        survivors: whose vectors are in the sum.
        shares: revealed shares that match their commitments, by dealer and holder.
        told: ciphertexts of the contributions to masks, by dealer and recipient; empty when the
            round is not hybrid.
    """

    survivors: Sequence[str]
    shares: Mapping[str, Mapping[str, bytes]] = field(repr=False)
    told: Mapping[tuple[str, str], bytes] = field(default_factory=dict, repr=False)


def unmask(
    group: Group, active: Active, total: Lanes, revealed: Revealed, *, threads: int = 1
) -> Lanes:
    """The sum of the survivors' vectors.

    Args:
        group: keys and graph.
        active: who took part.
        total: sum of the survivors' masked vectors; it is not changed.
        revealed: shares of one secret of each client.
        threads: cores that may make streams.

    Raises:
        UnrecoverableError: too few shares, or a dealer that lied.
    """
    recovery = _Recovery(group, revealed.shares)
    own = [_own_stream(recovery, group, active, name) for name in revealed.survivors]
    plus, minus = _pair_streams(recovery, group, active, revealed)
    # Only then the streams: key agreements hold the interpreter's lock, and threads that wait for
    # it between two tiles would stand still.
    opened = total.copy()
    add_streams(opened, plus, [*own, *minus], group.context.encoding.bits, threads=threads)
    return opened


def _pair_streams(
    recovery: _Recovery, group: Group, active: Active, revealed: Revealed
) -> tuple[list[bytes], list[bytes]]:
    """Seeds to add and to subtract: of survivors with clients that vanished."""
    plus: list[bytes] = []
    minus: list[bytes] = []
    alive = frozenset(revealed.survivors)
    for name in active.participants:
        peers = sorted(active.graph[name] & alive)
        if name in alive or not peers:
            continue
        key = MaskKey(recovery.secret(name), group.context.hybrid)
        advert = group.adverts[name]
        if key.public() != (advert.mask_key, advert.mask_kem):
            raise UnrecoverableError(f"{name} shared another key", lied=True)
        exchange = agreeing(key.secret)
        for peer in peers:
            # The peer added the stream if the dropped client comes before it: take it off.
            told = revealed.told.get((min(name, peer), max(name, peer)), b"")
            more = told_contribution(key, name, peer, told)
            shared = exchange(group.adverts[peer].mask_key) + more
            seed = bound_seed(shared, active, name, peer)
            (minus if name < peer else plus).append(seed)
    return plus, minus


def _own_stream(recovery: _Recovery, group: Group, active: Active, name: str) -> bytes:
    seed = recovery.secret(name)
    if commit_seed(group.context.digest, name, seed) != group.adverts[name].seed_commitment:
        raise UnrecoverableError(f"{name} shared another seed", lied=True)
    return self_seed(seed, active, name)
