"""Public randomness: a generator for every (seed, purpose, round, client), and nothing global.

These generators are *reproducible and public*: partitions, batch order, cohorts without a privacy
claim, initial weights. Whatever protects privacy never comes from here.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

__all__ = ["derived_seed", "generator"]


def derived_seed(seed: int, purpose: str, round_: int = 0, client: str = "") -> int:
    """A 63-bit integer that depends on all four arguments (BLAKE2b of their encoding).

    >>> derived_seed(0, "batches", 1, "va") == derived_seed(0, "batches", 1, "va")
    True
    >>> derived_seed(0, "batches", 1, "va") == derived_seed(0, "batches", 2, "va")
    False
    """
    text = f"{seed}\x1f{purpose}\x1f{round_}\x1f{client}".encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little") >> 1


def generator(seed: int, purpose: str, round_: int = 0, client: str = "") -> np.random.Generator:
    """The public generator of one purpose, round and client (PCG64 seeded by `derived_seed`)."""
    return np.random.Generator(np.random.PCG64(derived_seed(seed, purpose, round_, client)))
