"""What a deployed fleet reports of its devices, and the view that follows from it.

Reports are kept by the client's name. A client that reported nothing is unknown: it counts as
available, at no known speed, so that nothing is predicted and nothing is refused.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from anabranch.fleet.devices.classes import CLASS_NAMES, class_column
from anabranch.fleet.devices.network import NETWORK_NAMES, network_column
from anabranch.fleet.devices.report import DeviceReport, TaskReport
from anabranch.fleet.view import Column, FleetView, unknown_fleet

__all__ = ["ReportBook", "reported_view"]

_UNKNOWN = "unknown"
Codes = NDArray[np.int16]


@dataclass
class ReportBook:
    """The latest reports. Every method may be called by any thread."""

    _devices: dict[str, DeviceReport] = field(default_factory=dict)
    _tasks: dict[tuple[str, str], TaskReport] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def device(self, client: str, report: DeviceReport) -> None:
        """The state of a client's device; what it leaves out keeps its last value."""
        with self._lock:
            before = self._devices.get(client, DeviceReport())
            self._devices[client] = before.replace(**report.model_dump(exclude_none=True))

    def task(self, task: str, client: str, report: TaskReport) -> None:
        """What a client measured in one task; its device's state comes with it."""
        with self._lock:
            self._tasks[task, client] = report
        self.device(client, report.device)

    def taken(self, task: str, client: str) -> TaskReport | None:
        """The report of a task, which is then forgotten here."""
        with self._lock:
            return self._tasks.pop((task, client), None)

    def forget(self, task: str) -> None:
        """Reports of a task that is closed."""
        with self._lock:
            self._tasks = {key: v for key, v in self._tasks.items() if key[0] != task}

    def of(self, client: str) -> DeviceReport | None:
        """What is known of a client's device."""
        with self._lock:
            return self._devices.get(client)


def reported_view(names: Sequence[str], book: ReportBook, now: float, utc_hour: float) -> FleetView:
    """Columns over the clients called ``names``, from what they reported.

    Args:
        names: client identifiers in the order of client numbers.
        book: reports.
        now: the runtime's clock.
        utc_hour: hour of the day, UTC.
    """
    reports = [book.of(name) for name in names]
    view = unknown_fleet(len(names), now)
    known = np.array([report is not None for report in reports])
    if not known.any():
        return view
    given = [report or DeviceReport() for report in reports]
    device = _codes([r.device for r in given], CLASS_NAMES)
    network = _codes([r.network for r in given], NETWORK_NAMES)
    offsets = _numbers(given, lambda r: r.utc_offset, np.zeros(len(names)))
    return replace(
        view,
        classes=(*CLASS_NAMES, _UNKNOWN),
        networks=(*NETWORK_NAMES, _UNKNOWN),
        device=device,
        network=network,
        charging=np.array([r.charging is not False for r in given]),
        metered=_metered(given, network),
        battery=_numbers(given, lambda r: r.battery, np.where(known, np.nan, 1.0)),
        battery_joules=_numbers(
            given, lambda r: r.battery_joules, _prior("battery", device, class_column, np.nan)
        ),
        flops=_numbers(
            given, lambda r: r.gflops, _prior("gflops", device, class_column, np.inf), 1e9
        ),
        watts=_numbers(given, lambda r: r.watts, _prior("watts", device, class_column, 0.0)),
        memory=_numbers(
            given, lambda r: r.memory_mb, _prior("memory", device, class_column, np.inf), 1e6
        ),
        down=_prior("down", network, network_column, np.inf),
        up=_prior("up", network, network_column, np.inf),
        latency=_prior("latency", network, network_column, 0.0),
        joules_down=_prior("joules_down", network, network_column, 0.0),
        joules_up=_prior("joules_up", network, network_column, 0.0),
        joules_session=_prior("joules_session", network, network_column, 0.0),
        utc_offset=offsets,
        local_hour=np.mod(utc_hour + offsets, 24.0),
        data_left=_numbers(given, lambda r: r.data_left_mb, np.full(len(names), np.inf), 1e6),
    )


def _codes(words: Sequence[str | None], names: Sequence[str]) -> Codes:
    place = {name: code for code, name in enumerate(names)}
    return np.array([place.get(word or "", len(names)) for word in words], np.int16)


def _prior(
    what: str, codes: Codes, column: Callable[[str, Codes], Column], otherwise: float
) -> Column:
    """The prior of each class or network; ``otherwise`` where it was not said."""
    names = CLASS_NAMES if column is class_column else NETWORK_NAMES
    said = codes < len(names)
    values = np.full(len(codes), otherwise)
    values[said] = column(what, codes[said])
    if what == "battery":
        values[values == 0.0] = np.nan  # on the mains
    return values


def _numbers(
    reports: Sequence[DeviceReport],
    of: Callable[[DeviceReport], float | None],
    otherwise: Column,
    unit: float = 1.0,
) -> Column:
    found = [of(report) for report in reports]
    known = np.array([value is not None for value in found])
    values = np.array([0.0 if value is None else value * unit for value in found])
    return np.where(known, values, otherwise)


def _metered(reports: Sequence[DeviceReport], network: Codes) -> NDArray[np.bool_]:
    usual = _prior("metered", network, network_column, 0.0) > 0
    said = [report.metered for report in reports]
    return np.array([bool(u) if s is None else s for s, u in zip(said, usual, strict=True)])
