"""The ledger's decisions, on numbers that can be checked by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_parts import DELTA, ONE, OPENED, a_round, allotment, gaussian, request

from anabranch.errors import AnabranchError
from anabranch.privacy.accounting import banded_toeplitz, claim, exact_epsilon
from anabranch.privacy.events import GaussianEvent, PoissonSampling, Relation, Unit
from anabranch.privacy.ledger import (
    Allotted,
    Balance,
    Charge,
    Closed,
    Line,
    MatrixEvent,
    Request,
    Settled,
    allot,
    charges_of,
    close,
    covers,
    dry_run,
    epsilon_of,
    reserve,
    same_population,
    settle,
    share_of,
)


def started(allotted: Allotted | None = None) -> Balance:
    empty = Balance(OPENED)
    entry = allot(empty, allotted or allotment())
    assert entry is not None
    return empty.after(entry)


def released(balance: Balance, *requests: Request, run: str = "r") -> Balance:
    for one in requests:
        entry, replayed = reserve(balance, run, one)
        assert not replayed
        balance = balance.after(entry)
    return balance


def test_of_ten_plans_only_the_first_starts() -> None:
    balance = started(allotment("run0"))
    for number in range(1, 10):
        with pytest.raises(AnabranchError, match="AB-916") as caught:
            allot(balance, allotment(f"run{number}"))
        assert "run0" in caught.value.message
    assert balance.epsilon() == pytest.approx(1.0)


def test_ten_runs_of_one_tenth_of_the_share_fit_and_the_eleventh_does_not() -> None:
    """Ten runs of epsilon 1 are 3.6; ten with sqrt(10) times the noise are 1."""
    balance = Balance(OPENED)
    line = Line("model", (gaussian(ONE * math.sqrt(10)),))
    for number in range(10):
        entry = allot(balance, Allotted(f"run{number}", (line,), 1.0, DELTA))
        assert entry is not None
        balance = balance.after(entry)
    assert balance.epsilon() == pytest.approx(1.0, rel=1e-6)
    assert not dry_run(balance, (line,)).fits


def test_a_dry_run_changes_nothing_and_says_what_would_be() -> None:
    balance = started(allotment(rounds=1))
    found = dry_run(balance, allotment().lines)
    assert (found.run, found.before) == (pytest.approx(1.0), pytest.approx(1.0))
    assert found.after == pytest.approx(exact_epsilon(ONE / math.sqrt(2), DELTA))
    assert list(balance.runs) == ["r"]


def test_unused_budget_returns_when_a_run_ends() -> None:
    balance = released(started(), request(1))
    assert balance.epsilon() == pytest.approx(1.0)
    closed = close(balance, "r", "stopped by rule")
    assert closed is not None
    after = balance.after(closed)
    assert after.epsilon() == pytest.approx(exact_epsilon(ONE * 2, DELTA))
    assert close(after, "r", "again") is None


def test_the_same_release_again_costs_nothing() -> None:
    balance = released(started(), request(1))
    entry, replayed = reserve(balance, "r", request(1, contributors=("b", "a")))
    assert replayed
    assert entry == balance.runs["r"].releases[entry.release].reserved


@pytest.mark.parametrize(
    "other",
    [
        request(2),
        request(1, version="w"),
        request(1, contributors=("a", "c")),
        request(1, contributors=("a", "b", "c")),
        request(1, payloads="q"),
        request(1, gaussian(ONE * 3)),
        replace(request(1), site="va"),
    ],
)
def test_any_other_input_is_another_release(other: Request) -> None:
    balance = released(started(), request(1))
    first, _ = reserve(balance, "r", request(1))
    entry, replayed = reserve(balance, "r", other)
    assert not replayed
    assert entry.release != first.release


def test_another_secret_is_another_release() -> None:
    """The noise would differ, so that equal inputs no longer are a replay."""
    assert request().release_id("r", "one") != request().release_id("r", "two")
    assert request().release_id("r", "one") != request().release_id("s", "one")


def test_names_do_not_enter_the_ledger() -> None:
    entry, _ = reserve(started(), "r", request(contributors=("alice", "bob")))
    assert "alice" not in repr(entry)
    assert entry.contributors == 2


def test_overspending_is_refused_at_the_release_that_would_do_it() -> None:
    balance = released(started(), *(request(n) for n in range(1, 5)))
    with pytest.raises(AnabranchError, match="AB-920") as caught:
        reserve(balance, "r", request(5))
    assert "last good model" in caught.value.fix


def test_more_noise_in_one_round_pays_for_less_in_another() -> None:
    quiet = gaussian(math.sqrt(1 / (1.5 * share_of([a_round()]))))
    loud = gaussian(math.sqrt(1 / (0.5 * share_of([a_round()]))))
    balance = released(started(), request(1, loud), request(2, quiet))
    balance = released(balance, request(3), request(4))
    with pytest.raises(AnabranchError, match="AB-920"):
        reserve(balance, "r", request(5, loud))


def test_an_unsettled_reservation_counts_as_spent() -> None:
    balance = released(started(), request(1))
    closed = Closed("r")
    assert balance.after(closed).epsilon() == pytest.approx(exact_epsilon(ONE * 2, DELTA))


def test_a_reservation_of_which_nothing_was_computed_is_given_back() -> None:
    balance = released(started(), request(1))
    release = next(iter(balance.runs["r"].releases))
    entry = settle(balance, release, None, reason="nobody answered")
    assert entry is not None
    balance = balance.after(entry)
    assert balance.after(Closed("r")).epsilon() == 0.0
    # and the same request may then be reserved again
    again, replayed = reserve(balance, "r", request(1))
    assert not replayed
    assert balance.after(again).after(Closed("r")).epsilon() > 0


def test_what_was_really_added_counts() -> None:
    """Dropouts took noise away: the settled charge is dearer than the reserved one."""
    balance = released(started(), request(1))
    release = next(iter(balance.runs["r"].releases))
    weaker = replace(a_round(), realised_noise=a_round().noise / 2)
    entry = settle(balance, release, weaker, "out")
    assert entry is not None
    after = balance.after(entry)
    assert after.after(Closed("r")).epsilon() == pytest.approx(exact_epsilon(ONE, DELTA))
    # the four rounds that were planned would now be 4/4 + 3/4 of the budget
    released(after)
    with pytest.raises(AnabranchError, match="AB-920"):
        reserve(after, "r", request(2))


def test_an_overdrawn_line_counts_for_the_plan_and_for_what_happened() -> None:
    balance = released(started(), request(1))
    release = next(iter(balance.runs["r"].releases))
    weaker = replace(a_round(), realised_noise=a_round().noise / 4)
    entry = settle(balance, release, weaker, "out")
    assert entry is not None
    found = balance.after(entry).epsilon()
    assert found == pytest.approx(exact_epsilon(ONE / math.sqrt(1 + 4), DELTA))


def test_settling_again_is_nothing_and_differently_is_refused() -> None:
    balance = released(started(), request(1))
    release = next(iter(balance.runs["r"].releases))
    entry = settle(balance, release, a_round(), "out")
    assert entry is not None
    balance = balance.after(entry)
    assert settle(balance, release, a_round(), "out") is None
    for charge, output in ((a_round(), "other"), (gaussian(ONE * 9), "out"), (None, "")):
        with pytest.raises(AnabranchError, match="AB-921"):
            settle(balance, release, charge, output)
    with pytest.raises(AnabranchError, match="AB-921"):
        settle(balance, "0" * 64, a_round(), "out")


def test_everything_that_leaves_needs_a_line() -> None:
    balance = started()
    for purpose in ("metrics", "evaluation", "statistics", "clipping"):
        with pytest.raises(AnabranchError, match="AB-919"):
            reserve(balance, "r", request(purpose=purpose))  # type: ignore[arg-type]  # from a list
    with pytest.raises(AnabranchError, match="AB-919"):
        reserve(balance, "another", request())
    closed = balance.after(Closed("r"))
    with pytest.raises(AnabranchError, match="AB-919"):
        reserve(closed, "r", request())


def test_lines_are_kept_apart_and_added_up() -> None:
    """A metrics release neither uses up the model's line nor is it free."""
    lines = (
        Line("model", (gaussian(ONE * math.sqrt(2)),)),
        Line("evaluation", (gaussian(ONE * math.sqrt(2)),)),
    )
    balance = started(Allotted("r", lines, 1.0, DELTA))
    charge = gaussian(ONE * math.sqrt(2))
    balance = released(balance, request(1, charge), request(1, charge, purpose="evaluation"))
    assert balance.after(Closed("r")).epsilon() == pytest.approx(1.0)
    with pytest.raises(AnabranchError, match="AB-920"):
        reserve(balance, "r", request(2, charge, purpose="evaluation"))


