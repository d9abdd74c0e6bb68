"""What each selector computes, on numbers that can be checked by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from anabranch.fleet.history import FleetHistory
from anabranch.fleet.selection import (
    Code,
    DeviceUtility,
    Known,
    Oort,
    Poisson,
    PowerOfChoice,
    Reason,
    SecretDraw,
    Selector,
    Stratified,
    Weighted,
    due_now,
)
from anabranch.fleet.selection.drawing import systematic
from anabranch.fleet.selection.stratified import _equal
from anabranch.fleet.shown import Shown
from anabranch.fleet.view import FleetView, unknown_fleet


def chances(
    selector: Selector, view: FleetView, wanted: int, known: Known | None = None, trials: int = 400
) -> NDArray[np.float64]:
    """How often each client is selected."""
    counts = np.zeros(len(view))
    for seed in range(trials):
        counts[list(selector.select(view, wanted, np.random.default_rng(seed), known).clients)] += 1
    return counts / trials


def with_losses(losses: list[float], round_: int = 2) -> Known:
    """Every client was asked in round 1 and has this loss; NaN was never asked."""
    asked = [client for client, loss in enumerate(losses) if not math.isnan(loss)]
    shown = Shown.of(asked, [True] * len(asked), loss=[losses[client] for client in asked])
    history = FleetHistory.empty(len(losses)).after(1, shown)
    return replace(Known.nothing(len(losses), round_), history=history)


def test_weighted_draws_one_after_the_other_by_examples() -> None:
    view = replace(unknown_fleet(3), examples=np.array([10.0, 30.0, 60.0]))
    found = chances(Weighted(), view, 1, trials=2000)
    np.testing.assert_allclose(found, [0.1, 0.3, 0.6], atol=0.04)
    # Two of them: P(0) = .1 + .3 * 10/70 + .6 * 10/40.
    pair = chances(Weighted(), view, 2, trials=2000)
    assert pair[0] == pytest.approx(0.1 + 0.3 / 7 + 0.15, abs=0.04)


def test_unannounced_examples_count_as_the_mean() -> None:
    view = replace(unknown_fleet(3), examples=np.array([10.0, np.nan, 30.0]))
    np.testing.assert_allclose(
        chances(Weighted(), view, 1, trials=2000), [1 / 6, 1 / 3, 1 / 2], atol=0.04
    )


def test_poisson_tosses_a_coin_for_each_enrolled_client() -> None:
    view = unknown_fleet(400)
    away = replace(view, available=np.arange(400) % 2 == 0)
    sizes, half = [], []
    for seed in range(300):
        draw = np.random.default_rng(seed)
        everyone = Poisson().select(view, 40, draw).clients
        there = Poisson().select(away, 40, np.random.default_rng(seed)).clients
        # Who is away changes nobody else's coin.
        assert there == tuple(client for client in everyone if client % 2 == 0)
        sizes.append(len(everyone))
        half.append(len(there))
    assert np.mean(sizes) == pytest.approx(40, abs=1.2)
    assert np.var(sizes) == pytest.approx(400 * 0.1 * 0.9, rel=0.25)
    assert np.mean(half) == pytest.approx(20, abs=1.2)


def test_poisson_cuts_a_cohort_that_is_too_large() -> None:
    class Heads:
        def random(self, size: int) -> NDArray[np.float64]:
            return np.arange(size) / (size * 1e6)  # every coin falls on one

        def choice(self, a: int, size: int, replace: bool, *, shuffle: bool) -> NDArray[np.int64]:
            raise AssertionError("not used")

    selection = Poisson().select(unknown_fleet(100), 4, Heads())
    assert selection.clients == tuple(range(16))  # 4 + 6 * 2
    assert selection.counts() == {Code.SELECTED: 16, Code.OVER_CAP: 84}
    assert set(selection.reasons) == {Reason.COIN}


def test_secret_draws_are_uniform_repeatable_and_differ_by_number_and_secret() -> None:
    secret, other = bytes(range(32)), bytes(range(1, 33))
    draw = SecretDraw(secret, 1)
    first, second = draw.random(20_000), draw.random(20_000)
    assert abs(first.mean() - 0.5) < 0.01
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03
    assert (first >= 0).all()
    assert (first < 1).all()
    np.testing.assert_array_equal(first, SecretDraw(secret, 1).random(20_000))
    for different in (SecretDraw(secret, 2), SecretDraw(other, 1), SecretDraw.fresh()):
        assert not np.array_equal(first, different.random(20_000))
    chosen = SecretDraw(secret, 3).choice(10, 4, False, shuffle=False)
    assert len(set(chosen.tolist())) == 4
    with pytest.raises(ValueError, match="32 bytes"):
        SecretDraw(b"short", 1)


def test_power_of_choice_takes_the_largest_losses_of_its_candidates() -> None:
    known = with_losses([1.0, 2.0, 3.0, 4.0, math.nan])
    everyone = PowerOfChoice(candidates=5)
    draw = np.random.default_rng(0)
    assert everyone.select(unknown_fleet(5), 1, draw, known).clients == (4,)  # not known: first
    assert everyone.select(unknown_fleet(5), 3, draw, known).clients == (2, 3, 4)
    # One candidate for each task: losses do not matter.
    plain = chances(PowerOfChoice(candidates=1), unknown_fleet(5), 2, known)
    np.testing.assert_allclose(plain, 0.4, atol=0.08)


def test_oort_utility_by_hand() -> None:
    view = replace(unknown_fleet(4), examples=np.array([10.0, 10.0, 10.0, 20.0]))
    known = replace(
        with_losses([1.0, 2.0, math.nan, 4.0], round_=10),
        seconds=np.array([10.0, 10.0, 10.0, 40.0]),
    )
    # |B| l = 10, 20, 80, clipped at the largest and divided by it; T = 10, so client 3 is
    # 4 times too slow and counts 1/16.
    bonus = math.sqrt(0.1 * math.log(10))
    expected = [10 / 80 + bonus, 20 / 80 + bonus, math.nan, (1.0 + bonus) / 16]
    found = Oort(pace=0.5, clip=1.0).utilities(view, known)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_oort_explores_less_as_rounds_pass_and_fills_up() -> None:
    losses = [1.0] * 20 + [math.nan] * 20
    for round_, explored in ((2, 9), (1000, 2)):  # .9 * .98 * 10 = 8.8; at least .2 * 10
        selection = Oort().select(
            unknown_fleet(40), 10, np.random.default_rng(0), with_losses(losses, round_)
        )
        assert selection.reason_counts()[Reason.EXPLORED] == explored
        assert len(selection.clients) == 10
    few = with_losses([1.0] * 3 + [math.nan] * 3)
    assert len(Oort().select(unknown_fleet(6), 5, np.random.default_rng(0), few).clients) == 5


def test_battery_weights() -> None:
    view = replace(
        unknown_fleet(5),
        charging=np.array([True, False, False, False, False]),
        battery=np.array([0.05, 0.3, 0.65, 1.0, np.nan]),
    )
    np.testing.assert_allclose(DeviceUtility().battery(view), [1, 0, 0.5, 1, 0.5])
    selection = DeviceUtility().select(view, 5, np.random.default_rng(0))
    assert selection.clients == (0, 2, 3, 4)
    assert selection.codes[1] == Code.LOW_BATTERY


def test_device_weights_are_a_product() -> None:
    view = replace(unknown_fleet(3), metered=np.array([False, True, False]))
    known = replace(
        Known.nothing(3), seconds=np.array([10.0, 20.0, 40.0]), joules=np.array([5.0, 5.0, 20.0])
    )
    # T = 20 and J = 5, the medians; nobody has a history, so reliability is .9 for all.
    found = DeviceUtility().weights(view, known, np.arange(3))
    np.testing.assert_allclose(found, [0.9, 0.9 * 0.5, 0.9 * (20 / 40) ** 2 * (5 / 20)])


def test_every_region_gets_its_least_share() -> None:
    region = (np.arange(100) >= 80).astype(np.int16)  # 80 in the north, 20 in the south
    view = replace(unknown_fleet(100), regions=("north", "south"), region=region)
    slow = replace(Known.nothing(100), seconds=np.where(region == 1, 1e6, 1.0))
    for balance, least in ((1.0, 4), (0.5, 2)):
        selector = DeviceUtility(regions=balance, exploration=0.0, floor=None)
        selection = selector.select(view, 20, np.random.default_rng(0), slow)
        assert int(region[list(selection.clients)].sum()) == least
    none = DeviceUtility(regions=0.0, exploration=0.0, floor=None)
    assert (
        int(region[list(none.select(view, 20, np.random.default_rng(0), slow).clients)].sum()) == 0
    )


def test_strata_get_their_shares_and_clients_equal_chances() -> None:
    device = np.repeat(np.array([0, 1, 2], np.int16), [60, 30, 10])
    view = replace(unknown_fleet(100), classes=("a", "b", "c"), device=device)
    for seed in range(20):
        chosen = list(Stratified().select(view, 15, np.random.default_rng(seed)).clients)
        counts = np.bincount(device[chosen], minlength=3)
        assert len(chosen) == 15
        assert (np.abs(counts - [9, 4.5, 1.5]) < 1).all()
    np.testing.assert_allclose(chances(Stratified(), view, 15, trials=1500), 0.15, atol=0.04)
    equal = Stratified(shares="equal").select(view, 15, np.random.default_rng(1)).clients
    assert np.bincount(device[list(equal)]).tolist() == [5, 5, 5]


def test_equal_quotas_pass_on_what_a_small_stratum_cannot_take() -> None:
    np.testing.assert_allclose(_equal(np.array([2, 50, 50]), 20), [2, 9, 9])
    np.testing.assert_allclose(_equal(np.array([0, 3, 3]), 20), [0, 3, 3])


def test_systematic_samples_have_their_size() -> None:
    among = np.arange(30, dtype=np.int64)
    for seed in range(50):
        chosen = systematic(np.full(30, 0.1), among, np.random.default_rng(seed))
        assert len(chosen) == 3
        assert np.diff(chosen).min() >= 9  # one in every stretch of ten


def test_the_floor_takes_the_earliest_deadlines_and_no_more_than_it_must() -> None:
    history = replace(FleetHistory.empty(6), last_asked=np.array([1, 2, 3, 4, 4, 5], np.int32))
    everyone, draw = np.arange(6), np.random.default_rng(0)
    # Round 6, floor 5: due within 0, 1, 2, 3, 3, 4 rounds.
    assert due_now(everyone, history, 6, 5, 2, draw).tolist() == [0]
    # Floor 4: client 0 is late, client 1 due now, the others within 1, 2, 2, 3 rounds.
    assert due_now(everyone, history, 6, 4, 1, draw).tolist() == [0]
    assert due_now(everyone, history, 6, 4, 3, draw).tolist() == [0, 1]
    assert due_now(everyone, history, 6, 20, 2, draw).tolist() == []
    # Six clients that wait in a queue of one a round: somebody must go each round.
    fresh = FleetHistory.empty(6)
    assert len(due_now(everyone, fresh, 1, 6, 1, draw)) == 1
    assert len(due_now(everyone, fresh, 1, 7, 1, draw)) == 0


def test_separation_takes_the_stricter_of_selector_and_claim() -> None:
    history = replace(FleetHistory.empty(3), last_asked=np.array([0, 3, 4], np.int32))
    known = replace(Known.nothing(3, 5), history=history, separation=2)
    draw = np.random.default_rng(0)
    assert Weighted().select(unknown_fleet(3), 3, draw, known).clients == (0, 1)
    strict = Weighted(separation=3).select(unknown_fleet(3), 3, draw, known)
    assert strict.clients == (0,)
    assert strict.codes.tolist() == [Code.SELECTED, Code.SEPARATION, Code.SEPARATION]
