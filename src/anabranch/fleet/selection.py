"""Selection: which clients are asked in a round, as a pure function of a generator."""

from __future__ import annotations

import numpy as np

__all__ = ["select_uniform"]


def select_uniform(clients: int, count: int, generator: np.random.Generator) -> tuple[int, ...]:
    """``count`` distinct client numbers, each subset equally likely, in ascending order.

    Without replacement, so it carries no privacy-amplification claim.

    >>> select_uniform(4, 4, np.random.default_rng(0))
    (0, 1, 2, 3)
    """
    if count >= clients:
        return tuple(range(clients))
    chosen = generator.choice(clients, count, replace=False, shuffle=False)
    return tuple(int(client) for client in np.sort(chosen))
