"""Who shares masks with whom: a ring in an order that the key list decides.

Clients are put on a ring in the order of a hash of their names under a public seed, and each is
joined to the k/2 clients before and after it (a Harary graph after a random permutation). Everybody
who has the key list computes the same graph; the coordinator does not choose it.
"""

from __future__ import annotations

from collections.abc import Sequence

from anabranch.privacy.secure_aggregation.primitives import digest

__all__ = ["neighbour_graph"]


def neighbour_graph(
    names: Sequence[str], neighbours: int, seed: bytes
) -> dict[str, frozenset[str]]:
    """The neighbours of each client.

    Args:
        names: n distinct names.
        neighbours: k, even or n - 1; the complete graph for k >= n - 1.
        seed: public and fixed by the key list.

    >>> sorted(neighbour_graph(["a", "b", "c"], 2, b"")["a"])
    ['b', 'c']
    """
    if neighbours >= len(names) - 1:
        everybody = frozenset(names)
        return {name: everybody - {name} for name in names}
    ring = sorted(names, key=lambda name: (digest("ring", seed, name.encode()), name))
    around = [step for step in range(-(neighbours // 2), neighbours // 2 + 1) if step]
    return {
        name: frozenset(ring[(at + step) % len(ring)] for step in around)
        for at, name in enumerate(ring)
    }
