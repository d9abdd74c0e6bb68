"""How a plan deals its budget to rounds, and what the command says of it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from typer.testing import CliRunner

from anabranch.cli.app import app
from anabranch.plan import Plan, plan_from
from anabranch.plan.dealing import dealt, shown_rounds
from anabranch.plan.promise import promise_of
from anabranch.privacy.accounting import exact_epsilon

CLIENTS, DELTA = 1000, 1e-5
FIXED = {"kind": "fixed", "norm": 1.0}


def plan_with(mechanism: dict[str, object], allocation: dict[str, object], **more: object) -> Plan:
    return plan_from(
        {
            "data": {"source": "arrays"},
            "model": {},
            "rounds": {"count": 10, "cohort": 100},
            "aggregation": {"weighting": {"kind": "uniform"}},
            "evaluation": {"on": "holdout", "every": 1},
            "stop": {"metric": "accuracy"},
            "privacy": {
                "epsilon": 2.0,
                "delta": DELTA,
                "population": "people",
                "mechanism": {"clip": FIXED, **mechanism},
                "allocation": allocation,
            },
            **more,
        }
    )


def test_every_tenth_of_a_run_is_shown() -> None:
    assert shown_rounds(1) == (1,)
    assert shown_rounds(3) == (1, 2, 3)
    assert shown_rounds(100) == (1, *range(10, 101, 10))


def test_uniform_rounds_have_one_noise_and_end_at_the_promise() -> None:
    plan = plan_with({"kind": "gaussian"}, {"kind": "uniform"})
    found = dealt(plan, promise_of(plan, CLIENTS))
    assert len({one.noise for one in found}) == 1
    assert found[-1].epsilon == pytest.approx(2.0, rel=1e-6)
    # After n of 10 rounds: one release of z / sqrt(n).
    for one in found:
        assert one.epsilon == pytest.approx(
            exact_epsilon(one.noise / math.sqrt(one.round), DELTA), rel=1e-6
        )


def test_with_a_limit_a_client_spends_no_more_once_it_has_come_so_often() -> None:
    plan = plan_with({"kind": "gaussian", "participations": 4}, {"kind": "uniform"})
    found = dealt(plan, promise_of(plan, CLIENTS))
    assert found[3].epsilon == pytest.approx(2.0, rel=1e-6)
    assert found[-1].epsilon == pytest.approx(found[3].epsilon, rel=1e-12)
    assert found[2].epsilon < 1.9


def test_decaying_noise_falls_by_the_root_of_the_factor() -> None:
    plan = plan_with({"kind": "gaussian"}, {"kind": "decaying", "factor": 1.21})
    found = dealt(plan, promise_of(plan, CLIENTS))
    assert found[0].noise / found[1].noise == pytest.approx(1.1)
    assert found[-1].epsilon == pytest.approx(2.0, rel=1e-6)


def test_adaptive_rounds_keep_half_while_validation_improves_and_all_once_it_rests() -> None:
    plan = plan_with({"kind": "gaussian"}, {"kind": "adaptive", "patience": 1, "boost": 2.0})
    promise = promise_of(plan, CLIENTS)
    calm, rests = dealt(plan, promise), dealt(plan, promise, resting=True)
    assert len({one.noise for one in calm}) == 1
    assert calm[-1].epsilon < rests[-1].epsilon <= 2.0 * (1 + 1e-6)
    assert min(one.noise for one in rests) < calm[0].noise == rests[0].noise


def test_correlated_and_sampled_rounds_end_at_the_promise() -> None:
    ftrl = plan_with({"kind": "ftrl"}, {"kind": "uniform"})
    sampled = plan_with(
        {"kind": "gaussian", "sampling": "poisson"},
        {"kind": "uniform"},
        selection={"kind": "poisson"},
    )
    for plan in (ftrl, sampled):
        found = dealt(plan, promise_of(plan, CLIENTS))
        spent = [one.epsilon for one in found]
        assert spent == sorted(spent)
        assert spent[0] < 1.9
        assert spent[-1] == pytest.approx(2.0, rel=2e-3)


def test_noise_inside_sites_is_not_dealt_here() -> None:
    plan = plan_with({"kind": "dp-sgd", "batch": 8}, {"kind": "uniform"})
    plan = plan.replace(privacy=plan.privacy.replace(unit="example") if plan.privacy else None)
    assert dealt(plan, promise_of(plan, 4, {"a": 100})) == ()


def test_the_command_shows_the_budget_and_draws_it(tmp_path: Path) -> None:
    plan, page = tmp_path / "plan.toml", tmp_path / "plan.html"
    plan.write_text(
        """schema = 1
[data]
source = "heart"
[model]
[aggregation]
weighting = { kind = "uniform" }
[rounds]
count = 10
[evaluation]
on = "holdout"
[privacy]
epsilon = 1
delta = 1e-5
population = "people"
[privacy.mechanism]
kind = "gaussian"
clip = { kind = "fixed", norm = 1.0 }
[privacy.allocation]
kind = "adaptive"
""",
        "utf-8",
    )
    asked = ["privacy", "plan", str(plan), "--clients", "4", "--parameters", "20"]
    shown = CliRunner().invoke(app, [*asked, "--html", str(page)])
    assert shown.exit_code == 0, shown.output
    assert "Not reachable with this many clients" in shown.output
    assert "validation rests at once" in shown.output
    assert "How this plan deals its budget" in page.read_text("utf-8")
    facts = json.loads(CliRunner().invoke(app, [*asked, "--json"]).output)
    assert [one["round"] for one in facts["budget"]["adaptive, validation never rests"]] == [
        *range(1, 11)
    ]
