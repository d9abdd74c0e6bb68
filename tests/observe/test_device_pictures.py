"""Pictures of devices say what the timelines say."""

from __future__ import annotations

import math
from dataclasses import replace

from sample_runs import heart_run

from anabranch.fleet.selection import Code
from anabranch.fleet.timeline import TaskTrace
from anabranch.observe.devices import (
    battery_by_class,
    bytes_by_stage,
    clocks,
    funnel,
    task_timeline,
    time_by_class,
)
from anabranch.observe.figures import pictures
from anabranch.observe.report import render_report
from anabranch.observe.view import RoundView, RunView, TaskView


def task(client: str, fate: str, share: float, **changes: float) -> TaskView:
    trace = TaskTrace(
        asked=60.0,
        download=1.0,
        train=8.0,
        upload=2.0,
        bytes_down=4000,
        bytes_up=1100,
        modelled=10.0,
        reported=20.0,
        spent=21.0,
        share=share,
        device="entry" if math.isfinite(share) else "board",
    )
    return TaskView(client, fate, replace(trace, **changes))


def with_devices() -> RunView:
    """One round of four tasks: two merged, one late, one lost."""
    tasks = (
        task("a", "merged", 0.01),
        task("b", "merged late", 0.03),
        task("c", "too late", 0.08, idle=30.0),
        task("d", "lost", math.nan, bytes_up=0),
    )
    choices = {
        Code.SELECTED.words: 4,
        Code.NOT_DRAWN.words: 6,
        Code.UNAVAILABLE.words: 7,
        Code.LOW_BATTERY.words: 3,
    }
    only = RoundView(
        1,
        "partial",
        fates={"merged": 1, "merged late": 1, "too late": 1, "lost": 1},
        seconds=0.5,
        bytes_up=2000,
        contributors=2,
        cohort=4,
        virtual=120.0,
        tasks=tasks,
        choices=choices,
    )
    return replace(heart_run(1), rounds=(only,))


def test_the_funnel_counts_every_loss() -> None:
    picture = funnel(with_devices())
    assert picture is not None
    said = picture.svg
    for words in (
        "seen 20",
        "– not available 7",
        "there 13",
        "– battery too low 3",
        "eligible 10",
        "– eligible, not drawn 6",
        "asked 4",
        "– too late 1",
        "– lost 1",
        "merged 2",
    ):
        assert words in said
    assert "50.0 %" in picture.caption


def test_bytes_are_told_apart_by_what_came_of_them() -> None:
    picture = bytes_by_stage(with_devices())
    assert picture is not None
    # Two updates of 1000 bytes in the model went over the network with 100 more each.
    assert "updates in the model: 2.0 kB" in picture.caption
    assert "sent again after interruptions: 200 B" in picture.caption
    assert "updates that came to nothing: 1.1 kB" in picture.caption
    assert "downloads: 16.0 kB" in picture.caption


def test_batteries_say_what_was_measured_and_what_was_modelled() -> None:
    picture = battery_by_class(with_devices())
    assert picture is not None
    assert "3 tasks on batteries: median 3.00%, largest 8.00%, 33.33% above 5 %" in picture.caption
    assert "hidden truth" in picture.caption
    assert "reported over modelled energy has median 2.00" in picture.caption
    modelled = [
        replace(t, trace=replace(t.trace, spent=math.nan, reported=math.nan))
        for t in with_devices().rounds[0].tasks
    ]
    view = replace(
        with_devices(), rounds=(replace(with_devices().rounds[0], tasks=tuple(modelled)),)
    )
    picture = battery_by_class(view)
    assert picture is not None
    assert picture.caption.endswith("Energy is modelled.")


def test_times_and_clocks() -> None:
    view = with_devices()
    timeline, by_class, both = task_timeline(view), time_by_class(view), clocks(view)
    assert timeline is not None
    assert by_class is not None
    assert both is not None
    assert "Round 1: 4 tasks, 2 merged, the longest 41 s" in timeline.caption.replace("41.0", "41")
    assert "entry: 11" in by_class.caption
    assert "2 min" in both.caption


def test_runs_without_devices_have_none_of_these() -> None:
    view = heart_run(3)
    drawn = (funnel, bytes_by_stage, battery_by_class, task_timeline, time_by_class, clocks)
    assert [draw(view) for draw in drawn] == [None] * 6
    assert "Virtual time" not in render_report(view)


def test_the_report_shows_virtual_time_apart() -> None:
    view = with_devices()
    names = {picture.name for picture in pictures(view)}
    assert {"funnel", "timeline", "stages", "battery", "class-time", "clocks"} <= names
    assert "on the clock of the simulated devices" in render_report(view)
