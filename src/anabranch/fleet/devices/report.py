"""What a client reports of its device: once when it joins, and with each task.

Reports are claims: they are checked for sense here, and what cannot be is refused by name, so that
one broken meter never reaches predictions. A client that measures nothing sends nothing.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationError

from anabranch.errors import AnabranchError
from anabranch.values import Value

__all__ = ["DeviceReport", "TaskReport", "device_report", "task_report"]

ClassName = Literal["flagship", "mid", "entry", "ultra-low", "board"]
NetworkName = Literal["2g", "3g", "4g", "5g", "wifi"]


class DeviceReport(Value):
    """What a client says of its device and its state now. Whatever it does not know is left out."""

    device: ClassName | None = None
    """Class of the device."""
    gflops: float | None = Field(default=None, gt=0, le=1e6, json_schema_extra={"unit": "GFLOP/s"})
    """Speed in training, as the learner measured it."""
    watts: float | None = Field(default=None, gt=0, le=1e5, json_schema_extra={"unit": "W"})
    """Power above idle while training."""
    memory_mb: float | None = Field(default=None, gt=0, json_schema_extra={"unit": "MB"})
    """Memory that training may use."""
    battery: float | None = Field(default=None, ge=0, le=1, json_schema_extra={"unit": "fraction"})
    """Level, from 0 to 1."""
    battery_joules: float | None = Field(default=None, gt=0, json_schema_extra={"unit": "J"})
    """Energy of the full battery; left out on the mains."""
    charging: bool | None = None
    """On a charger or on the mains."""
    network: NetworkName | None = None
    """Network in use."""
    metered: bool | None = None
    """Whether bytes cost money."""
    data_left_mb: float | None = Field(default=None, ge=0, json_schema_extra={"unit": "MB"})
    """What is left of today's data budget."""
    utc_offset: float | None = Field(
        default=None, ge=-12, le=14, json_schema_extra={"unit": "hours"}
    )
    """Hours ahead of UTC."""


class TaskReport(Value):
    """What a client measured in one task."""

    download_seconds: float = Field(default=0.0, ge=0, json_schema_extra={"unit": "seconds"})
    """Time of the download."""
    train_seconds: float = Field(default=0.0, ge=0, json_schema_extra={"unit": "seconds"})
    """Time of local training."""
    joules: float | None = Field(default=None, ge=0, json_schema_extra={"unit": "J"})
    """Energy that the task used, from the battery's or the processor's counter."""
    source: Literal["battery", "processor", ""] = ""
    """Which counter."""
    device: DeviceReport = DeviceReport()
    """The state at the end of the task."""


def device_report(document: object, client: str) -> DeviceReport:
    """A checked report of a device.

    Raises:
        AnabranchError: AB-535 a value makes no sense.

    >>> device_report({"battery": 0.4, "network": "3g"}, "va").battery
    0.4
    """
    try:
        return DeviceReport.model_validate(document)
    except ValidationError as error:
        raise _refused(error, client) from None


def task_report(document: object, client: str) -> TaskReport:
    """A checked report of a task.

    Raises:
        AnabranchError: AB-535 a value makes no sense.
    """
    try:
        return TaskReport.model_validate(document)
    except ValidationError as error:
        raise _refused(error, client) from None


def _refused(error: ValidationError, client: str) -> AnabranchError:
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"]) or "the report"
    found = first.get("input")
    shown = f" ({found!r})" if isinstance(found, (int, float)) else ""
    return AnabranchError(
        "AB-535",
        f"client {client!r} reports {place}{shown} of its device: {first['msg'].lower()}.",
        fix="correct the meter or leave the value out; levels go from 0 to 1, speeds and times "
        "are not negative.",
        kept="The report was not used; the class's priors hold for this device.",
    )
