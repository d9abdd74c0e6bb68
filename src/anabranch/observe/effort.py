"""The pictures of what a run took: who took part, bytes, time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from anabranch.observe.svg import BARS_UP_TO, SERIES, Picture, drawing, round_axis
from anabranch.observe.view import RunView
from anabranch.observe.words import bytes_in_words, seconds_in_words, share_in_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["bytes_by_round", "participation", "stacked", "time_by_phase"]

_FATE_COLOURS = {
    "merged": SERIES[0],
    "merged late": SERIES[2],
    "too late": SERIES[1],
    "lost": SERIES[3],
    "refused": SERIES[4],
    "failed": SERIES[5],
}


def participation(view: RunView) -> Picture | None:
    """Clients asked in each round, by what became of them."""
    rounds = [r for r in view.rounds if r.fates]
    if not rounds:
        return None
    names = sorted({f for r in rounds for f in r.fates}, key=lambda f: (f != "merged", f))
    spare = iter(SERIES[1:] * 4)
    series = [
        (name, [r.fates.get(name, 0) for r in rounds], _FATE_COLOURS.get(name) or next(spare))
        for name in names
    ]
    draw = stacked([r.number for r in rounds], series, "clients")
    totals = ", ".join(f"{sum(values)} {name}" for name, values, _ in series)
    said = f"Over {len(rounds)} rounds: {totals}."
    caption = (
        f"Clients asked in each round and what became of their task; "
        f"{share_in_words(view.participation)} of those asked are in the model."
    )
    svg = drawing("participation", said, draw, height=2.6)
    return Picture("participation", "Participation", svg, caption)


def bytes_by_round(view: RunView) -> Picture | None:
    """Payload bytes up and down in each round."""
    rounds = [r for r in view.rounds if r.bytes_up or r.bytes_down]
    if not rounds:
        return None
    largest = max(max(r.bytes_up, r.bytes_down) for r in rounds)
    unit = bytes_in_words(largest).split()[1]
    scale = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}[unit]
    series = [
        ("to the coordinator", [r.bytes_up / scale for r in rounds], SERIES[0]),
        ("to the clients", [r.bytes_down / scale for r in rounds], SERIES[2]),
    ]
    draw = stacked([r.number for r in rounds], series, unit)
    up, down = bytes_in_words(view.bytes_up), bytes_in_words(view.bytes_down)
    said = f"All rounds: {up} to the coordinator, {down} to the clients."
    caption = f"Payload of tasks and updates, without transport overhead. {said}"
    return Picture("bytes", "Bytes", drawing("bytes", said, draw, height=2.6), caption)


def time_by_phase(view: RunView) -> Picture | None:
    """Wall time of each round by phase."""
    rounds = [r for r in view.rounds if r.phases]
    if not rounds:
        return None
    names = list(dict.fromkeys(name for r in rounds for name in r.phases))
    slowest = max(r.seconds or sum(r.phases.values()) for r in rounds)
    scale, unit = (1000.0, "ms") if slowest < 1 else (1.0, "s")
    series = [
        (name, [scale * r.phases.get(name, 0.0) for r in rounds], SERIES[i % len(SERIES)])
        for i, name in enumerate(names)
    ]
    draw = stacked([r.number for r in rounds], series, unit)
    totals = {name: sum(r.phases.get(name, 0.0) for r in rounds) for name in names}
    said = "; ".join(f"{name} {seconds_in_words(total)}" for name, total in totals.items())
    caption = f"Wall time of each round by phase, at the coordinator. In all: {said}."
    return Picture("time", "Time", drawing("time", said, draw, height=2.6), caption)


def stacked(
    rounds: Sequence[int], series: Sequence[tuple[str, Sequence[float], str]], label: str
) -> Callable[[Axes], None]:
    """Stacked bars by round; filled steps when there are too many rounds for bars."""

    def draw(axes: Axes) -> None:
        bottom = np.zeros(len(rounds))
        for name, values, colour in series:
            top = bottom + np.asarray(values, np.float64)
            if len(rounds) <= BARS_UP_TO:
                axes.bar(rounds, top - bottom, bottom=bottom, color=colour, label=name, width=0.8)
            else:
                axes.fill_between(
                    rounds, bottom, top, step="mid", color=colour, label=name, linewidth=0
                )
            bottom = top
        axes.set_ylim(0, max(float(bottom.max()) * 1.05, 1e-9))
        axes.set_ylabel(label)
        axes.grid(visible=False, axis="x")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=min(len(series), 5))
        round_axis(axes, rounds)

    return draw
