"""How each limit of a plan was measured, in words: a number without that is no evidence."""

from __future__ import annotations

import math

from anabranch.observe.events import LimitCheck
from anabranch.observe.view import RunView

__all__ = ["how_measured"]

_HOW = {
    "rounds_to_target": "the first evaluation in which the watched metric reached stop.target",
    "max_update_bytes": "the largest answer of a client, in bytes as it was encoded",
    "min_participation": "updates in the model, those of the late window included, over all tasks "
    "that were given out, without those whose late window was open when the run ended",
    "min_completeness": "mean over merged updates of the share of the planned local work",
    "max_gini": "of merged updates over all enrolled clients",
    "max_seconds": "wall time of all rounds",
}
_BATTERY = ("max_battery", "max_median_battery")


def how_measured(view: RunView, check: LimitCheck) -> str:
    """One phrase for a limit of the run; empty where there is nothing to say.

    Args:
        view: the run.
        check: one of its limits.
    """
    if check.name in _BATTERY:
        return f"energy of each task over the device's full battery: {_energy(view)}"
    return _HOW.get(check.name, "")


def _energy(view: RunView) -> str:
    """Where the energies come from."""
    traces = [task.trace for r in view.rounds for task in r.tasks]
    if any(math.isfinite(trace.spent) for trace in traces):
        return "the simulation's hidden truth, not the prediction"
    if any(math.isfinite(trace.reported) for trace in traces):
        return "as clients reported it, modelled where they did not"
    return "modelled" if traces else "nothing was measured"