def test_a_run_may_not_plan_more_than_it_promises() -> None:
    generous = replace(OPENED, epsilon=10.0)
    wanted = allotment(epsilon=0.5)
    with pytest.raises(AnabranchError, match="AB-917"):
        allot(Balance(generous), wanted)


def test_after_a_crash_a_run_goes_on_under_the_same_allotment_only() -> None:
    balance = started()
    assert allot(balance, allotment()) is None
    for other in (allotment(rounds=3), replace(allotment(), secret="another")):
        with pytest.raises(AnabranchError, match="AB-918"):
            allot(balance, other)


def test_a_stopped_run_goes_on_with_what_it_has_released() -> None:
    balance = released(started(), request(1)).after(Closed("r", final=False))
    entry = allot(balance, allotment(rounds=4))
    assert entry is not None
    balance = balance.after(entry)
    balance = released(balance, request(2), request(3), request(4))
    with pytest.raises(AnabranchError, match="AB-920"):
        reserve(balance, "r", request(5))


@pytest.mark.parametrize(
    "change",
    [
        {"unit": Unit.SITE},
        {"relation": Relation.REPLACE_ONE},
        {"delta": 1e-6},
        {"disjoint": True},
        {"size": 20_000},
    ],
)
def test_a_population_means_one_thing(change: dict[str, object]) -> None:
    with pytest.raises(AnabranchError, match="AB-915"):
        same_population(OPENED, replace(OPENED, **change))  # type: ignore[arg-type]  # one field each


