"""Every limit says how it was measured."""

from __future__ import annotations

import math
from dataclasses import fields, replace

from sample_runs import heart_run
from test_device_pictures import task, with_devices

from anabranch.observe.events import LimitCheck
from anabranch.observe.measured import how_measured
from anabranch.observe.report import render_report
from anabranch.observe.view import RunView, TaskView
from anabranch.plan.limits import Limits


def check(name: str) -> LimitCheck:
    return LimitCheck(name, "<= 1", 0.5, True)


def of(*tasks: TaskView) -> RunView:
    view = with_devices()
    return replace(view, rounds=(replace(view.rounds[0], tasks=tasks),))


def test_every_limit_of_a_plan_is_explained() -> None:
    shares = {"battery_misses"}  # belongs to max_battery
    names = {field for field in Limits.model_fields if field not in shares}
    assert all(how_measured(with_devices(), check(name)) for name in names)
    assert {field.name for field in fields(LimitCheck)} >= {"name", "measured"}


def test_where_energies_come_from_is_said() -> None:
    battery, nan = check("max_battery"), math.nan
    assert "hidden truth" in how_measured(with_devices(), battery)
    told = of(task("a", "merged", 0.01, spent=nan))
    assert "clients reported" in how_measured(told, battery)
    guessed = of(task("a", "merged", 0.01, spent=nan, reported=nan))
    assert how_measured(guessed, battery).endswith(": modelled")
    assert "nothing was measured" in how_measured(of(), check("max_median_battery"))


def test_the_report_says_it() -> None:
    text = render_report(heart_run())
    assert "How: updates in the model" in text
    assert "How: the first evaluation" in text
