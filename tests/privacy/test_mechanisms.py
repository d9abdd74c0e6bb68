"""Mechanisms: their contract, their formulas by hand, and what an adversary cannot do to them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anabranch.errors import AnabranchError
from anabranch.plan import plan_from
from anabranch.privacy.accounting import banded_toeplitz
from anabranch.privacy.mechanisms import (
    AdaptiveClip,
    CentralNoise,
    DistributedNoise,
    FixedClip,
    MatrixNoise,
    Mechanism,
    RoundNoise,
    UnitLattice,
    check_reachable,
)
from anabranch.privacy.mechanisms.distributed import centred
from anabranch.privacy.mechanisms.ftrl import CorrelatedNoise, integer_coefficients
from anabranch.privacy.mechanisms.modulus import rounded_norm
from anabranch.privacy.mechanisms.rotation import Rotation, hartley, smooth_length
from anabranch.privacy.mechanisms.rounding import conditionally_rounded
from anabranch.privacy.noise import DiscreteGaussian, SecretStream, derived_key
from anabranch.testing import MechanismContract
from anabranch.updates.norm import squared_norm
from anabranch.updates.sections import Section, Sections
from anabranch.updates.total import Total

KEY = bytes(range(32))
DIM = 1500
FIXED = FixedClip(norm=0.5)


class TestCentral(MechanismContract):
    def mechanism(self) -> Mechanism:
        return CentralNoise(DIM, self.clients, FIXED)


class TestCentralAdaptive(MechanismContract):
    def mechanism(self) -> Mechanism:
        return CentralNoise(DIM, self.clients, AdaptiveClip(initial=0.5))


class TestMatrix(MechanismContract):
    def mechanism(self) -> Mechanism:
        return MatrixNoise(DIM, self.clients, FIXED, bands=8)


class TestDistributed(MechanismContract):
    local_noise = True

    def mechanism(self) -> Mechanism:
        return DistributedNoise(DIM, self.clients, self.clients, 36, 4, FIXED, self.multiplier)


class TestDistributedAdaptive(MechanismContract):
    local_noise = True

    def mechanism(self) -> Mechanism:
        adaptive = AdaptiveClip(initial=0.5)
        return DistributedNoise(DIM, self.clients, self.clients, 36, 4, adaptive, self.multiplier)


class TestSkellam(MechanismContract):
    local_noise = True

    def mechanism(self) -> Mechanism:
        return DistributedNoise(
            DIM, self.clients, self.clients, 36, 4, FIXED, self.multiplier, 18, "skellam"
        )


# The lattice ------------------------------------------------------------------------------------


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 3000),
    st.floats(1e-30, 1e30),
    st.floats(1e-6, 1e6),
)
@settings(max_examples=150, deadline=None)
def test_no_rounding_makes_an_update_longer_than_its_bound(
    seed: int, dim: int, size: float, clip: float
) -> None:
    rng = np.random.default_rng(seed)
    with np.errstate(over="ignore"):
        delta = (rng.standard_cauchy(dim) * size).astype(np.float32)
    lattice = UnitLattice(dim)
    steps = lattice.rounded(delta, clip)
    assert np.array_equal(steps, np.rint(steps))
    assert sum(int(step) ** 2 for step in steps) <= lattice.steps**2  # in Python's integers


def test_the_lattice_by_hand() -> None:
    lattice = UnitLattice(4)
    assert (lattice.steps, lattice.quantum, lattice.inner) == (2048, 2.0**-11, 1 - 2.0**-11)
    assert lattice.rounded(np.float32([1, 0, 0, 0]), 1.0).tolist() == [2047, 0, 0, 0]
    assert lattice.rounded(np.float32([0, -0.25, 0, 0]), 0.5).tolist() == [0, -1023.5 // 1, 0, 0]


def test_every_output_is_possible_under_both_neighbours() -> None:
    """Failure 1 of floating-point noise: outputs that only one of two inputs can give."""
    mechanism = CentralNoise(1, 1, FixedClip(norm=1.0))
    steps = set()
    for value in (0, 1):
        total = Total(
            Sections(mechanism.sections()),
            {"delta": np.array([mechanism.lattice.quantum * value])},
            1,
        )
        released = mechanism.release(total, RoundNoise(1.0, 1.0, 1, {1: KEY}, 0))
        exact = released.total.sums["delta"][0] * mechanism.lattice.steps
        assert exact == round(exact)  # a multiple of the step, whatever the input was
        steps.add(exact)
    assert len(steps) == 2


# Correlated noise -------------------------------------------------------------------------------


def test_integer_coefficients_never_exceed_the_accounted_ones() -> None:
    from anabranch.privacy.accounting.ftrl import sqrt_coefficients

    found = np.array(integer_coefficients(500)) / 4096
    exact = sqrt_coefficients(500)
    assert found[0] == 1
    assert (found <= exact).all()
    assert (exact - found < 1 / 4096).all()


def oracle(z: list[list[int]], bands: int, sums: list[list[int]]) -> list[list[int]]:
    """What the docstring says, in Python's integers: publish W, then compute Y from W alone."""
    m = integer_coefficients(bands)
    released: list[list[int]] = []
    for t in range(len(sums)):
        row = []
        for i in range(len(sums[0])):
            w = sum(m[j] * sums[t - j][i] for j in range(min(bands, t + 1))) + z[t][i]
            known = sum(m[j] * released[t - j][i] for j in range(1, min(bands, t + 1)))
            row.append((w - known + 2048) // 4096)
        released.append(row)
    return released


@pytest.mark.parametrize("bands", [1, 2, 5, 12])
def test_correlated_noise_is_a_function_of_what_was_published(bands: int) -> None:
    rounds, dim = 12, 7
    drawn = DiscreteGaussian(1e5)
    keys = {t: derived_key(KEY, str(t)) for t in range(1, rounds + 1)}
    z = [drawn.sample(SecretStream.keyed(keys[t], "matrix", str(t)), dim).tolist() for t in keys]
    sums = np.random.default_rng(0).integers(-10_000, 10_000, (rounds, dim)).tolist()
    wanted = oracle(z, bands, sums)
    run = CorrelatedNoise(bands, dim, drawn)
    for t in keys:
        noise = run.at(t, {r: keys[r] for r in range(1, t + 1)})
        assert [x + int(e) for x, e in zip(sums[t - 1], noise, strict=True)] == wanted[t - 1]


def test_correlated_noise_is_drawn_again_after_a_restart() -> None:
    drawn, keys = DiscreteGaussian(1e6), {t: derived_key(KEY, str(t)) for t in (1, 2, 4, 5)}
    run = CorrelatedNoise(3, 50, drawn)
    one_by_one = [run.at(t, {r: k for r, k in keys.items() if r <= t}) for t in keys]
    assert np.array_equal(CorrelatedNoise(3, 50, drawn).at(5, keys), one_by_one[-1])
    assert np.array_equal(run.at(5, keys), one_by_one[-1])  # a replay
    other = {**keys, 5: derived_key(KEY, "another input")}
    assert not np.array_equal(run.at(5, other), one_by_one[-1])


@pytest.mark.parametrize(
    "cell",
    [
        c
        for c in json.loads(
            (Path(__file__).parent / "vectors" / "dpftrl_sensitivity.json").read_text()
        )
        if c["n"] <= 100
    ],
    ids=lambda c: f"{c['n']}-{c['min_sep']}-{c['k']}",
)
def test_prefix_error_is_that_of_the_vectors(cell: dict[str, object]) -> None:
    rounds, bands = int(str(cell["n"])), int(str(cell["min_sep"]))
    vector = cell["banded_toeplitz_b"]
    assert isinstance(vector, dict)
    drawn, dim = DiscreteGaussian(2.0**25), 4000
    run = CorrelatedNoise(bands, dim, drawn)
    keys = {t: derived_key(KEY, str(t)) for t in range(1, rounds + 1)}
    total = np.zeros(dim)
    for t in keys:
        total += run.at(t, {r: keys[r] for r in range(1, t + 1)})
    # Noise of 2^25 / 2^12 steps at multiplier 1: the vector's error is for sensitivity included.
    found = total.std() / 2.0**13 * vector["sens"]
    assert found == pytest.approx(vector["max_err"], rel=6 / math.sqrt(2 * dim))
    exact = banded_toeplitz(rounds, bands, int(str(cell["k"])))
    assert exact.sensitivity == pytest.approx(vector["sens"], rel=1e-9)


# Adaptive clipping ------------------------------------------------------------------------------


def test_adaptive_clipping_by_hand() -> None:
    clip = AdaptiveClip(initial=1.0, quantile=0.5, rate=0.2)
    assert clip.after(1.0, 1.0) == pytest.approx(math.exp(-0.1))
    assert clip.after(1.0, 7.0) == clip.after(1.0, 1.0)  # noise may carry the share out of [0, 1]
    # Andrew et al. 2021: m = 100, sigma_b = 5, z = 1 gives 1.005 for the update.
    z = clip.update_noise(1.0, 100)
    assert z == pytest.approx(1.00504, abs=1e-5)
    assert z**-2 + (2 * 5) ** -2 == pytest.approx(1.0)


def test_the_clipping_bit_is_counted_with_noise() -> None:
    mechanism = CentralNoise(16, 100, AdaptiveClip(initial=1.0))
    sections = Sections(mechanism.sections())
    total = Total(sections, {"delta": np.zeros(16), "unclipped": np.array([40.0])}, 100)
    shares = [
        mechanism.release(
            total, RoundNoise(1.0, 1.0, 1, {1: derived_key(KEY, str(i))}, 0)
        ).unclipped
        for i in range(400)
    ]
    found = np.array([share for share in shares if share is not None])
    assert found.mean() == pytest.approx(0.7, abs=6 * 0.05 / 20)  # (40 / 100 + 1) / 2
    assert found.std() == pytest.approx(0.05, rel=6 / math.sqrt(800))  # sigma_b / m = 5 / 100


def test_the_clipping_bit_has_the_clients_noise_and_its_share_of_the_round() -> None:
    """100 clients, 72 honest survivors provided for; all 100 answer, 70 of them unclipped."""
    clip = AdaptiveClip(initial=1.0)
    mechanism = made(dim=16, cohort=100, most=100, fewest=80, corrupt=8, clip=clip, multiplier=2.0)
    assert mechanism.update_multiplier == pytest.approx(clip.update_noise(2.0, 100))
    # One client in units of the noise of 72: the update at its bound, and the bit.
    update = mechanism.norm / (math.sqrt(72) * mechanism.local_deviation)
    bit = mechanism.bit_steps / (math.sqrt(72) * mechanism.local_bit)
    assert update**2 + bit**2 == pytest.approx(2.0**-2, rel=1e-3)
    assert update**2 + bit**2 <= 2.0**-2
    assert bit == pytest.approx(1 / 10, rel=1e-3)  # sigma_b = 5 on the count: 10 on +-1
    short, long = np.full(16, 0.2, np.float32), np.full(16, 0.3, np.float32)
    shares = []
    for draw in range(60):
        lanes = np.zeros(17, np.int64)
        for client in range(100):
            own = SecretStream.keyed(KEY, str(draw), str(client))
            lanes += mechanism.integers(short if client < 70 else long, 1.0, 1.0, 1, 0, own)
        total = Total(Sections(mechanism.sections()), {"delta": lanes.astype(np.float64)}, 100)
        released = mechanism.release(total, RoundNoise(1.0, 2.0, 1, {}, 0))
        assert released.unclipped is not None
        assert released.total.sums["delta"].shape == (16,)
        shares.append(released.unclipped)
    # The parts of all 100, of which 72 were provided for: 5 sqrt(100 / 72) on the count of 100.
    assert np.mean(shares) == pytest.approx(0.7, abs=6 * 0.059 / math.sqrt(60))
    assert np.std(shares) == pytest.approx(0.05 * math.sqrt(100 / 72), rel=6 / math.sqrt(120))


def test_control_without_the_bits_share_the_round_costs_more_than_was_planned() -> None:
    clip = AdaptiveClip(initial=1.0)
    fixed = made(dim=16, cohort=100, most=100, fewest=80, corrupt=8, multiplier=2.0)
    paid = made(dim=16, cohort=100, most=100, fewest=80, corrupt=8, clip=clip, multiplier=2.0)
    update = fixed.norm / (math.sqrt(72) * fixed.local_deviation)
    bit = paid.bit_steps / (math.sqrt(72) * paid.local_bit)
    assert update**2 + bit**2 > 2.0**-2


# Distributed noise ------------------------------------------------------------------------------


def made(**changes: object) -> DistributedNoise:
    values: dict[str, object] = {
        "dim": 1000,
        "cohort": 100,
        "most": 120,
        "fewest": 90,
        "corrupt": 10,
        "clip": FIXED,
        "multiplier": 2.0,
        "bits": 20,
    }
    return DistributedNoise(**{**values, **changes})  # type: ignore[arg-type]  # as declared


def test_noise_is_provisioned_for_dropouts_and_collusion() -> None:
    """80 honest survivors have 2 clip norms of noise, rounding included; more have more."""
    mechanism = made()
    together = math.sqrt(80) * mechanism.local_deviation
    assert math.sqrt(together**2 - 1.75**2) == pytest.approx(2.0 * mechanism.norm, rel=1e-12)
    assert mechanism.norm >= mechanism.scale
    assert mechanism.realised(90, 2.0) == pytest.approx(2.0)
    assert mechanism.realised(120, 2.0) == pytest.approx(2.0 * math.sqrt(110 / 80))
    with pytest.raises(AnabranchError) as caught:
        mechanism.realised(89, 2.0)
    assert caught.value.code == "AB-935"


def test_the_modulus_holds_the_sum_that_was_planned() -> None:
    for bits in (12, 16, 20, 24):
        mechanism = made(bits=bits)
        spread = 2 * (mechanism.scale * 120) ** 2 / 1000 + 120 * (
            0.25 + mechanism.local_deviation**2
        )
        assert 2 * 7 * math.sqrt(spread) <= 2**bits * (1 + 1e-9)


def test_equal_updates_of_everybody_do_not_wrap() -> None:
    mechanism = made(dim=64, bits=16)
    delta = np.zeros(64, np.float32)
    delta[3] = 9.0  # far above the clip norm, the same for all
    total = np.zeros(64)
    for client in range(120):
        own = SecretStream.keyed(KEY, str(client))
        total += mechanism.integers(delta, 0.5, 1.0, 1, 0, own)
    section = Sections(mechanism.sections())
    released = mechanism.release(
        Total(section, {"delta": total}, 120), RoundNoise(0.5, 2.0, 1, {}, 0)
    )
    error = released.total.sums["delta"] / 100 - 0.5 * 1.2 * np.eye(64)[3]
    assert np.abs(error).max() < 6 * released.deviation


@given(st.integers(-(2**40), 2**40), st.integers(8, 32))
def test_centred_is_a_residue(value: int, bits: int) -> None:
    found = int(centred(np.array([value]), bits)[0])
    assert -(2 ** (bits - 1)) <= found < 2 ** (bits - 1)
    assert (found - value) % 2**bits == 0


@given(st.integers(0, 2**31), st.integers(1, 600), st.floats(0.5, 1e5))
@settings(max_examples=60, deadline=None)
def test_conditional_rounding_keeps_its_bound_and_is_unbiased(
    seed: int, dim: int, scale: float
) -> None:
    vector = np.random.default_rng(seed).normal(size=dim).astype(np.float32)
    vector /= np.float32(np.linalg.norm(vector))
    found = conditionally_rounded(vector, scale, SecretStream.keyed(KEY, str(seed)))
    assert sum(int(x) ** 2 for x in found) <= rounded_norm(scale, 1.0, dim) ** 2
    assert np.abs(found - scale * vector.astype(np.float64)).max() <= 1.01 + 1e-6 * scale


@pytest.mark.parametrize("dim", [1, 2, 3, 64, 1000, 1009, 4199])
def test_rotation_is_orthogonal_and_undone(dim: int) -> None:
    rotation = Rotation(dim, seed=3, round=5)
    vector = np.random.default_rng(dim).normal(size=dim).astype(np.float32)
    turned = rotation.forward(vector)
    assert np.linalg.norm(turned) == pytest.approx(np.linalg.norm(vector), rel=1e-5)
    assert np.allclose(rotation.backward(turned), vector, atol=1e-5)
    assert smooth_length(dim) > dim / 2


def test_rotation_spreads_a_single_coordinate() -> None:
    """A client that is alone in a coordinate is not found there."""
    for dim in (4096, 7850):
        for place in (0, dim // 2, dim - 1):
            one = np.zeros(dim, np.float32)
            one[place] = 1.0
            assert np.abs(Rotation(dim, 0, 1).forward(one)).max() * math.sqrt(dim) < 6


def test_hartley_by_the_definition() -> None:
    for length in range(1, 30):
        j = np.arange(length)
        angle = 2 * np.pi * np.outer(j, j) / length
        matrix = (np.cos(angle) + np.sin(angle)) / math.sqrt(length)
        vector = np.random.default_rng(length).normal(size=length).astype(np.float32)
        assert np.allclose(hartley(vector), matrix @ vector, atol=1e-5)


def test_distributed_noise_is_the_same_privacy_as_central_noise() -> None:
    """Worth of the honest survivors' noise beside the norm bound, for both distributions."""
    for noise in ("discrete-gaussian", "skellam"):
        mechanism = made(noise=noise, bits=18)
        deviation = math.sqrt(80) * mechanism.local_deviation
        assert deviation / mechanism.norm >= 2.0


# Refusals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: made(bits=8), "AB-934"),
        (lambda: made(bits=8, most=10**7, fewest=10**7, corrupt=0), "AB-934"),
        (lambda: made(corrupt=90), "AB-935"),
        (lambda: made(clip=AdaptiveClip(), noise="skellam"), "AB-933"),
        (lambda: made(clip=AdaptiveClip(count_noise=0.5)), "AB-933"),
        (lambda: MatrixNoise(10, 10, AdaptiveClip(), bands=2), "AB-933"),
        (lambda: CentralNoise(10, 4, AdaptiveClip()).check(1.0), "AB-933"),
        (lambda: CentralNoise(2**26, 100, FIXED).check(1.0), "AB-932"),
        (lambda: check_reachable(37.3, 14, 4, 20, "site"), "AB-942"),
    ],
)
def test_what_cannot_keep_its_promise_is_refused(make: object, code: str) -> None:
    with pytest.raises(AnabranchError) as caught:
        make()  # type: ignore[operator]  # each entry is a function
    assert caught.value.code == code


