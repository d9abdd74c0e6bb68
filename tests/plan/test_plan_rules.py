"""Why the rules are there: what the refused combinations would compute, and what is accepted."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_federation import START, program_of, rows, run_oracle, run_package
from test_algebra_pairs import AXES, BASE

from anabranch.algorithms import ALGORITHMS, Algorithm, Requirement, RoundContext
from anabranch.plan import changed, judge
from anabranch.plan.rules import RULES
from anabranch.plan.rules.probe import averages
from anabranch.testing.algorithm import as_update, folded, update_sections

EVERYONE = [[0, 1, 2, 3]] * 2


def refused_codes(**changes: object) -> list[str]:
    plan = changed(BASE, {key.replace("__", "."): value for key, value in changes.items()})
    return [refusal.code for refusal in judge(plan).refusals]


def test_clipping_would_make_the_step_of_fedexp_too_large() -> None:
    """AB-406: the norms are taken before the stage, FedExP means those after it."""
    clip = [{"kind": "clip", "max_norm": 0.25}]
    plan = changed(BASE, {"algorithm": {"name": "fedexp"}, "updates.stages": clip})
    start = program_of(plan).base
    ours, meant = run_package(plan, EVERYONE[:1]), run_oracle(plan, EVERYONE[:1])
    assert np.linalg.norm(ours - start) > 2 * np.linalg.norm(meant - start)


def test_adaptive_servers_would_make_a_running_variance_negative() -> None:
    """AB-405: the clients' variances fall towards 0, momentum steps past it."""
    plan = changed(
        BASE,
        {
            "algorithm": {"name": "fedavgm", "server_learning_rate": 1.0},
            "model.normalisation": "average",
            "rounds.count": 30,
        },
    )
    sections, state = update_sections(plan.algorithm, 1), plan.algorithm.init(np.float32([4.0]))
    lowest = np.inf
    for number in range(1, 31):
        # Every client reports 0.9 times the old variance plus 0.1 times its own, which is 0.01.
        delta = 0.9 * state.model + np.float32(0.001) - state.model
        total = folded(sections, [as_update({"delta": delta}, 1.0)])
        state = plan.algorithm.server_update(state, total, RoundContext(number, clients=1))
        lowest = min(lowest, float(state.model[0]))
    assert lowest < 0
    assert "AB-405" in [refusal.code for refusal in judge(plan).refusals]


def distance_at_rest(**changes: object) -> float:
    """How far the model rests from the minimiser of the uniform mean, after 300 rounds."""
    full = {"local.batch_size": 0, "local.epochs": 5, "local.learning_rate": 0.02}
    plan = changed(BASE, {**full, **{key.replace("__", "."): v for key, v in changes.items()}})
    federation = oracle.Federation(plan, rows(), START)
    for number in range(1, 301):
        federation.round(number, range(4))
    decay = getattr(plan.local.optimizer, "weight_decay", 0.0)
    H, g = decay * np.eye(4), np.zeros(4)
    for X, y in rows():
        Z = np.column_stack([X, np.ones(len(y))])
        H, g = H + Z.T @ Z / len(y) / 4, g + Z.T @ y / len(y) / 4
    return float(np.linalg.norm(federation.vector() - np.linalg.solve(H, g)))


SCAFFOLD, FEDDYN = {"name": "scaffold"}, {"name": "feddyn", "alpha": 1.0}
DECAY, HEAVY = {"kind": "sgd", "weight_decay": 0.1}, {"kind": "sgd", "momentum": 0.9}
TIGHT = [{"kind": "clip", "max_norm": 0.05}]


def test_where_control_variates_rest() -> None:
    """AB-403: exact with weight decay, lost with momentum or Adam."""
    assert distance_at_rest(algorithm=SCAFFOLD) < 1e-4
    assert distance_at_rest(algorithm=SCAFFOLD, local__optimizer=DECAY) < 1e-4
    with np.errstate(over="ignore", invalid="ignore"):
        assert not distance_at_rest(algorithm=SCAFFOLD, local__optimizer=HEAVY) < 1e3
    assert distance_at_rest(algorithm=SCAFFOLD, local__optimizer={"kind": "adam"}) > 0.1


def test_where_dynamic_regularisation_rests() -> None:
    """No rule: FedDyn divides by no step size, so momentum only solves its problem faster."""
    assert distance_at_rest(algorithm=FEDDYN) < 1e-4
    assert distance_at_rest(algorithm=FEDDYN, local__optimizer=HEAVY) < 1e-4
    assert refused_codes(algorithm=FEDDYN, local__optimizer=HEAVY) == []


def test_where_clipped_updates_rest() -> None:
    """AB-407: FedDyn's server infers its books from clipped updates, SCAFFOLD's does not."""
    assert distance_at_rest(algorithm=FEDDYN, updates__stages=TIGHT) > 0.1
    assert distance_at_rest(algorithm=SCAFFOLD, updates__stages=TIGHT) < 1e-4


