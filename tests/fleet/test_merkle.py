"""Merkle trees against the vectors of Certificate Transparency and the definition by recursion."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.merkle import inclusion_path, leaf_hash, root_of, root_of_path

CONTENTS = [
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    bytes(range(96, 112)).hex(),
]
ROOTS = [  # of the first n contents; certificate-transparency-go, merkle tests
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def by_definition(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962, section 2.1, word by word."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return hashlib.sha256(b"\1" + by_definition(leaves[:k]) + by_definition(leaves[k:])).digest()


@pytest.mark.parametrize("count", range(1, 9))
def test_roots_of_certificate_transparency(count: int) -> None:
    leaves = [leaf_hash(bytes.fromhex(content)) for content in CONTENTS[:count]]
    assert root_of(leaves).hex() == ROOTS[count - 1]


@given(st.integers(0, 70))
def test_roots_and_paths_by_the_definition(count: int) -> None:
    leaves = [leaf_hash(bytes([i])) for i in range(count)]
    root = by_definition(leaves)
    assert root_of(leaves) == root
    for index in range(count):
        assert root_of_path(leaves[index], index, count, inclusion_path(leaves, index)) == root


@given(st.integers(2, 40), st.data())
def test_a_path_proves_nothing_else(count: int, data: st.DataObject) -> None:
    leaves = [leaf_hash(bytes([i])) for i in range(count)]
    root = root_of(leaves)
    index, other = (data.draw(st.integers(0, count - 1)) for _ in range(2))
    path = inclusion_path(leaves, index)
    if other != index:
        assert root_of_path(leaves[other], index, count, path) != root
        assert root_of_path(leaves[index], other, count, path) != root
    assert root_of_path(leaves[index], index, count, path[:-1]) != root
    assert root_of_path(leaves[index], index, count, [*path, root]) != root
    assert root_of_path(leaves[index], count, count, path) is None


def test_there_is_no_path_outside_the_tree() -> None:
    with pytest.raises(IndexError):
        inclusion_path([leaf_hash(b"")], 1)