def test_the_modulus_that_is_asked_for_suffices() -> None:
    """What the refusal advises is accepted."""
    with pytest.raises(AnabranchError) as caught:
        made(bits=8)
    bits = int(caught.value.fix.split("bits to ")[1].split(" ")[0])
    made(bits=bits)


def test_squared_norms_are_exact_where_they_decide() -> None:
    """The bound is compared in float64, whose integers are exact below 2^53."""
    lattice = UnitLattice(2**24)
    assert lattice.steps**2 < 2**53
    assert squared_norm(np.array([float(lattice.steps)])) == lattice.steps**2
    assert Section.count("x").quantum == 1.0


def test_skellam_noise_covers_its_own_proof() -> None:
    """Its Rényi bound at the noise that is really added keeps the epsilon that is counted."""
    from anabranch.plan.mechanism import mechanism_of
    from anabranch.privacy.accounting import exact_epsilon
    from anabranch.privacy.mechanisms.modulus import skellam_rdp

    plan = plan_from(
        {
            "data": {"source": "arrays"},
            "model": {"name": "logistic"},
            "rounds": {"count": 1, "cohort": 100},
            "evaluation": {"on": "holdout"},
            "secure_aggregation": {},
            "privacy": {
                "epsilon": 1.0,
                "delta": 1e-5,
                "population": "people",
                "mechanism": {"kind": "distributed", "clip": FIXED, "noise": "skellam"},
            },
        }
    )
    mechanism = mechanism_of(plan, 1000, 1000)
    assert isinstance(mechanism, DistributedNoise)
    assert 1.05 < mechanism.allowance < 1.15
    divergence = skellam_rdp(mechanism.norm, 1000, mechanism.honest * mechanism.local_deviation**2)
    # Canonne, Kamath and Steinke 2020, proposition 12.
    found = min(
        divergence(a) + math.log1p(-1 / a) - math.log(1e-5 * a) / (a - 1)
        for a in np.linspace(2, 200, 2000)
    )
    assert found <= 1.0
    assert exact_epsilon(mechanism.multiplier, 1e-5) <= 1.0
    assert mechanism.realised(mechanism.fewest, 0.0) == pytest.approx(mechanism.multiplier)
