"""The plan's table ``[limits]``: what the run must keep to."""

from __future__ import annotations

from pydantic import Field, model_validator

from anabranch.fleet.admission import Admission
from anabranch.plan.evaluation import StopPlan
from anabranch.plan.rounds import RoundsPlan
from anabranch.values import Value

__all__ = ["Limits", "contradiction"]


class Limits(Value):
    """What the run must keep to; a limit that is missed gives exit code 3 and stands in the report.

    A limit never changes the run. What ends a run early stands in ``[stop]``, what a device may be
    asked in ``[admission]``, how large an update may be in ``updates.max_bytes``.
    """

    rounds_to_target: int | None = Field(default=None, ge=1, json_schema_extra={"unit": "rounds"})
    """Most rounds until ``stop.target`` is reached."""
    max_update_bytes: int | None = Field(default=None, ge=1, json_schema_extra={"unit": "bytes"})
    """Most bytes of one client's update."""
    min_participation: float | None = Field(
        default=None, gt=0, le=1, json_schema_extra={"unit": "fraction of the tasks given out"}
    )
    """Smallest fraction of the tasks given out, over the whole run, whose updates were merged, in
    their round or in its late window. Mean completeness and Gini coefficient stand beside it."""
    min_completeness: float | None = Field(
        default=None, gt=0, le=1, json_schema_extra={"unit": "fraction of the local work"}
    )
    """Smallest mean fraction of the planned local work over merged updates."""
    max_gini: float | None = Field(default=None, ge=0, lt=1)
    """Largest Gini coefficient of merged updates over all clients: 0 is an equal share for all."""
    max_battery: float | None = Field(
        default=None, gt=0, le=1, json_schema_extra={"unit": "fraction of a full battery"}
    )
    """Most of a full battery that one task may cost; 0.05 is five per cent."""
    battery_misses: float | None = Field(
        default=None, gt=0, lt=1, json_schema_extra={"unit": "fraction of the tasks"}
    )
    """Share of the tasks that may lie above ``max_battery``; left out, none."""
    max_median_battery: float | None = Field(
        default=None, gt=0, le=1, json_schema_extra={"unit": "fraction of a full battery"}
    )
    """Largest median of what tasks cost of a full battery."""
    max_seconds: float | None = Field(default=None, gt=0, json_schema_extra={"unit": "seconds"})
    """Longest wall time of the run."""

    @model_validator(mode="after")
    def _consistent(self) -> Limits:
        cap, median = self.max_battery, self.max_median_battery
        if cap is not None and median is not None and median > cap:
            raise ValueError(
                f"max_median_battery {median:g} is above max_battery {cap:g}, which every task "
                "shall keep to; lower the median or raise the cap"
            )
        if self.battery_misses and cap is None:
            raise ValueError("battery_misses says how many tasks may miss max_battery; give it too")
        return self


def contradiction(
    limits: Limits,
    rounds: RoundsPlan,
    stop: StopPlan,
    admission: Admission,
    *,
    timed: bool,
    max_bytes: int | None = None,
) -> str:
    """Why the rest of the plan cannot keep to its limits; empty when it can.

    Args:
        limits: the table.
        rounds: how many, and when they close.
        stop: what ends the run.
        admission: what a task may take of a device.
        timed: whether clients have a clock, so that a round closes at its goal.
        max_bytes: most bytes that the plan lets an update have.
    """
    most = limits.rounds_to_target
    if most is not None and stop.target is None:
        return (
            "limits.rounds_to_target needs stop.target, the value to reach (and "
            "stop.at_target = false when the run shall go on)"
        )
    if most is not None and most > rounds.count:
        return (
            f"limits.rounds_to_target is {most}, but the run ends after {rounds.count} rounds; "
            "raise rounds.count or lower the limit"
        )
    cap, allowed = limits.max_battery, admission.max_battery
    if cap is not None and allowed is not None and allowed > cap:
        return (
            f"admission.max_battery lets a task cost {allowed:g} of a battery, but "
            f"limits.max_battery is {cap:g}; lower admission.max_battery"
        )
    largest = limits.max_update_bytes
    if largest is not None and max_bytes is not None and max_bytes > largest:
        return (
            f"updates.max_bytes lets an update have {max_bytes} bytes, but limits.max_update_bytes "
            f"is {largest}; lower updates.max_bytes, or raise the limit"
        )
    share = limits.min_participation
    if share is None or not timed or rounds.late_window or rounds.asynchronous is not None:
        return ""
    if rounds.confidence is None and 1.0 / rounds.over_selection < share:
        return (
            f"over_selection {rounds.over_selection:g} closes a round when 1 of "
            f"{rounds.over_selection:g} clients has answered, so that limits.min_participation "
            f"{share:g} is never reached; allow a late_window, or ask fewer"
        )
    return ""
