"""Selection, admission and late updates in words, for the explanation of a plan."""

from __future__ import annotations

from collections.abc import Iterator

from anabranch.fleet.admission import Admission
from anabranch.plan.schema import Plan

__all__ = ["selection_words"]

_WHO = {
    "uniform": "Every client that may be asked has the same chance.",
    "weighted": "Clients with more examples are asked more often.",
    "poisson": "Every enrolled client is drawn by a coin of its own.",
    "power-of-choice": "Of some candidates those with the largest loss are asked.",
    "oort": "Clients with a large loss that answer fast are preferred; others are explored.",
    "utility": "Devices that answer in time and can afford it are preferred.",
    "stratified": "Every class, region or network gets its share.",
}


def selection_words(plan: Plan) -> Iterator[str]:
    """Who is preferred, what nobody is spared, and what a device is not asked."""
    selector = plan.selection
    if plan.rounds.everyone and selector.kind == "uniform":
        yield from _admission(plan.admission)
        return
    yield _WHO.get(selector.kind, f"A selector of your own decides: {type(selector).__name__}.")
    if selector.floor_rounds is not None:
        yield (
            f"Everybody that may be asked is asked at least once in {selector.floor_rounds} rounds."
        )
    if selector.separation > 1:
        yield f"A client is not asked again before {selector.separation} rounds have passed."
    if selector.max_participations is not None:
        yield f"A client gives at most {selector.max_participations} updates."
    yield from _admission(plan.admission)


def _admission(rules: Admission) -> Iterator[str]:
    only = [
        words
        for flag, words in (
            (rules.charging_only, "are charging"),
            (rules.unmetered_only, "are on an unmetered connection"),
        )
        if flag
    ]
    if only:
        yield f"Devices are asked only while they {' and '.join(only)}."
    if rules.quiet_hours is not None:
        start, end = rules.quiet_hours
        yield f"No device is asked between {start:g} and {end:g} o'clock, local time."
    caps = [
        f"{rules.max_battery:.3g} of a full battery" if rules.max_battery is not None else "",
        f"{rules.max_joules:g} joules" if rules.max_joules is not None else "",
        f"{rules.max_seconds:g} seconds" if rules.max_seconds is not None else "",
    ]
    known = [cap for cap in caps if cap]
    if known:
        less = "gets less work" if rules.adapt else "is not asked"
        yield f"A task takes at most {', '.join(known)}; a device that would need more {less}."
