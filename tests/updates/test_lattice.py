"""Integers for secure aggregation: sums of integers are sums of vectors; nothing wraps around."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
from test_codecs import back, packed

from anabranch.randomness import generator
from anabranch.testing import StageSuite
from anabranch.updates import Lattice, RandomMask, Stage, Vector


class TestLattice(StageSuite):
    rounding: ClassVar[float] = 2 * 2000 / (2**15 // 2 - 1) * 2  # two levels, twice for the mask

    def stage(self) -> Stage:
        return Lattice(bits=24, clients=2, limit=4000.0, fraction=0.5)


def updates(count: int, length: int = 800) -> list[Vector]:
    rng = generator(0, "lattice")
    return [(rng.normal(size=length) * 0.02).astype(np.float32) for _ in range(count)]


def test_the_sum_modulo_two_to_the_bits_is_the_sum_of_the_vectors() -> None:
    """What a protocol with masks computes, against adding up decoded updates."""
    codec, deltas = Lattice(bits=11, clients=10), updates(10)
    rng = generator(1, "lattice")
    integers = [codec.integers(delta, 3, rng) for delta in deltas]
    assert max(int(np.abs(i).max()) for i in integers) <= codec.levels == 102
    wrapped = sum(i % 2**11 for i in integers) % 2**11
    total = (wrapped + 2**10) % 2**11 - 2**10
    np.testing.assert_array_equal(total, sum(integers))
    one_by_one = sum(codec.vector(i, 800, 3).astype(float) for i in integers)
    np.testing.assert_allclose(codec.vector(total, 800, 3), one_by_one, atol=1e-6)


def test_the_integers_are_those_that_the_codec_sends() -> None:
    codec, (delta,) = Lattice(), updates(1)
    rng = generator(0, "encode", 0, "a")
    expected = codec.vector(codec.integers(delta, 1, rng), 800, 1)
    np.testing.assert_array_equal(back(codec, delta), expected)


def test_it_is_eight_times_thirty_two_elevenths_smaller() -> None:
    delta = updates(1, 80_000)[0]
    size = len(packed(Lattice(), delta).content)
    assert size == Lattice().least_bytes(80_000) == 14 + 4 + 11 * 1250
    assert delta.nbytes / size > 23


def test_the_mask_is_that_of_the_mask_codec() -> None:
    codec = Lattice(fraction=0.25, seed=5)
    assert codec.mask == RandomMask(fraction=0.25, seed=5)
    decoded = back(codec, np.full(100, 0.05, np.float32))
    np.testing.assert_array_equal(np.flatnonzero(decoded), codec.mask.places(100, 1))


def test_what_is_beyond_the_limit_is_cut_off() -> None:
    codec = Lattice(limit=0.5, fraction=1.0, bits=16, clients=4)
    decoded = back(codec, np.float32([0.25, -7.0, 1e30, 0.0]))
    np.testing.assert_allclose(decoded, [0.25, -0.5, 0.5, 0.0], atol=1e-4)


def test_a_modulus_too_small_for_the_clients_is_refused() -> None:
    with pytest.raises(ValueError, match="4 bits hold no sum of 10 clients"):
        Lattice(bits=4, clients=10)
    assert Lattice(bits=8, clients=127).levels == 1
