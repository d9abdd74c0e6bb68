"""Shamir secret sharing over the integers modulo 2^256 - 189.

A secret is the constant term of a random polynomial of degree t - 1; holder x gets its value at x.
Any t shares give the secret, fewer give nothing (Shamir 1979). Secrets are 32 bytes, big endian.
Each share has a commitment, the hash of its 256 random bits with who dealt it to whom, so that a
share which was changed on its way back is identified, and not only noticed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from anabranch.privacy.secure_aggregation.primitives import KEY_BYTES, Entropy, digest
from anabranch.privacy.secure_aggregation.refusals import bad_parameters

__all__ = ["PRIME", "combine", "commit_share", "lagrange_at_zero", "new_secret", "split"]

PRIME = 2**256 - 189


def new_secret(entropy: Entropy) -> bytes:
    """Uniform bytes below the prime; a draw above it (one in 2^248) is thrown away."""
    while True:
        drawn = entropy(KEY_BYTES)
        if int.from_bytes(drawn, "big") < PRIME:
            return drawn


def split(
    secret: bytes, threshold: int, holders: Sequence[int], entropy: Entropy
) -> dict[int, bytes]:
    """Shares of ``secret`` for the holders, of which any ``threshold`` suffice.

    Args:
        secret: 32 bytes, big endian, below the prime.
        threshold: t, 1 <= t <= number of holders.
        holders: distinct positive numbers below the prime.
        entropy: source of the coefficients.

    Raises:
        AnabranchError: AB-952 if the numbers do not fit together.
    """
    constant = int.from_bytes(secret, "big")
    distinct = len(set(holders)) == len(holders) and all(0 < x < PRIME for x in holders)
    if not (1 <= threshold <= len(holders) and distinct and constant < PRIME):
        raise bad_parameters(f"A secret can not be shared {threshold} of {len(holders)}.")
    coefficients = [int.from_bytes(new_secret(entropy), "big") for _ in range(threshold - 1)]
    shares = {}
    for x in holders:
        value = 0
        for coefficient in reversed(coefficients):
            value = (value + coefficient) * x % PRIME
        shares[x] = ((value + constant) % PRIME).to_bytes(KEY_BYTES, "big")
    return shares


def lagrange_at_zero(holders: Sequence[int]) -> tuple[int, ...]:
    """The weights with which shares of these holders sum to the secret.

    >>> [w % 7 == w for w in lagrange_at_zero([1, 2])]
    [True, False]
    """
    # One inversion serves all (Montgomery's trick): it takes as long as hundreds of products.
    everybody = math.prod(holders)
    below = _differences(holders)
    running = [1]
    for value in below:
        running.append(running[-1] * value % PRIME)
    inverse = pow(running[-1], -1, PRIME)
    weights = [0] * len(below)
    for place in range(len(below) - 1, -1, -1):
        weights[place] = everybody * running[place] * inverse % PRIME
        inverse = inverse * below[place] % PRIME
    return tuple(weights)


def _differences(holders: Sequence[int]) -> list[int]:
    """For each holder x: x times the product of (other - x) over the others, not reduced.

    Holders are places in a list, small numbers: as many differences as fit into 64 bits are
    multiplied at once.
    """
    fit = 62 // max(holders).bit_length()
    if fit < 2:
        return [math.prod(other - x for other in holders if other != x) * x for x in holders]
    points = np.array(holders, np.int64)
    apart = points[None, :] - points[:, None]
    np.fill_diagonal(apart, points)
    parts = [apart[:, i : i + fit].prod(axis=1).tolist() for i in range(0, len(points), fit)]
    return [math.prod(row) for row in zip(*parts, strict=True)]


def combine(shares: Mapping[int, bytes], weights: Sequence[int] | None = None) -> bytes:
    """The secret that exactly the given shares determine.

    Args:
        shares: share by holder; as many as the threshold was.
        weights: ``lagrange_at_zero`` of the same holders in the same order, if known.
    """
    if weights is None:
        weights = lagrange_at_zero(tuple(shares))
    total = sum(
        weight * int.from_bytes(share, "big")
        for weight, share in zip(weights, shares.values(), strict=True)
    )
    return (total % PRIME).to_bytes(KEY_BYTES, "big")


def commit_share(context: bytes, dealer: str, holder: str, kind: str, share: bytes) -> bytes:
    """What a dealer publishes of a share; the share itself is too random to be guessed from it."""
    names = (dealer.encode(), holder.encode(), kind.encode())
    return digest("share", context, *names, share)
