"""Controls for attacks whose defence is tested elsewhere, and the list of all of them.

Each control carries out the attack on a variant without the defence, and stands beside the same
attack on ours. ``docs/reference/attacks.md`` names a test and a control for each failure.
"""

from __future__ import annotations

import itertools
import math
import os
import re
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm
from secagg_rounds import context_of, names_of, run_round, vectors_of

from anabranch.aggregation.fold import Accumulator, FoldPlan
from anabranch.privacy.accounting import claim, exact_epsilon
from anabranch.privacy.events import GaussianEvent, Relation
from anabranch.privacy.mechanisms import CentralNoise, FixedClip, RoundNoise, UnitLattice
from anabranch.privacy.noise import SecretStream
from anabranch.privacy.secure_aggregation import Finished
from anabranch.updates.sections import Sections
from anabranch.updates.total import Total

DELTA = 1e-5
ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "docs" / "reference" / "attacks.md"


# Noise in floating point (1) --------------------------------------------------------------------


def impossible(outputs: np.ndarray, other: float) -> float:
    """Share of the outputs that no noise at all gives for the input ``other``."""
    noise = outputs - other
    around = [noise, np.nextafter(noise, -np.inf), np.nextafter(noise, np.inf)]
    return 1 - float(np.mean(np.any([other + one == outputs for one in around], axis=0)))


def test_control_noise_in_floating_point_gives_away_its_input() -> None:
    outputs = 0.0 + np.random.default_rng(0).normal(size=10_000)
    assert impossible(outputs, 1.0) > 0.2


def test_no_output_of_ours_is_impossible_under_the_neighbour() -> None:
    mechanism = CentralNoise(1, 1, FixedClip(norm=1.0))
    lattice = mechanism.lattice

    def released(steps: int) -> float:
        vector = np.array([lattice.quantum * steps])
        total = Total(Sections(mechanism.sections()), {"delta": vector}, 1)
        noisy = mechanism.release(total, RoundNoise(1.0, 1.0, 1, {1: os.urandom(32)}, 0))
        return float(noisy.total.sums["delta"][0])

    outputs = np.array([released(0) for _ in range(300)])
    assert impossible(outputs, lattice.quantum) == 0
    assert len(set(outputs)) > 200  # it is noise


# A copied generator (2) -------------------------------------------------------------------------


def drawn_by_a_child(rng: np.random.Generator) -> bytes:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # nothing but system calls: the child must not run the test session
        os.write(writing, rng.bytes(16))
        os._exit(0)
    os.waitpid(child, 0)
    found = os.read(reading, 16)
    os.close(reading)
    os.close(writing)
    return found


def test_control_a_forked_process_repeats_the_noise_of_its_parent() -> None:
    rng = np.random.default_rng()
    assert drawn_by_a_child(rng) == rng.bytes(16)


# Sensitivity (3) --------------------------------------------------------------------------------


def in_a_row(values: np.ndarray) -> float:
    """A running sum in single precision, as a loop over the replies makes it."""
    return float(np.add.accumulate(values.astype(np.float32))[-1])


def test_control_the_order_of_a_float_sum_moves_it_further_than_a_client_can() -> None:
    small = np.full(1 << 18, 2.0**-25)
    with_one, without = np.append(1.0, small), np.append(small, 0.0)
    true = with_one.sum() - without.sum()
    assert true == 1.0
    # One client gone, and the others in another order: 0.008 too little, beside 2^-25 a client.
    moved = in_a_row(with_one) - in_a_row(without)
    assert abs(moved - true) > 2.0**17 * 2.0**-25


def test_sums_of_neighbours_differ_by_one_client_in_every_order() -> None:
    lattice, clip = UnitLattice(3), 1.0
    rng = np.random.default_rng(3)
    updates = [rng.standard_cauchy(3).astype(np.float32) for _ in range(5)]
    mechanism = CentralNoise(3, 5, FixedClip(norm=clip))

    def total(members: tuple[int, ...]) -> np.ndarray:
        fold = Accumulator(FoldPlan(Sections(mechanism.sections()), 5))
        for number in members:
            own = SecretStream.system()
            fold.add(mechanism.encode(updates[number], 1.0, clip, 1, 0, own), str(number))
        return fold.total().sums["delta"] * lattice.steps

    everybody = {total(order).tobytes() for order in itertools.permutations(range(5))}
    assert len(everybody) == 1
    moved = np.frombuffer(everybody.pop()) - total((0, 1, 2, 3))
    assert sum(int(step) ** 2 for step in moved) <= lattice.steps**2


# Small cohorts (8) ------------------------------------------------------------------------------


def test_control_two_of_a_sum_of_three_find_the_third() -> None:
    context = context_of(3, minimum=2)
    vectors = vectors_of(context, 1)
    state = run_round(context, vectors)
    assert isinstance(state, Finished)
    one, two, victim = (vectors[name] for name in names_of(3))
    assert np.array_equal((state.total - one - two).astype(np.uint32), victim)


# The accountant misused (15) --------------------------------------------------------------------


def worst_delta(distance: float, epsilon: float) -> float:
    """Of two unit Gaussians this far apart (Balle and Wang 2018, theorem 8)."""
    middle, slope = distance / 2, epsilon / distance
    return float(norm.cdf(middle - slope) - math.exp(epsilon) * norm.cdf(-middle - slope))


def test_control_noise_that_is_passed_on_unscaled_promises_what_does_not_hold() -> None:
    """z = 4 means 4 C, and to replace a unit moves the sum by 2 C: the distance is 1/2."""
    misused = exact_epsilon(4.0, DELTA)
    assert worst_delta(2 / 4.0, misused) > 100 * DELTA
    ours = claim([GaussianEvent(4.0, relation=Relation.REPLACE_ONE)], DELTA).epsilon
    assert worst_delta(2 / 4.0, ours) == pytest.approx(DELTA, rel=1e-6)


# The list ---------------------------------------------------------------------------------------


def rows() -> list[list[str]]:
    lines = TABLE.read_text("utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "|" in line]
    return [row for row in cells if row[0].isdigit() or row[0] == "+"]


def test_the_list_has_eighteen_failures_and_eight_more() -> None:
    assert [row[0] for row in rows()] == [*map(str, range(1, 19)), *"++++++++"]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[1][:30])
def test_every_failure_names_tests_and_a_control_that_exist(row: list[str]) -> None:
    *_, tests, control = row
    written = "\n".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", tests)
    controls = re.findall(r"`(test_control_\w+)`", control)
    assert named
    assert controls
    for name in [*named, *controls]:
        assert f"def {name}(" in written, name
