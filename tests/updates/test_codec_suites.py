"""Every codec keeps every promise of its contract: the public suite, one class for each."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from anabranch.randomness import generator
from anabranch.testing import StageSuite
from anabranch.updates import (
    ECQ,
    EDEN,
    QSGD,
    STC,
    Half,
    RandomMask,
    Sign,
    Stage,
    Ternary,
    TopK,
    Vector,
    Zstd,
)


class _Codec(StageSuite):
    """No coordinate so small that four hundred draws would hardly ever send it."""

    def deltas(self, count: int) -> list[Vector]:
        rng = generator(0, "codec suites")
        sizes = rng.uniform(0.5, 1.5, (count, self.dim))
        signs = rng.choice([-1.0, 1.0], (count, self.dim))
        return list((sizes * signs).astype(np.float32))


class TestECQ(_Codec):
    def stage(self) -> Stage:
        return ECQ()


class TestECQNearest(_Codec):
    def stage(self) -> Stage:
        return ECQ(coarseness=1, rounding="nearest")


class TestECQFine(_Codec):
    def stage(self) -> Stage:
        return ECQ(coarseness=2**-8)


class TestTernary(_Codec):
    def stage(self) -> Stage:
        return Ternary(bucket=10)


class TestQSGD(_Codec):
    def stage(self) -> Stage:
        return QSGD(bits=3, bucket=7)


class TestEDEN(_Codec):
    dim: ClassVar[int] = 64

    def stage(self) -> Stage:
        return EDEN()


class TestEDENFourBits(_Codec):
    dim: ClassVar[int] = 100  # more than one block, the last one filled up

    def stage(self) -> Stage:
        return EDEN(bits=4, block=64)


class TestTopK(_Codec):
    def stage(self) -> Stage:
        return TopK(fraction=0.2)


class TestTopKForgetful(_Codec):
    def stage(self) -> Stage:
        return TopK(fraction=0.2, feedback=False)


class TestSTC(_Codec):
    def stage(self) -> Stage:
        return STC(fraction=0.2)


class TestSTCForgetful(_Codec):
    def stage(self) -> Stage:
        return STC(fraction=0.2, feedback=False)


class TestSign(_Codec):
    def stage(self) -> Stage:
        return Sign()


class TestSignForgetful(_Codec):
    def stage(self) -> Stage:
        return Sign(feedback=False)


class TestRandomMask(_Codec):
    def stage(self) -> Stage:
        return RandomMask(fraction=0.25)


class TestHalf(_Codec):
    recovery: ClassVar[float | None] = 2.0**-11

    def stage(self) -> Stage:
        return Half()


class TestZstd(_Codec):
    recovery: ClassVar[float | None] = 2.0**-24

    def stage(self) -> Stage:
        return Zstd()
