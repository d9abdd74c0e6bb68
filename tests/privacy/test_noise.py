"""Discrete noise: distributions against independent formulas, known bias, secret streams."""

from __future__ import annotations

import math
import os
from decimal import Decimal
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from anabranch.errors import AnabranchError
from anabranch.privacy.noise import DiscreteGaussian, SecretStream, Skellam, derived_key
from anabranch.privacy.noise.gaussian import SMOOTHING, discrete_gaussian_table
from anabranch.privacy.noise.skellam import skellam_table
from anabranch.privacy.noise.table import AliasTable, alias_table, tickets_of

KEY = bytes(range(32))


def exact(table: AliasTable) -> dict[int, float]:
    """The table's own distribution, counted bucket by bucket in exact integers."""
    size = len(table.aliases)
    tickets = dict.fromkeys(range(size), 0)
    for bucket, (threshold, alias) in enumerate(
        zip(table.thresholds.tolist(), table.aliases.tolist(), strict=True)
    ):
        tickets[bucket] += threshold
        tickets[alias] += (1 << 64) - threshold
    return {table.first + i: count / (size << 64) for i, count in tickets.items() if count}


@pytest.mark.parametrize("sigma", [0.4, 1.0, 3.7, 50.0])
def test_discrete_gaussian_table_is_the_formula(sigma: float) -> None:
    found = exact(discrete_gaussian_table(sigma))
    weights = {x: math.exp(-(x**2) / (2 * sigma**2)) for x in found}
    total = sum(weights.values())
    assert sum(found.values()) == pytest.approx(1, abs=1e-15)
    for x, weight in weights.items():
        assert found[x] == pytest.approx(weight / total, rel=1e-9, abs=1e-18)


@pytest.mark.parametrize("sigma", [0.5, 2.0, 20.0, 300.0])
def test_skellam_table_is_the_formula(sigma: float) -> None:
    found = exact(skellam_table(sigma))
    for x in range(0, int(4 * sigma) + 2, max(1, int(sigma / 3))):
        wanted = float(special.ive(x, sigma**2))
        assert found[x] == pytest.approx(wanted, rel=1e-9)
        assert found[-x] == pytest.approx(wanted, rel=1e-9)


def test_a_table_by_hand() -> None:
    """Three values with weights 1, 2, 1: four buckets of 2^64 tickets, 2^64 of them for 0."""
    assert tickets_of([Decimal(1), Decimal(2), Decimal(1)]) == [2**64, 2**65, 2**64]
    table = alias_table(-1, [Decimal(1), Decimal(2), Decimal(1)], 0.0)
    assert exact(table) == {-1: 0.25, 0: 0.5, 1: 0.25}


@given(st.lists(st.integers(1, 10**12), min_size=1, max_size=40))
@settings(max_examples=60, deadline=None)
def test_tables_hold_every_ticket(weights: list[int]) -> None:
    table = alias_table(0, [Decimal(w) for w in weights], 0.0)
    found, total = exact(table), sum(weights)
    assert math.fsum(found.values()) == pytest.approx(1, abs=1e-15)
    distance = sum(abs(found.get(i, 0) - w / total) for i, w in enumerate(weights)) / 2
    assert distance <= table.bias + 1e-15


@pytest.mark.parametrize("sigma", [1.5, 200.0, 5000.0, 3.0e6])
def test_samples_have_the_distribution(sigma: float) -> None:
    drawn = DiscreteGaussian(sigma).sample(SecretStream.keyed(KEY, "test", str(sigma)), 200_000)
    edges = np.floor(np.linspace(-3, 3, 25) * sigma) + 0.5
    cells = np.diff(stats.norm.cdf(np.concatenate([[-np.inf], edges, [np.inf]]) / sigma))
    if sigma < 10:  # the discrete one, cell by cell
        table = exact(discrete_gaussian_table(sigma))
        found = np.concatenate([[-np.inf], edges, [np.inf]])
        cells = np.array(
            [sum(p for x, p in table.items() if a < x <= b) for a, b in pairwise(found)]
        )
    keep = cells > 0
    counts = np.histogram(drawn, np.concatenate([[-np.inf], edges, [np.inf]]))[0]
    _, p = stats.chisquare(counts[keep], cells[keep] / cells[keep].sum() * counts[keep].sum())
    assert p > 1e-4


