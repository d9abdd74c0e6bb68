"""Device reports on the wire: flat messages of words, booleans and integers in small units."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated

from pydantic import Field

from anabranch.coordinator.runtime import Outcome, Work
from anabranch.fleet.devices.report import DeviceReport, TaskReport, device_report, task_report
from anabranch.fleet.devices.reported import ReportBook, reported_view
from anabranch.fleet.timeline import TaskTrace
from anabranch.fleet.view import FleetView
from anabranch.values import Value

__all__ = ["DeviceMessage", "TaskMessage", "TaskReports", "deployed_trace", "utc_hour"]

Amount = Annotated[int, Field(gt=-(2**53), lt=2**53)]
Word = Annotated[str, Field(max_length=32)]

_FIELDS = (
    ("gflops", "megaflops", 1e3),
    ("watts", "milliwatts", 1e3),
    ("memory_mb", "memory_bytes", 1e6),
    ("battery", "battery_permille", 1e3),
    ("battery_joules", "battery_millijoules", 1e3),
    ("data_left_mb", "data_left_bytes", 1e6),
    ("utc_offset", "utc_offset_minutes", 60.0),
)
"""Field of the report, field of the message, and how many of the latter make one of the former."""


class DeviceMessage(Value):
    """A client's device; what it does not know is null or left out."""

    device: Word = ""
    network: Word = ""
    charging: bool | None = None
    metered: bool | None = None
    megaflops: Amount | None = None
    """Floating-point operations a microsecond in training, to two digits."""
    milliwatts: Amount | None = None
    memory_bytes: Amount | None = None
    battery_permille: Amount | None = None
    battery_millijoules: Amount | None = None
    """Of the full battery."""
    data_left_bytes: Amount | None = None
    utc_offset_minutes: Amount | None = None

    @staticmethod
    def of(report: DeviceReport) -> DeviceMessage:
        """The message of a report."""
        amounts = {
            message: max(round(value * units), 1 if value > 0 else 0)
            for name, message, units in _FIELDS
            if (value := getattr(report, name)) is not None
        }
        return DeviceMessage(
            device=report.device or "",
            network=report.network or "",
            charging=report.charging,
            metered=report.metered,
            **amounts,
        )

    def report(self, client: str) -> DeviceReport:
        """The report, checked.

        Raises:
            AnabranchError: AB-535 a value makes no sense.
        """
        amounts = {
            name: value / units
            for name, message, units in _FIELDS
            if (value := getattr(self, message)) is not None
        }
        words = {"device": self.device, "network": self.network}
        flags = {"charging": self.charging, "metered": self.metered}
        said = {k: v for k, v in (*words.items(), *flags.items()) if v not in ("", None)}
        return device_report({**said, **amounts}, client)


class TaskMessage(DeviceMessage):
    """What a client measured in one task, and the state of its device after it."""

    download_milliseconds: Amount = 0
    train_milliseconds: Amount = 0
    millijoules: Amount | None = None
    source: Word = ""
    """Which counter: ``battery`` or ``processor``."""

    @staticmethod
    def of_task(report: TaskReport) -> TaskMessage:
        """The message of a report."""
        return TaskMessage(
            **DeviceMessage.of(report.device).model_dump(),
            download_milliseconds=round(report.download_seconds * 1000),
            train_milliseconds=round(report.train_seconds * 1000),
            millijoules=None if report.joules is None else round(report.joules * 1000),
            source=report.source,
        )

    def task_report(self, client: str) -> TaskReport:
        """The report, checked.

        Raises:
            AnabranchError: AB-535 a value makes no sense.
        """
        joules = None if self.millijoules is None else self.millijoules / 1000
        document = {
            "download_seconds": self.download_milliseconds / 1000,
            "train_seconds": self.train_milliseconds / 1000,
            "joules": joules,
            "source": self.source,
            "device": self.report(client),
        }
        return task_report(document, client)


@dataclass
class TaskReports:
    """Joins reports to the outcomes of one run.

    Attributes:
        names: client identifiers in the order of client numbers.
        book: reports of all clients.
    """

    names: Sequence[str]
    book: ReportBook
    _open: dict[str, tuple[Mapping[int, int], Mapping[int, float]]] = field(default_factory=dict)

    def given_out(self, work: Work) -> None:
        """Remember what the timelines of this work need."""
        down = {client: work.bytes_to(client) for client in work.clients}
        known, fractions = self._open.get(work.task, ({}, {}))
        self._open[work.task] = ({**known, **down}, {**fractions, **work.fractions})

    def closed(self, task: str | None) -> None:
        """The work is over, or all of it."""
        for name in [name for name in self._open if task in (None, name)]:
            del self._open[name]
            self.book.forget(name)

    def view(self, now: float) -> FleetView:
        """Columns over the run's clients."""
        return reported_view(self.names, self.book, now, utc_hour())

    def traced(self, outcome: Outcome, now: float) -> Outcome:
        """The outcome with its timeline, where the client reported one."""
        report = self.book.taken(outcome.task, self.names[outcome.client])
        if report is None or outcome.task not in self._open:
            return outcome
        down, fractions = self._open[outcome.task]
        view, client = self.view(now), outcome.client
        bytes_down = down.get(client, 0)
        radio = (
            view.joules_session[client]
            + view.joules_down[client] * bytes_down
            + view.joules_up[client] * outcome.bytes_up
        )
        trace = deployed_trace(
            report,
            now=now,
            seconds=outcome.seconds,
            bytes_down=bytes_down,
            bytes_up=outcome.bytes_up,
            fraction=fractions.get(client, 1.0),
            modelled=float(view.watts[client] * report.train_seconds + radio),
            full=float(view.battery_joules[client]),
        )
        return replace(outcome, trace=trace)


def deployed_trace(
    report: TaskReport,
    *,
    now: float,
    seconds: float,
    bytes_down: int,
    bytes_up: int,
    fraction: float,
    modelled: float,
    full: float,
) -> TaskTrace:
    """The timeline of a task on a real device.

    Args:
        report: of the client.
        now: when its answer was looked at, on the coordinator's clock.
        seconds: from the offer to the answer, as the coordinator measured it.
        bytes_down, bytes_up: of the download and the answer.
        fraction: of the planned local work that was asked.
        modelled: joules that the coordinator's model gives for the same work.
        full: joules of the full battery; NaN where not known.
    """
    device = report.device
    known = math.nan if report.joules is None else report.joules
    joules = known if math.isfinite(known) else modelled
    rest = max(seconds - report.download_seconds - report.train_seconds, 0.0)
    speed = device.gflops * 1e9 if device.gflops is not None else math.nan
    return TaskTrace(
        asked=now - seconds,
        download=report.download_seconds,
        train=report.train_seconds,
        upload=rest,
        bytes_down=bytes_down,
        bytes_up=bytes_up,
        modelled=modelled,
        reported=known,
        share=joules / full if full > 0 else math.nan,
        level=math.nan if device.battery is None else device.battery,
        work=fraction,
        flops=speed * report.train_seconds,
        device=device.device or "",
        network=device.network or "",
        charging=bool(device.charging),
    )


def utc_hour() -> float:
    """Hour of the day, UTC."""
    now = time.gmtime()
    return now.tm_hour + now.tm_min / 60