def test_a_later_plan_cannot_raise_the_budget() -> None:
    same_population(OPENED, replace(OPENED, epsilon=100.0))
    with pytest.raises(AnabranchError, match="AB-916"):
        allot(started(), allotment("later"))


def test_limited_participation_counts_the_dearest_releases() -> None:
    """Ten releases, nobody in more than two of them."""
    dear, cheap = gaussian(10.0), gaussian(20.0)
    charges: list[Charge] = [cheap] * 9 + [dear]
    assert share_of(charges_of(charges, 2)) == pytest.approx(1 / 100 + 1 / 400)
    assert share_of(charges_of(charges)) == pytest.approx(1 / 100 + 9 / 400)
    line = Line("model", (gaussian(10.0, rounds=2),), participations=2)
    assert covers(line, charges, DELTA)
    assert not covers(line, [*charges, dear, gaussian(9.0)], DELTA)


def test_prefix_sums_of_one_matrix_run_are_one_release() -> None:
    whole = MatrixEvent(8.0, 100, separation=20, participations=5, bands=20)
    prefixes = [replace(whole, rounds=n) for n in range(1, 101)]
    (event,) = charges_of(prefixes)
    assert event.noise == pytest.approx(8.0 / banded_toeplitz(100, 20, 5).sensitivity, rel=1e-12)
    # after 20 rounds nobody can have come twice
    (first,) = charges_of(prefixes[:20])
    assert first.noise == pytest.approx(8.0 / banded_toeplitz(20, 20, 1).sensitivity, rel=1e-12)


