"""What devices really do: hidden from selection and admission, and what caps are checked against.

A device's real speed, power and bandwidth are what the planner believes times lognormal factors: a
fixed one for the device, one that wanders over hours, one for the single task. Whoever plans sees
`FleetView` alone; nothing there derives from these factors.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from anabranch.fleet.devices.availability import HOUR
from anabranch.fleet.devices.draws import Draws
from anabranch.fleet.devices.network import network_column
from anabranch.fleet.devices.profiles import Profiles
from anabranch.fleet.devices.settings import DeviceSettings
from anabranch.fleet.view import Codes, Column

__all__ = ["DrawnTruth", "Performance", "Truth"]

Rows = NDArray[np.int64]
_SPEED, _POWER, _NETWORK, _UPLINK = range(4)


@dataclass(frozen=True)
class Performance:
    """What some devices really do in one task. All columns are aligned.

    Attributes:
        flops: FLOP/s.
        watts: above idle, in training.
        radio: factor on the modelled radio energy.
        down, up: bytes a second.
    """

    flops: Column
    watts: Column
    radio: Column
    down: Column
    up: Column


class Truth(Protocol):
    """Knows what devices really do."""

    def perform(self, rows: Rows, network: Codes, now: float, draws: Draws) -> Performance:
        """Of ``rows``, on the network that each uses, in a task given out at ``now``."""
        ...


@dataclass(frozen=True)
class DrawnTruth:
    """Lognormal factors on the profiles.

    Attributes:
        profiles: what the planner believes.
        settings: spreads and drift.
        seed: the plan's public seed.
    """

    profiles: Profiles
    settings: DeviceSettings
    seed: int

    @cached_property
    def _fixed(self) -> Draws:
        return Draws.of(self.seed, "device-truth")

    def perform(self, rows: Rows, network: Codes, now: float, draws: Draws) -> Performance:
        settings, profiles = self.settings, self.profiles
        speed = settings.spread * self._fixed.normals(rows, _SPEED)
        power = settings.spread * self._fixed.normals(rows, _POWER)
        spread = network_column("sigma", network)
        if settings.network_spread is not None:
            spread = np.full(len(rows), settings.network_spread)
        # A bad place is bad in both directions.
        place = self._fixed.normals(rows, _NETWORK)
        uplink = 0.8 * place + 0.6 * self._fixed.normals(rows, _UPLINK)
        own = network == profiles.network[rows]
        down = np.where(own, profiles.down[rows], network_column("down", network))
        up = np.where(own, profiles.up[rows], network_column("up", network))
        return Performance(
            flops=profiles.flops[rows] * self._task(speed, rows, now, draws, _SPEED),
            watts=profiles.watts[rows] * self._task(power, rows, now, draws, _POWER),
            radio=np.exp(power),
            down=down * self._task(spread * place, rows, now, draws, _NETWORK),
            up=up * self._task(spread * uplink, rows, now, draws, _UPLINK),
        )

    def _task(self, fixed: Column, rows: Rows, now: float, draws: Draws, what: int) -> Column:
        """The whole factor of one quantity: fixed, wandering, and of this task alone."""
        noise = self.settings.noise * (2.0 if what in (_NETWORK, _UPLINK) else 1.0)
        own = noise * draws.normals(rows, what)
        return np.asarray(np.exp(fixed + self._drift(rows, now, what) + own))

    def _drift(self, rows: Rows, now: float, what: int) -> Column:
        """Linear between normal numbers at fixed hours, scaled to the same variance throughout."""
        knot, part = divmod(now / (self.settings.drift_hours * HOUR), 1.0)
        wander = Draws.of(self.seed, "device-drift", int(knot))
        after = Draws.of(self.seed, "device-drift", int(knot) + 1)
        mixed = (1.0 - part) * wander.normals(rows, what) + part * after.normals(rows, what)
        return np.asarray(self.settings.drift * mixed / np.hypot(part, 1.0 - part))