@pytest.mark.parametrize(
    ("name", "expected"), [(name, name in ("fedavg", "fedprox", "scaffold")) for name in ALGORITHMS]
)
def test_which_servers_average(name: str, expected: bool) -> None:
    assert averages(ALGORITHMS[name]()) is expected


def test_a_server_that_extrapolates_does_not_average() -> None:
    assert not averages(ALGORITHMS["fedavg"](server_learning_rate=1.5))


def test_weight_decay_goes_with_control_variates() -> None:
    assert (
        refused_codes(
            algorithm={"name": "scaffold"}, local__optimizer={"kind": "sgd", "weight_decay": 0.1}
        )
        == []
    )


def test_left_out_weighting_is_what_the_algorithm_needs() -> None:
    assert changed(BASE, {"algorithm": {"name": "scaffold"}}).weighting.kind == "uniform"
    assert BASE.weighting.kind == "examples"


def test_several_refusals_and_complete_alternatives() -> None:
    """Each alternative satisfies all rules at once, not only its own."""
    plan = changed(
        BASE,
        {
            "algorithm": {"name": "scaffold"},
            "aggregation.weighting": {"kind": "steps"},
            "clients.memory": False,
            "local.optimizer": {"kind": "adam"},
        },
    )
    verdict = judge(plan)
    assert [refusal.code for refusal in verdict.refusals] == ["AB-401", "AB-402", "AB-403"]
    for refusal in verdict.refusals:
        assert refusal.alternatives
        for alternative in refusal.alternatives:
            assert judge(changed(plan, alternative.changes)).accepted


@st.composite
def settings_of_all_axes(draw: st.DrawFn) -> dict[str, object]:
    chosen: dict[str, object] = {}
    for values in AXES.values():
        chosen.update(values[draw(st.sampled_from(sorted(values)))])
    return chosen


@settings(max_examples=60, deadline=None)
@given(settings_of_all_axes())
def test_any_refused_plan_has_an_accepted_way_out(chosen: dict[str, object]) -> None:
    plan = changed(BASE, chosen)
    for refusal in judge(plan).refusals:
        assert refusal.alternatives
        for alternative in refusal.alternatives:
            assert judge(changed(plan, alternative.changes)).accepted


@settings(max_examples=60, deadline=None)
@given(settings_of_all_axes())
def test_any_accepted_plan_agrees_with_the_oracle(chosen: dict[str, object]) -> None:
    plan = changed(BASE, chosen)
    if not judge(plan).accepted:
        return
    cohorts = [[0, 2], [3, 2]] if plan.rounds.cohort == 2 else EVERYONE
    np.testing.assert_allclose(
        run_package(plan, cohorts), run_oracle(plan, cohorts), rtol=2e-5, atol=2e-5
    )


class Forgetful(Algorithm):
    """A user's own algorithm that declares what it needs."""

    def requirement(self) -> Requirement:
        return Requirement(plain_sgd=True)


def test_the_algebra_reads_what_a_users_own_algorithm_declares() -> None:
    plan = BASE.replace(algorithm=Forgetful())
    assert judge(plan).accepted
    (refusal,) = judge(changed(plan, {"local.optimizer": {"kind": "adam"}})).refusals
    assert refusal.code == "AB-403"
    assert "Forgetful" in refusal.reason


def test_rules_have_unique_codes_and_name_their_options() -> None:
    assert len({rule.code for rule in RULES}) == len(RULES)
    assert all(rule.options and rule.title for rule in RULES)


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({"local.clip_norm": 1.0}, ("local.clip_norm",)),
        ({"algorithm": SCAFFOLD, "updates.stages": TIGHT}, ("updates.stages", "algorithm")),
        (
            {"algorithm": FEDDYN, "local.optimizer": {"kind": "adam"}},
            ("local.optimizer", "algorithm"),
        ),
        (
            {"algorithm": {"name": "fednova"}, "updates.stages": TIGHT},
            ("updates.stages", "algorithm"),
        ),
        ({"rounds.cohort": 2, "rounds.over_selection": 1.5}, ("rounds.over_selection",)),
        ({"aggregation.weighting": {"kind": "steps"}}, ("aggregation.weighting",)),
        ({"algorithm": {"name": "fedprox", "mu": 50.0}}, ("algorithm", "local.learning_rate")),
        (
            {"algorithm": {"name": "scaffold"}, "rounds.cohort": 0.1},
            ("rounds.cohort", "rounds.count"),
        ),
    ],
)
def test_notes(changes: dict[str, object], options: tuple[str, ...]) -> None:
    assert options in [note.options for note in judge(changed(BASE, changes)).notes]