def test_a_matrix_round_that_is_released_again_costs_once_more() -> None:
    whole = MatrixEvent(8.0, 100, separation=20, participations=5, bands=20)
    prefixes = [replace(whole, rounds=n) for n in (1, 2, 2, 3)]
    expected = share_of(charges_of([replace(whole, rounds=3)])) + 1 / 64
    assert share_of(charges_of(prefixes)) == pytest.approx(expected)
    assert not covers(Line("model", (replace(whole, rounds=3),)), prefixes, DELTA)
    spare = Line("model", (replace(whole, rounds=3), gaussian(8.0)))
    assert covers(spare, prefixes, DELTA)


def test_sampled_releases_are_covered_by_as_many_with_as_much_noise() -> None:
    poisson = GaussianEvent(1.0, 10, sampling=PoissonSampling(0.01))
    line = Line("model", (poisson,))
    one = replace(poisson, rounds=1)
    assert covers(line, [one] * 10, DELTA)
    assert not covers(line, [one] * 11, DELTA)
    assert not covers(line, [replace(one, realised_noise=0.8)] * 10, DELTA)
    # fewer rounds with less noise may fit: then the accounting decides
    weak = [replace(one, realised_noise=0.99)] * 2
    assert epsilon_of(charges_of(weak), DELTA) < epsilon_of([poisson], DELTA)
    assert covers(line, weak, DELTA)


def test_another_relation_is_never_covered() -> None:
    line = Line("model", (gaussian(1.0, 4),))
    assert not covers(line, [replace(gaussian(100.0), relation=Relation.REPLACE_ONE)], DELTA)


def test_sites_combine_by_the_maximum_only_if_nobody_is_at_two() -> None:
    lines = tuple(Line("model", (gaussian(ONE),), site=site) for site in ("va", "ch", "hu"))
    for disjoint, wanted in ((True, 1.0), (False, exact_epsilon(ONE / math.sqrt(3), DELTA))):
        opened = replace(OPENED, epsilon=5.0, disjoint=disjoint, unit=Unit.SUBJECT)
        balance = Balance(opened).after(Allotted("r", lines, 2.0, DELTA))
        assert balance.epsilon() == pytest.approx(wanted)
        assert len(list(balance.parts())) == (3 if disjoint else 1)


@given(
    st.lists(
        st.tuples(st.floats(0.5, 50), st.integers(1, 5)),
        min_size=1,
        max_size=8,
    )
)
def test_the_balance_is_the_claim_on_everything_reserved(parts: list[tuple[float, int]]) -> None:
    events = [gaussian(noise, rounds) for noise, rounds in parts]
    expected = claim(events, DELTA).epsilon
    assert epsilon_of(charges_of(events), DELTA) == pytest.approx(expected, rel=1e-9)


@given(st.lists(st.sampled_from(["reserve", "settle", "weak", "void", "replay"]), max_size=12))
def test_whatever_happens_the_closed_run_costs_what_it_released(steps: list[str]) -> None:
    """Against a slow oracle: a plain list of what counts."""
    balance, counted, number = started(allotment(rounds=100)), {}, 0
    for step in steps:
        open_ = [r for r, held in balance.runs["r"].releases.items() if held.settled is None]
        if step == "reserve":
            number += 1
            entry, _ = reserve(balance, "r", request(number, a_round(100)))
            balance = balance.after(entry)
            counted[entry.release] = a_round(100).noise
        elif step == "replay" and number:
            _, replayed = reserve(balance, "r", request(number, a_round(100)))
            last = list(balance.runs["r"].releases.values())[-1]
            assert replayed == (last.charge is not None)
        elif step != "replay" and open_:
            noise = {"settle": 1.0, "weak": 0.9, "void": 0.0}[step] * a_round(100).noise
            settled = Settled(open_[0], gaussian(noise) if noise else None)
            balance = balance.after(settled)
            counted[open_[0]] = noise
    noises = [noise for noise in counted.values() if noise]
    expected = claim([gaussian(noise) for noise in noises], DELTA).epsilon if noises else 0.0
    found = balance.after(Closed("r")).epsilon()
    assert found == pytest.approx(expected, rel=1e-9)
