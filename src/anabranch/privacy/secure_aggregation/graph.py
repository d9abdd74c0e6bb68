"""Who takes part and who shares masks with whom: a draw and a ring that the nonces decide.

Clients are put on a ring in the order of a hash of their names under a public seed, and each is
joined to the k/2 clients before and after it (a Harary graph after a random permutation). Everybody
who has the key list and the opened nonces computes the same cohort and the same graph; the
coordinator does not choose them.
"""

from __future__ import annotations

from collections.abc import Sequence

from anabranch.privacy.secure_aggregation.primitives import digest

__all__ = ["drawn_cohort", "neighbour_graph"]


def drawn_cohort(names: Sequence[str], size: int, seed: bytes) -> list[str]:
    """The ``size`` names whose hashes under ``seed`` come first."""
    if size >= len(names):
        return list(names)
    return sorted(names, key=lambda name: (digest("draw", seed, name.encode()), name))[:size]


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
