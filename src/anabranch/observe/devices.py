"""The pictures of devices: who was left on the way and why, timelines, bytes, batteries, clocks.

They are drawn where devices are simulated or report. What a simulation knows (its hidden truth) and
what is only modelled is said in every caption.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from anabranch.fleet.devices.energy import calibration
from anabranch.fleet.selection import Code
from anabranch.observe.effort import stacked
from anabranch.observe.svg import MUTED, SERIES, Picture, drawing, round_axis
from anabranch.observe.view import RoundView, RunView, TaskView
from anabranch.observe.words import bytes_in_words, seconds_in_words, share_in_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "battery_by_class",
    "bytes_by_stage",
    "clocks",
    "funnel",
    "task_timeline",
    "time_by_class",
]

_MERGED = ("merged", "merged late")
_AWAY = (Code.UNAVAILABLE.words, Code.BUSY.words)
_UNDRAWN = (Code.SELECTED.words, Code.NOT_DRAWN.words)
_PHASES = (("download", SERIES[2]), ("train", SERIES[0]), ("idle", MUTED), ("upload", SERIES[1]))
_TASKS_UP_TO = 40


def _tasks(view: RunView) -> list[TaskView]:
    return [task for r in view.rounds for task in r.tasks]


def funnel(view: RunView) -> Picture | None:
    """From the devices that a selection saw to the updates in the model, with every loss."""
    steps = _steps(view.rounds)
    if len(steps) < 2 or not _tasks(view):
        return None
    rows = [(name, count, SERIES[0]) for name, count, _ in steps]
    losses = [(f"– {why}", n, SERIES[3]) for _, _, lost in steps for why, n in lost.items()]
    placed: list[tuple[str, int, str]] = []
    for row, (_, _, lost) in zip(rows, steps, strict=True):
        placed += [row, *losses[: len(lost)]]
        del losses[: len(lost)]

    def draw(axes: Axes) -> None:
        places = range(len(placed))[::-1]
        names, counts, colours = zip(*placed, strict=True)
        axes.barh(places, counts, color=colours, height=0.7)
        axes.set_yticks(places, names)
        for place, count in zip(places, counts, strict=True):
            axes.annotate(f"{count:,}", (count, place), (4, 0), textcoords="offset points",
                          va="center")  # fmt: skip
        axes.set_xlim(0, max(counts) * 1.12)
        axes.set_xlabel("clients, over all selections")
        axes.grid(visible=False, axis="y")

    said = "; ".join(f"{name} {count}" for name, count, _ in placed)
    asked, merged = steps[-2][1], steps[-1][1]
    caption = (
        "From the devices that selections saw to the updates in the model, over all rounds. "
        f"{share_in_words(merged / asked if asked else None)} of those asked are in the model."
    )
    svg = drawing("funnel", said, draw, height=0.8 + 0.27 * len(placed))
    return Picture("funnel", "Where clients are lost", svg, caption)


def _steps(rounds: Sequence[RoundView]) -> list[tuple[str, int, dict[str, int]]]:
    """Name, clients, and those lost before the next step by reason."""
    choices: Counter[str] = Counter()
    fates: Counter[str] = Counter()
    for r in rounds:
        choices.update(r.choices)
        fates.update(r.fates)
    steps: list[tuple[str, int, dict[str, int]]] = []
    if choices:
        away = {name: choices[name] for name in _AWAY if choices[name]}
        known = (*_AWAY, *_UNDRAWN)
        refused = {name: n for name, n in choices.most_common() if name not in known}
        there = choices.total() - sum(away.values())
        drawn = {Code.NOT_DRAWN.words: choices[Code.NOT_DRAWN.words]}
        steps = [
            ("seen", choices.total(), away),
            ("there", there, refused),
            ("eligible", there - sum(refused.values()), {k: v for k, v in drawn.items() if v}),
        ]
    lost = {name: n for name, n in fates.most_common() if name not in _MERGED}
    steps.append(("asked", fates.total(), lost))
    steps.append(("merged", sum(fates[name] for name in _MERGED), {}))
    return steps


def task_timeline(view: RunView) -> Picture | None:
    """What single devices did in a round in the middle of the run."""
    with_tasks = [r for r in view.rounds if r.tasks]
    if not with_tasks:
        return None
    shown = with_tasks[len(with_tasks) // 2]
    tasks = sorted(shown.tasks, key=lambda t: (t.trace.asked, t.trace.seconds))[:_TASKS_UP_TO]
    first = min(task.trace.asked for task in tasks)
    longest = max(task.trace.asked + task.trace.seconds for task in tasks) - first
    scale, unit = (60.0, "minutes") if longest > 180 else (1.0, "seconds")

    def draw(axes: Axes) -> None:
        for place, task in enumerate(tasks):
            start = (task.trace.asked - first) / scale
            for name, colour in _PHASES:
                width = getattr(task.trace, name) / scale
                label = name if place == 0 else "_"
                axes.barh(place, width, left=start, color=colour, height=0.7, label=label)
                start += width
            if task.fate not in _MERGED:
                axes.annotate(task.fate, (start, place), (4, 0), textcoords="offset points",
                              va="center", color=MUTED, size=8)  # fmt: skip
        axes.set_yticks(range(len(tasks)), [f"{t.client} ({t.trace.device})" for t in tasks])
        axes.invert_yaxis()
        axes.set_xlim(0, longest / scale * 1.12)
        axes.set_xlabel(f"{unit} of the {_clock(view)}")
        axes.grid(visible=False, axis="y")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4)

    merged = sum(task.fate in _MERGED for task in tasks)
    said = (
        f"Round {shown.number}: {len(tasks)} tasks, {merged} merged, the longest "
        f"{seconds_in_words(longest)}."
    )
    caption = f"{said} Idle is time in which a device was away; it is drawn in one piece."
    svg = drawing("timeline", said, draw, height=1.2 + 0.22 * len(tasks))
    return Picture("timeline", "What devices did", svg, caption)


def _clock(view: RunView) -> str:
    virtual = any(r.virtual is not None for r in view.rounds)
    return "virtual clock" if virtual else "coordinator's clock"


def bytes_by_stage(view: RunView) -> Picture | None:
    """What went over the networks in each round: useful, in vain, and again."""
    rounds = [r for r in view.rounds if r.tasks]
    if not rounds:
        return None
    parts = [_carried(r) for r in rounds]
    largest = max(sum(part.values()) for part in parts)
    unit = bytes_in_words(largest).split()[1]
    scale = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}[unit]
    colours = (SERIES[2], SERIES[0], SERIES[3], SERIES[1])
    series = [
        (name, [part[name] / scale for part in parts], colour)
        for name, colour in zip(parts[0], colours, strict=True)
    ]
    totals = {name: sum(part[name] for part in parts) for name in parts[0]}
    said = "; ".join(f"{name}: {bytes_in_words(total)}" for name, total in totals.items())
    draw = stacked([r.number for r in rounds], series, unit)
    caption = f"What went over the networks of devices in each round. In all: {said}."
    svg = drawing("stages", said, draw, height=2.6)
    return Picture("stages", "Bytes by stage", svg, caption)


def _carried(r: RoundView) -> dict[str, int]:
    down = sum(task.trace.bytes_down for task in r.tasks)
    merged = sum(t.trace.bytes_up for t in r.tasks if t.fate in _MERGED)
    vain = sum(t.trace.bytes_up for t in r.tasks if t.fate not in _MERGED)
    again = max(merged - r.bytes_up, 0)
    return {
        "downloads": down,
        "updates in the model": merged - again,
        "updates that came to nothing": vain,
        "sent again after interruptions": again,
    }


def battery_by_class(view: RunView) -> Picture | None:
    """Part of a full battery that a task used, by class of the device."""
    tasks = [task for task in _tasks(view) if np.isfinite(task.trace.share)]
    if not tasks:
        return None
    groups = _groups(tasks)

    def draw(axes: Axes) -> None:
        for place, (_, of_class) in enumerate(groups):
            shares = 100 * np.array([task.trace.share for task in of_class])
            low, middle, high = np.quantile(shares, [0.1, 0.5, 0.9])
            axes.plot([low, high], [place, place], color=SERIES[0], linewidth=7, alpha=0.35)
            axes.scatter([middle], [place], color=SERIES[0], s=44, zorder=2)
            axes.scatter([shares.max()], [place], color=SERIES[3], marker="|", s=120, zorder=2)
        axes.set_yticks(range(len(groups)), [f"{name} ({len(of)})" for name, of in groups])
        axes.set_ylim(-0.6, len(groups) - 0.4)
        axes.set_xlim(left=0)
        axes.set_xlabel("per cent of a full battery a task")
        axes.grid(visible=False, axis="y")

    every = np.array([task.trace.share for task in tasks])
    said = (
        f"{len(tasks)} tasks on batteries: median {np.median(every):.2%}, largest "
        f"{every.max():.2%}, {np.mean(every > 0.05):.2%} above 5 %."
    )
    caption = (
        f"{said} The band goes from the 10th to the 90th percentile, the stroke is the largest. "
        f"{_source(tasks)}"
    )
    height = 1.2 + 0.4 * len(groups)
    svg = drawing("battery", said, draw, height=height)
    return Picture("battery", "Battery by device class", svg, caption)


def _groups(tasks: Sequence[TaskView]) -> list[tuple[str, list[TaskView]]]:
    names = sorted({task.trace.device for task in tasks})
    return [(name or "unknown", [t for t in tasks if t.trace.device == name]) for name in names]


def _source(tasks: Sequence[TaskView]) -> str:
    """Where the energy comes from, and how far the model is from what was measured."""
    if any(np.isfinite(task.trace.spent) for task in tasks):
        origin = "Energy is that of the simulation's hidden truth, not of the prediction."
    elif any(np.isfinite(task.trace.reported) for task in tasks):
        origin = "Energy is what clients reported, and modelled where they did not."
    else:
        origin = "Energy is modelled."
    modelled = np.array([task.trace.modelled for task in tasks])
    reported = np.array([task.trace.reported for task in tasks])
    found = calibration(modelled, reported)
    if found is None:
        return origin
    return (
        f"{origin} In {found.tasks} tasks with a report, reported over modelled energy has median "
        f"{found.ratio:.2f} (10th to 90th percentile {found.low:.2f} to {found.high:.2f}); the "
        f"model's median error is {found.error:.0%}."
    )


def time_by_class(view: RunView) -> Picture | None:
    """Mean seconds of a task in each phase, by class of the device."""
    tasks = [task for task in _tasks(view) if task.fate in _MERGED]
    if not tasks:
        return None
    groups = _groups(tasks)

    def draw(axes: Axes) -> None:
        left = np.zeros(len(groups))
        for name, colour in _PHASES:
            means = np.array(
                [np.mean([getattr(t.trace, name) for t in of_class]) for _, of_class in groups]
            )
            axes.barh(range(len(groups)), means, left=left, color=colour, label=name, height=0.7)
            left += means
        axes.set_yticks(range(len(groups)), [f"{name} ({len(of)})" for name, of in groups])
        axes.set_xlabel(f"seconds of the {_clock(view)}, mean of a merged task")
        axes.grid(visible=False, axis="y")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4)

    said = "; ".join(
        f"{name}: {seconds_in_words(float(np.mean([t.trace.seconds for t in of_class])))}"
        for name, of_class in groups
    )
    caption = f"Mean time of a merged task by class of the device: {said}."
    svg = drawing("class-time", said, draw, height=1.3 + 0.4 * len(groups))
    return Picture("class-time", "Time by device class", svg, caption)


def clocks(view: RunView) -> Picture | None:
    """How late it was on the virtual clock, and on the wall, after each round."""
    timed = [(r.number, r.virtual) for r in view.rounds if r.virtual is not None]
    if not timed:
        return None
    numbers = [number for number, _ in timed]
    virtual = np.array([seconds for _, seconds in timed])
    real = np.cumsum([r.seconds for r in view.rounds if r.virtual is not None])
    scale, unit = (3600.0, "hours") if virtual[-1] > 7200 else (60.0, "minutes")

    def draw(axes: Axes) -> None:
        axes.plot(numbers, virtual / scale, color=SERIES[0])
        axes.set_ylabel(f"virtual {unit}", color=SERIES[0])
        axes.set_ylim(bottom=0)
        round_axis(axes, numbers)
        other = axes.twinx()
        other.plot(numbers, real, color=SERIES[1], linestyle="--")
        other.set_ylabel("seconds of this machine", color=SERIES[1])
        other.set_ylim(bottom=0)
        other.grid(visible=False)

    said = (
        f"{seconds_in_words(float(virtual[-1]))} of virtual time in "
        f"{seconds_in_words(float(real[-1]))} of this machine."
    )
    caption = f"{said} Virtual time is that of devices (solid); real time is the simulator's."
    svg = drawing("clocks", said, draw, height=2.6)
    return Picture("clocks", "Virtual and real time", svg, caption)
