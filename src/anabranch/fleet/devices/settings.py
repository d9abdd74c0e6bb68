"""The few numbers that shape a simulated fleet's behaviour. All are assumptions to be varied."""

from __future__ import annotations

from pydantic import Field

from anabranch.values import Value

__all__ = ["DeviceSettings"]


class DeviceSettings(Value):
    """How simulated devices behave, apart from what they are.

    Everything here is hidden from selection and admission.
    """

    start_hour: float = Field(default=18.0, ge=0, lt=24, json_schema_extra={"unit": "hours UTC"})
    """Time of day at which the virtual clock starts."""
    spread: float = Field(default=0.4, ge=0, le=3, json_schema_extra={"unit": "log"})
    """How far real speed and power lie from what the planner believes: standard deviation of the
    logarithm. 0 makes the planner's model perfect, together with ``drift`` and ``noise``."""
    network_spread: float | None = Field(
        default=None, ge=0, le=3, json_schema_extra={"unit": "log"}
    )
    """The same for bandwidth. Left out: the spread of each kind of network."""
    drift: float = Field(default=0.15, ge=0, le=1, json_schema_extra={"unit": "log"})
    """How far real speed, power and bandwidth wander from hour to hour."""
    drift_hours: float = Field(default=6.0, gt=0, json_schema_extra={"unit": "hours"})
    """Time over which they wander."""
    noise: float = Field(default=0.15, ge=0, le=1, json_schema_extra={"unit": "log"})
    """How much two tasks of one device differ at the same time; bandwidth differs twice as much."""
    availability: float = Field(default=0.4, gt=0, le=1, json_schema_extra={"unit": "fraction"})
    """Share of devices that are reachable and willing, over the whole day."""
    swing: float = Field(default=4.0, ge=1, json_schema_extra={"unit": "ratio"})
    """How many times more devices are available at two in the morning, local time, than at two in
    the afternoon."""
    session_minutes: float = Field(default=10.0, gt=0, json_schema_extra={"unit": "minutes"})
    """Mean time for which a device stays available; times are exponential."""
    permanent_loss: float = Field(default=0.03, ge=0, lt=1, json_schema_extra={"unit": "fraction"})
    """Tasks of which nothing is ever heard again."""
    resumable: bool = True
    """Whether transfers go on where they broke off, as over the network, and training from its last
    checkpoint. Without, a task is lost as soon as its device goes away."""
    checkpoint_seconds: float = Field(default=60.0, gt=0, json_schema_extra={"unit": "seconds"})
    """Longest time between checkpoints of local training; at least twenty a task."""
    task_seconds: float = Field(default=3600.0, gt=0, json_schema_extra={"unit": "seconds"})
    """Time after which a client that has not answered counts as lost."""
    charge_start: float = Field(default=22.0, ge=0, lt=24, json_schema_extra={"unit": "local hour"})
    """Usual hour at which devices are plugged in for the night."""
    charge_hours: float = Field(default=7.0, gt=0, lt=24, json_schema_extra={"unit": "hours"})
    """Usual time on the charger."""
    charge_nights: float = Field(default=0.85, ge=0, le=1, json_schema_extra={"unit": "fraction"})
    """Nights on which a device is charged."""
    idle_drain: float = Field(default=0.04, ge=0, le=1, json_schema_extra={"unit": "per hour"})
    """Part of a full battery that its owner uses in an hour away from the charger."""
    charge_rate: float = Field(default=0.4, gt=0, json_schema_extra={"unit": "per hour"})
    """Part of a full battery that an hour on the charger gives."""
    reports_energy: float = Field(default=0.7, ge=0, le=1, json_schema_extra={"unit": "fraction"})
    """Share of devices that can measure what a task cost."""
    report_noise: float = Field(default=0.1, ge=0, le=1, json_schema_extra={"unit": "log"})
    """Error of such a measurement."""
