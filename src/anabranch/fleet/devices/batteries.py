"""Batteries and data budgets: the state of a simulated fleet that time and tasks change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from anabranch.fleet.devices.availability import HOUR, SLOT, Presence
from anabranch.fleet.devices.draws import Draws
from anabranch.fleet.devices.profiles import Profiles
from anabranch.fleet.devices.settings import DeviceSettings
from anabranch.fleet.view import Column

__all__ = ["Batteries"]

Rows = NDArray[np.int64]
_LOW = 0.2
_DAY = 24.0
_LONGEST = 7 * 24 * 6
"""Slots that are followed one by one; after a week of them nothing is left of the start."""


@dataclass
class Batteries:
    """Levels and bytes used, by client. Time passes in slots, so asking more often changes nothing.

    Attributes:
        profiles: capacities, time zones, budgets.
        presence: who is on a charger.
        settings: idle drain, charging rate, the hour at which the clock starts.
        seed: of the first levels.
    """

    profiles: Profiles
    presence: Presence
    settings: DeviceSettings
    seed: int
    level: Column = field(init=False)
    _used: Column = field(init=False)
    _day: NDArray[np.int64] = field(init=False)
    _slot: int = 0

    def __post_init__(self) -> None:
        rows = np.arange(len(self.profiles))
        first = 0.3 + 0.65 * Draws.of(self.seed, "device-battery").uniforms(rows)
        self.level = np.where(self.profiles.mains, 1.0, first)
        self._used = np.zeros(len(rows))
        self._day = np.zeros(len(rows), np.int64)

    def advance(self, now: float) -> None:
        """Let time pass up to the slot of ``now``: owners use their devices and charge them.

        An owner also charges whenever the level is low, whatever the hour.
        """
        last = int(now // SLOT)
        first = max(self._slot, last - _LONGEST)
        rows, hours = np.arange(len(self.level)), SLOT / HOUR
        for slot in range(first, last):
            plugged = self.presence.charging(rows, slot * SLOT) | (self.level < _LOW)
            gain = np.where(plugged, self.settings.charge_rate, -self.settings.idle_drain)
            np.clip(self.level + gain * hours, 0.0, 1.0, out=self.level)
        self.level[self.profiles.mains] = 1.0
        self._slot = max(self._slot, last)

    def drain(self, rows: Rows, joules: Column, charging: NDArray[np.bool_]) -> Column:
        """Take ``joules`` out of batteries that are not being charged; the levels afterwards."""
        capacity = self.profiles.battery[rows]
        used = (capacity > 0) & ~charging
        share = np.where(used, joules / np.where(capacity > 0, capacity, 1.0), 0.0)
        self.level[rows] = np.clip(self.level[rows] - share, 0.0, 1.0)
        return self.level[rows]

    def _days(self, rows: Rows, now: float) -> NDArray[np.int64]:
        clock = self.settings.start_hour + self.profiles.utc_offset[rows] + now / HOUR
        return np.floor(clock / _DAY).astype(np.int64)

    def spend(self, rows: Rows, metered_bytes: Column, now: float) -> None:
        """Count bytes over metered networks against the day's budget."""
        today = self._days(rows, now)
        before = np.where(self._day[rows] == today, self._used[rows], 0.0)
        self._used[rows], self._day[rows] = before + metered_bytes, today

    def data_left(self, now: float) -> Column:
        """Bytes of each client's budget that are left today."""
        rows = np.arange(len(self.level))
        used = np.where(self._day == self._days(rows, now), self._used, 0.0)
        return np.asarray(np.maximum(self.profiles.data_budget - used, 0.0))

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Everything that a resumed run needs."""
        return {
            "level": self.level.copy(),
            "used": self._used.copy(),
            "day": self._day.copy(),
            "slot": np.array([self._slot], np.int64),
        }

    def restore(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """The inverse of `arrays`."""
        self.level = arrays["level"].astype(np.float64)
        self._used = arrays["used"].astype(np.float64)
        self._day = arrays["day"].astype(np.int64)
        self._slot = int(arrays["slot"][0])
