"""The built-in codecs by the ``kind`` that a plan writes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from anabranch.updates.codec import Codec
from anabranch.updates.lattice import Lattice
from anabranch.updates.lossless import Half, Zstd
from anabranch.updates.lowrank import LowRank
from anabranch.updates.quantise import ECQ, QSGD, Ternary
from anabranch.updates.rotate import EDEN
from anabranch.updates.sparse import STC, RandomMask, Sign, TopK

__all__ = ["CODECS"]

_ALL: tuple[type[Codec], ...] = (
    ECQ, Ternary, QSGD, EDEN, TopK, STC, Sign, RandomMask, Lattice, LowRank, Half, Zstd,
)  # fmt: skip

CODECS: Mapping[str, type[Codec]] = MappingProxyType({codec.name: codec for codec in _ALL})
"""Every codec of the library."""
