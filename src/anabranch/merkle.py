"""Merkle trees as Certificate Transparency has them (RFC 6962, section 2.1; RFC 9162).

A leaf is hashed as ``SHA-256(0x00 | content)``, an inner node as ``SHA-256(0x01 | left | right)``,
so that no leaf can pass for a node. A tree of n leaves is split at the largest power of two below
n. The root of no leaves is the SHA-256 of nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

__all__ = ["inclusion_path", "leaf_hash", "root_of", "root_of_path"]


def leaf_hash(content: bytes) -> bytes:
    """The hash of one leaf, 32 bytes.

    >>> leaf_hash(b"").hex()[:16]
    '6e340b9cffb37a98'
    """
    return hashlib.sha256(b"\0" + content).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()


def root_of(leaves: Sequence[bytes]) -> bytes:
    """The root over leaf hashes, in their order.

    Args:
        leaves: 32 bytes each.

    >>> root_of([]).hex()[:16]
    'e3b0c44298fc1c14'
    """
    if not leaves:
        return hashlib.sha256().digest()
    level = list(leaves)
    while len(level) > 1:  # an odd last one moves up as it is: the same tree, without recursion
        pairs = [_node(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level = pairs + level[len(level) - len(level) % 2 :]
    return level[0]


def inclusion_path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """What proves that leaf ``index`` is in the tree: sibling hashes from the leaf to the root.

    Raises:
        IndexError: there is no such leaf.
    """
    if not 0 <= index < len(leaves):
        raise IndexError(f"no leaf {index} among {len(leaves)}")
    path, level = [], list(leaves)
    while len(level) > 1:
        sibling = index ^ 1
        if sibling < len(level):
            path.append(level[sibling])
        pairs = [_node(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level = pairs + level[len(level) - len(level) % 2 :]
        index //= 2
    return path


def root_of_path(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """The root that follows from a leaf and its path; None when the path has the wrong length.

    Args:
        leaf: hash of the leaf.
        index: its place.
        size: number of leaves of the tree.
        path: from `inclusion_path`.

    >>> leaves = [leaf_hash(bytes([i])) for i in range(5)]
    >>> root_of_path(leaves[4], 4, 5, inclusion_path(leaves, 4)) == root_of(leaves)
    True
    """
    if not 0 <= index < size:
        return None
    node, rest = leaf, list(path)
    while size > 1:
        last = index == size - 1
        if index % 2 == 1 or not last:
            if not rest:
                return None
            sibling = rest.pop(0)
            node = _node(sibling, node) if index % 2 == 1 else _node(node, sibling)
        index, size = index // 2, (size + 1) // 2
    return node if not rest else None
