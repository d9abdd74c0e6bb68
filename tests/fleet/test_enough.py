"""As many clients are asked as the wished probability needs: against the binomial distribution."""

from __future__ import annotations

import math

import numpy as np
import pytest

from anabranch.api.simulate import run_plan
from anabranch.client.task import Fate
from anabranch.coordinator.collect import Collected, OpenWork, TaskKey
from anabranch.coordinator.runtime import Outcome, Work
from anabranch.fleet.history import FleetHistory
from anabranch.fleet.odds import at_least, fewest
from anabranch.fleet.selection import Known, Selection, Uniform
from anabranch.fleet.shown import Shown
from anabranch.fleet.view import unknown_fleet
from anabranch.plan import Plan
from anabranch.plan.rounds import RoundsPlan

CLIENTS = 200


def binomial_tail(n: int, p: float, goal: int) -> float:
    """P(at least ``goal`` of n coins), term by term."""
    return sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(goal, n + 1))


def select(count: int) -> Selection:
    known = Known.nothing(CLIENTS, 1)
    return Uniform().select(unknown_fleet(CLIENTS), count, np.random.default_rng(5), known)


@pytest.mark.parametrize("success", [0.5, 0.7, 0.9, 0.99])
@pytest.mark.parametrize("wished", [0.8, 0.99])
def test_equal_odds_give_the_binomial_number(success: float, wished: float) -> None:
    goal = 20
    chosen = len(fewest(select, np.full(CLIENTS, success), goal, wished, CLIENTS).clients)
    assert binomial_tail(chosen, success, goal) >= wished
    assert chosen == goal or binomial_tail(chosen - 1, success, goal) < wished


def test_unequal_odds_count_as_those_of_the_clients_that_are_drawn() -> None:
    odds = np.where(np.arange(CLIENTS) % 2, 0.95, 0.4)
    chosen = fewest(select, odds, 20, 0.95, CLIENTS)
    assert at_least(odds[list(chosen.clients)], 20) >= 0.95
    fewer = select(len(chosen.clients) - 1)
    assert at_least(odds[list(fewer.clients)], 20) < 0.95


def test_no_more_are_asked_than_the_plan_allows() -> None:
    assert len(fewest(select, np.full(CLIENTS, 0.3), 20, 0.99, 30).clients) == 30
    assert len(fewest(select, np.full(CLIENTS, 1.0), 20, 0.99, 30).clients) == 20


def test_rounds_reach_their_goal_as_often_as_wished() -> None:
    """Clients answer with odds that the coordinator learns from their fates alone."""
    draw, wished, goal = np.random.default_rng(11), 0.9, 15
    truth = draw.uniform(0.5, 0.95, CLIENTS)
    history = FleetHistory.empty(CLIENTS)
    reached, asked = 0, 0
    rounds, learning = 120, 80
    for number in range(1, rounds + learning + 1):
        source = np.random.default_rng((7, number))
        state = source.bit_generator.state

        def choose(count: int, source=source, state=state) -> Selection:  # type: ignore[no-untyped-def]
            source.bit_generator.state = state
            known = Known.nothing(CLIENTS, 1)
            return Uniform().select(unknown_fleet(CLIENTS), count, source, known)

        clients = np.array(fewest(choose, history.reliability(), goal, wished, 60).clients)
        answered = draw.random(len(clients)) < truth[clients]
        # The round is closed at its goal: who would have answered later is cut off.
        order = draw.permutation(len(clients))
        position = np.cumsum(answered[order])
        cut = np.zeros(len(clients), np.bool_)
        cut[order[(position > goal) | ((position == goal) & ~answered[order])]] = True
        shown = Shown.of(clients.tolist(), (answered & ~cut).tolist(), cut=cut)
        history = history.after(number, shown)
        if number > learning:
            reached += int(answered.sum()) >= goal
            asked += len(clients)
    # Three standard deviations below what was wished: 0.9 - 3 sqrt(0.09 / 120) = 0.818.
    assert reached / rounds >= 0.818
    mean = float(truth.mean())
    ideal = next(n for n in range(goal, 60) if binomial_tail(n, mean, goal) >= wished)
    assert asked / rounds <= ideal + 2


def test_a_cut_off_task_says_nothing_of_its_client() -> None:
    shown = Shown.of([0, 1, 2], [True, False, False], cut=[False, True, False])
    history = FleetHistory.empty(3).after(1, shown)
    assert history.asked.tolist() == [1, 1, 1]
    assert history.failed.tolist() == [0, 0, 1]
    untouched = FleetHistory.empty(3).after(1, Shown.of([0, 2], [True, False]))
    np.testing.assert_allclose(history.reliability(), untouched.reliability())
    again = FleetHistory.from_arrays(history.arrays())
    assert again.cut.tolist() == [0, 1, 0]


def test_which_tasks_were_cut_off() -> None:
    from anabranch.aggregation.fold import FoldPlan
    from anabranch.client.task import TaskKind
    from anabranch.updates.sections import Section, Sections

    fold = FoldPlan(Sections((Section.count("weight"),)), 4)
    work = Work(TaskKind.TRAIN, 1, (0, 1, 2), {}, fold, task="ab" * 16)
    for limit, expected in ((None, [False, True, False]), (9.0, [False, True, False]),
                            (4.0, [False, False, False])):  # fmt: skip
        collected = Collected(1, fold, 10.0)
        collected.give_out(OpenWork.of(work, 10.0, limit))
        fates = (Fate.MERGED, Fate.TOO_LATE, Fate.LOST)
        for client, fate in enumerate(fates):
            collected.finish(Outcome(client, fate, task=work.task), 15.0)
        assert [collected.cut_off(TaskKey(work.task, c)) for c in range(3)] == expected


def test_confidence_needs_room() -> None:
    with pytest.raises(ValueError, match="over_selection = 2"):
        RoundsPlan(cohort=5, confidence=0.9)
    assert RoundsPlan(cohort=5, over_selection=2, confidence=0.9).asked(100) == 10


def test_a_run_asks_more_clients_where_devices_fail_more(tmp_path: object) -> None:
    def asked(loss: float) -> list[int]:
        plan = Plan.model_validate(
            {
                "name": "enough",
                "seed": 3,
                "data": {"source": "digits", "partition": {"kind": "iid", "clients": 60}},
                "model": {"name": "logistic"},
                "local": {"epochs": 1, "batch_size": 16},
                "rounds": {"count": 10, "cohort": 8, "over_selection": 3.0, "confidence": 0.95,
                           "quorum": 1},
                "evaluation": {"every": 14},
                "runtime": {"kind": "inline", "engine": "numpy", "commit_seconds": 0},
                "devices": {"behaviour": {"availability": 0.9, "permanent_loss": loss, "swing": 1.0,
                                          "session_minutes": 240.0}},
            }
        )  # fmt: skip
        run = run_plan(plan, store=f"{tmp_path}/{loss}")
        fates = [found.client_columns["fate"] for found in run.history if found.round]
        return [sum(fate != "" for fate in column) for column in fates]

    steady, shaky = asked(0.0), asked(0.4)
    assert max(*steady, *shaky) <= 24
    assert np.mean(steady) + 1 < np.mean(shaky)
