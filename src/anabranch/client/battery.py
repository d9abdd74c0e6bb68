"""What a client can measure of its own energy: battery, charger, processor counter.

Read, where they exist: Linux ``/sys/class/power_supply`` (batteries and chargers), the command
``termux-battery-status`` on Android, and the processor's energy counter in
``/sys/class/powercap`` (RAPL; often for the administrator alone). Whatever is missing or makes no
sense is None; nothing is guessed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal

__all__ = ["EnergyMeter", "PowerSources", "PowerState", "termux_status"]

_MICRO = 1e-6
_JOULES_OF_WATT_HOUR = 3600.0
_TERMUX = "termux-battery-status"
_TERMUX_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class PowerState:
    """The state of the power supply. None means: not known.

    Attributes:
        level: of the battery, from 0 to 1; as reported, not corrected.
        charging: on a charger or on the mains.
        joules: energy in the battery now.
        full: energy of the full battery, in joules.
        processor: joules of the processor's counter, which runs over.
        range: joules at which that counter starts again.
    """

    level: float | None = None
    charging: bool | None = None
    joules: float | None = None
    full: float | None = None
    processor: float | None = None
    range: float | None = None


def termux_status() -> str | None:
    """What ``termux-battery-status`` prints; None where the command is not there or fails."""
    path = shutil.which(_TERMUX)
    if path is None:
        return None
    try:
        done = subprocess.run(
            [path], capture_output=True, text=True, timeout=_TERMUX_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


@dataclass(frozen=True)
class PowerSources:
    """Where to look.

    Attributes:
        root: of the system's ``/sys``; another one in tests.
        termux: gives the status on Android, or None.
    """

    root: Path = Path("/sys")
    termux: Callable[[], str | None] = termux_status

    def state(self) -> PowerState:
        """Everything that can be read now."""
        processor, range_ = self._processor()
        found = self._power_supply() or self._android() or PowerState()
        return PowerState(found.level, found.charging, found.joules, found.full, processor, range_)

    # Linux ---------------------------------------------------------------------------------

    def _power_supply(self) -> PowerState | None:
        folder = self.root / "class" / "power_supply"
        supplies = sorted(folder.iterdir()) if folder.is_dir() else []
        own = [s for s in supplies if _text(s / "scope") != "Device"]  # not that of a mouse
        batteries = [s for s in own if _text(s / "type") == "Battery"]
        chargers = [_number(s / "online") for s in own if _text(s / "type") in ("Mains", "USB")]
        plugged = any(chargers) if any(online is not None for online in chargers) else None
        if not batteries:
            return PowerState(charging=plugged) if plugged is not None else None
        states = [_battery(path) for path in batteries]
        charging = [state.charging for state in states if state.charging is not None]
        if charging:
            plugged = any(charging) or bool(plugged)
        return PowerState(
            level=_level(states),
            charging=plugged,
            joules=_sum([state.joules for state in states]),
            full=_sum([state.full for state in states]),
        )

    def _processor(self) -> tuple[float | None, float | None]:
        folder = self.root / "class" / "powercap"
        zones = sorted(folder.glob("intel-rapl:*")) if folder.is_dir() else []
        packages = [zone for zone in zones if zone.name.count(":") == 1]
        energy = [_number(zone / "energy_uj", _MICRO) for zone in packages]
        ranges = [_number(zone / "max_energy_range_uj", _MICRO) for zone in packages]
        # Several packages run over at different times; only one can be followed for sure.
        return (energy[0], ranges[0]) if len(packages) == 1 else (None, None)

    # Android -------------------------------------------------------------------------------

    def _android(self) -> PowerState | None:
        text = self.termux()
        if text is None:
            return None
        try:
            told = json.loads(text)
        except ValueError:
            return None
        if not isinstance(told, dict):
            return None
        level = _of(told, "percentage", 0.01)
        charge, volts = _of(told, "charge_counter", _MICRO), _of(told, "voltage", 1e-3)
        joules = None
        if charge is not None and volts is not None:
            joules = charge * volts * _JOULES_OF_WATT_HOUR
        plugged = told.get("plugged")
        return PowerState(
            level=level,
            charging=plugged != "UNPLUGGED" if isinstance(plugged, str) else None,
            joules=joules,
            full=joules / level if joules and level else None,
        )


def _battery(path: Path) -> PowerState:
    volts = _number(path / "voltage_now", _MICRO)

    def energy(what: str) -> float | None:
        """From watt-hours, or from ampere-hours and the voltage."""
        watt_hours = _number(path / f"energy_{what}", _MICRO)
        if watt_hours is None:
            charge = _number(path / f"charge_{what}", _MICRO)
            watt_hours = None if charge is None or volts is None else charge * volts
        return None if watt_hours is None else watt_hours * _JOULES_OF_WATT_HOUR

    status = _text(path / "status")
    charging = None if status in ("", "Unknown") else status in ("Charging", "Full", "Not charging")
    return PowerState(
        level=_number(path / "capacity", 0.01),
        charging=charging,
        joules=energy("now"),
        full=energy("full"),
    )


def _level(states: list[PowerState]) -> float | None:
    """Of all batteries together, by their energy where that is known."""
    now, full = _sum([s.joules for s in states]), _sum([s.full for s in states])
    if len(states) > 1 and now is not None and full:
        return now / full
    return states[0].level


def _sum(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path, unit: float = 1.0) -> float | None:
    try:
        return float(_text(path)) * unit
    except ValueError:
        return None


def _of(told: dict[str, object], key: str, unit: float) -> float | None:
    value = told.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) * unit


@dataclass
class EnergyMeter:
    """Measures what a piece of work used, as far as the machine can tell::

        with EnergyMeter() as meter:
            train()
        print(meter.joules, meter.source)

    The battery's counter is used while the device runs on it, else the processor's. Both count
    everything that runs on the machine, and a battery's counter is coarse.

    Attributes:
        sources: where to look.
        joules: used; None where nothing could be measured.
        source: which counter; "" for none.
    """

    sources: PowerSources = field(default_factory=PowerSources)
    joules: float | None = None
    source: Literal["battery", "processor", ""] = ""
    _before: PowerState = PowerState()

    def __enter__(self) -> EnergyMeter:
        self._before = self.sources.state()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        before, after = self._before, self.sources.state()
        on_battery = before.charging is False and after.charging is False
        if on_battery and before.joules is not None and after.joules is not None:
            used = before.joules - after.joules
            if used > 0:
                self.joules, self.source = used, "battery"
                return
        if before.processor is not None and after.processor is not None:
            used = after.processor - before.processor
            if used < 0 and before.range is not None:
                used += before.range  # the counter ran over once
            if used >= 0:
                self.joules, self.source = used, "processor"