def test_layers_add_up_and_stay_smooth() -> None:
    for sigma in np.geomspace(1100, 1e12, 40):
        step, deviations = DiscreteGaussian(float(sigma)).layers
        variance = sum((s * step**i) ** 2 for i, s in enumerate(deviations))
        assert math.sqrt(variance) == pytest.approx(sigma, rel=1e-12)
        for lower, upper in pairwise(deviations):
            r = (upper**-2 + (step / lower) ** 2) ** -0.5
            assert 4 * math.exp(-2 * math.pi**2 * r**2) < 2**-84
        assert all(s <= 1024 * SMOOTHING for s in deviations)


def test_a_layered_distribution_is_pointwise_the_discrete_gaussian() -> None:
    """The claim of the module on a case small enough to add up: X_0 + 2 X_1."""
    s0, s1, step = SMOOTHING * 2, 6.0, 2
    sigma = math.sqrt(s0**2 + step**2 * s1**2)
    low, high = (exact(discrete_gaussian_table(s)) for s in (s0, s1))
    total = sum(math.exp(-(x**2) / (2 * sigma**2)) for x in range(-400, 401))
    for x in range(-30, 31):
        found = sum(p * low.get(x - step * y, 0.0) for y, p in high.items())
        assert found == pytest.approx(math.exp(-(x**2) / (2 * sigma**2)) / total, rel=1e-10)


def test_equivalent_noise_loses_one_variance() -> None:
    noise = DiscreteGaussian(100.0)
    assert noise.equivalent == pytest.approx(math.sqrt(100**2 - 1.75**2), rel=1e-15)
    assert DiscreteGaussian.worth(99.0).equivalent >= 99.0


def test_bias_is_far_below_any_delta() -> None:
    """100 releases of 1.2 million samples: less than a thousandth of a delta of 1e-7."""
    for noise in (DiscreteGaussian(17_000.0), DiscreteGaussian(1e6), Skellam(1000.0)):
        assert 100 * 1.2e6 * noise.bias * (1 + math.e) < 1e-10


def test_keyed_streams_repeat_and_labels_separate() -> None:
    draw = [SecretStream.keyed(KEY, "a", "b").words(1000).tolist() for _ in range(2)]
    assert draw[0] == draw[1]
    assert draw[0] != SecretStream.keyed(KEY, "ab", "").words(1000).tolist()
    assert derived_key(KEY, "a", "b") != derived_key(KEY, "a\x00b")
    assert SecretStream.system().words(4).tolist() != SecretStream.system().words(4).tolist()


def test_fractions_are_uniform_multiples() -> None:
    found = SecretStream.keyed(KEY, "fractions").fractions(100_000)
    assert found.min() >= 0
    assert found.max() < 1
    assert np.array_equal(found * 2**24, np.rint(found * 2**24))
    assert stats.kstest(found, "uniform").pvalue > 1e-4


def test_a_forked_process_draws_other_bytes() -> None:
    stream, keyed = SecretStream.system(), SecretStream.keyed(KEY, "fork")
    stream.words(1)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # nothing but system calls: the child must not run the test session
        try:
            keyed.words(1)
            answer = b"drawn"
        except AnabranchError as error:
            answer = error.code.encode()
        os.write(writing, stream.words(4).tobytes() + answer)
        os._exit(0)
    os.waitpid(child, 0)
    answer = os.read(reading, 100)
    assert answer[32:] == b"AB-931"
    assert answer[:32] != stream.words(4).tobytes()


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: DiscreteGaussian(0.1), "AB-930"),
        (lambda: DiscreteGaussian(math.inf), "AB-930"),
        (lambda: DiscreteGaussian(math.nan), "AB-930"),
        (lambda: Skellam(0.0), "AB-930"),
        (lambda: Skellam(1e9), "AB-930"),
        (lambda: DiscreteGaussian(1.0).equivalent, "AB-930"),
        (lambda: SecretStream.keyed(b"short", "x"), "AB-931"),
    ],
)
def test_bad_noise_is_refused(make: object, code: str) -> None:
    with pytest.raises(AnabranchError) as caught:
        make()  # type: ignore[operator]  # each entry is a function
    assert caught.value.code == code


def test_nothing_here_draws_from_public_generators() -> None:
    """The modules that protect somebody name no other source of chance."""
    import anabranch.privacy.mechanisms as mechanisms
    import anabranch.privacy.noise as noise

    allowed = {"rotation.py"}  # public by design: the proof does not rest on it
    for package in (noise, mechanisms):
        folder = os.path.dirname(str(package.__file__))
        for name in sorted(os.listdir(folder)):
            if not name.endswith(".py") or name in allowed:
                continue
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                text = file.read()
            for forbidden in ("np.random", "import random", "default_rng", "anabranch.randomness"):
                assert forbidden not in text, f"{name} uses {forbidden}"
