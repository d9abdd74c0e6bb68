"""When devices are there: correlated over the day, within a region, and from task to task.

A device is available in a ten-minute slot with the probability

    logit p = logit p(local hour) + its own habit + what its region does at that time

with p(hour) a cosine whose peak is at two in the morning, as production systems see it (Bonawitz
et al. 2019: about four times more devices at night). Times of a session are exponential; a device
that goes away comes back after a time that keeps the share p. Nothing is remembered: every answer
is a pure function of (seed, client, time), so a simulation can start anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from anabranch.fleet.devices.draws import Draws
from anabranch.fleet.devices.profiles import Profiles
from anabranch.fleet.devices.settings import DeviceSettings
from anabranch.fleet.view import Column, Flags

__all__ = ["HOUR", "SLOT", "DailyPresence", "Presence", "local_hour"]

HOUR = 3600.0
SLOT = 600.0
"""Seconds of a slot; batteries and availability change at its border."""

_PEAK = 2.0
_HABIT = 1.0
_TOGETHER = 0.5
_LONGEST_AWAY = 12.0 * HOUR
Rows = NDArray[np.int64]


def local_hour(start_hour: float, utc_offset: Column, times: Column | float) -> Column:
    """Local hour of the day at ``times`` of a clock that starts at ``start_hour`` UTC.

    >>> local_hour(18.0, np.array([0.0, 5.5]), 3600.0).tolist()
    [19.0, 0.5]
    """
    return np.asarray((start_hour + utc_offset + np.asarray(times) / HOUR) % 24.0)


class Presence(Protocol):
    """When devices are available and on a charger."""

    def available(self, rows: Rows, now: float) -> Flags:
        """Which of ``rows`` are reachable and willing at ``now``."""
        ...

    def charging(self, rows: Rows, now: float) -> Flags:
        """Which of ``rows`` are on a charger at ``now``, the mains included."""
        ...

    def session(self, rows: Rows, times: Column, draws: Draws, lane: int) -> Column:
        """Seconds for which each stays from its time on."""
        ...

    def away(self, rows: Rows, times: Column, draws: Draws, lane: int) -> Column:
        """Seconds after which each that goes away at its time is back."""
        ...


@dataclass(frozen=True)
class DailyPresence:
    """The model above.

    Attributes:
        profiles: time zones and regions.
        settings: shares, swing, sessions, charging habits.
        seed: the plan's public seed.
    """

    profiles: Profiles
    settings: DeviceSettings
    seed: int

    @cached_property
    def _habits(self) -> Column:
        rows = np.arange(len(self.profiles))
        return Draws.of(self.seed, "device-habit").normals(rows) * _HABIT

    @cached_property
    def _plugged(self) -> tuple[Column, Column]:
        """Each device's own hour of plugging in, and hours on the charger."""
        draws, rows = Draws.of(self.seed, "device-charger"), np.arange(len(self.profiles))
        start = self.settings.charge_start + 1.5 * draws.normals(rows, 0)
        hours = np.clip(self.settings.charge_hours + 1.5 * draws.normals(rows, 1), 1.0, 23.0)
        return start, hours

    def probability(self, rows: Rows, times: Column | float) -> Column:
        """Of being available, before what the region does at that time."""
        hours = local_hour(self.settings.start_hour, self.profiles.utc_offset[rows], times)
        mean, swing = self.settings.availability, self.settings.swing
        wave = (swing - 1.0) / (swing + 1.0) * np.cos(2.0 * np.pi * (hours - _PEAK) / 24.0)
        base = np.clip(mean * (1.0 + wave), 0.001, 0.999)
        if mean >= 1.0:  # always there, whatever the hour
            return np.ones(len(rows))
        return np.asarray(1.0 / (1.0 + (1.0 - base) / base * np.exp(-self._habits[rows])))

    def available(self, rows: Rows, now: float) -> Flags:
        slot = int(now // SLOT)
        share = self.probability(rows, slot * SLOT)
        block = np.full(len(self.profiles.regions), int(slot * SLOT // HOUR))
        names = np.arange(len(self.profiles.regions))
        regional = Draws.of(self.seed, "device-region").normals(names, block) * _TOGETHER
        odds = np.exp(-regional[self.profiles.region[rows]])
        share = 1.0 / (1.0 + (1.0 - share) / share * odds)
        return np.asarray(Draws.of(self.seed, "device-presence", slot).uniforms(rows) < share)

    def charging(self, rows: Rows, now: float) -> Flags:
        start, hours = self._plugged
        clock = self.settings.start_hour + self.profiles.utc_offset[rows] + now / HOUR
        days, phase = np.divmod(clock - start[rows], 24.0)
        night = Draws.of(self.seed, "device-night").uniforms(rows, days.astype(np.int64))
        plugged = (phase < hours[rows]) & (night < self.settings.charge_nights)
        return np.asarray(plugged | self.profiles.mains[rows])

    def session(self, rows: Rows, times: Column, draws: Draws, lane: int) -> Column:
        if self.settings.availability >= 1.0:
            return np.full(len(rows), np.inf)
        return draws.exponentials(rows, lane) * self.settings.session_minutes * 60.0

    def away(self, rows: Rows, times: Column, draws: Draws, lane: int) -> Column:
        share = np.clip(self.probability(rows, times), 0.02, 0.999)
        mean = self.settings.session_minutes * 60.0 * (1.0 - share) / share
        return np.asarray(np.minimum(draws.exponentials(rows, lane) * mean, _LONGEST_AWAY))
