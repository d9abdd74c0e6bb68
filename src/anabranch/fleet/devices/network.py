"""Kinds of network: how fast, how far, what a byte and a session cost in joules.

Every number carries its mark. The radio model is the usual one of three parts (Balasubramanian et
al. 2009): energy of the bytes, and energy of a session that is spent whatever is sent (promotion
of the radio before, its tail after).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from anabranch.fleet.devices.marks import Prior, assumed, measured, quoted
from anabranch.fleet.view import Column
from anabranch.values import Value

__all__ = ["NETWORKS", "NETWORK_NAMES", "Network", "network_column"]

_HUANG = "Huang et al. 2012, A close examination of performance and power of 4G LTE networks"
_BALA = "Balasubramanian et al. 2009, Energy consumption in mobile phones"
_FLASH = "quantiles of the WiFi rates of 19 users in the FLASH repository"
_RURAL = "planning value for rural sub-Saharan Africa and South Asia"
_OOKLA = "order of Ookla medians of Guinea, Kenya and Nigeria, 2019 to 2024"


class Network(Value):
    """One kind of network, as the planner assumes it before a device has reported anything."""

    down: Prior
    """Median download rate, megabits a second."""
    up: Prior
    """Median upload rate, megabits a second."""
    sigma: Prior
    """Spread of rates between devices: standard deviation of the logarithm."""
    latency: Prior
    """Time of one round trip, seconds."""
    joules_down: Prior
    """Radio energy of a megabyte received, joules."""
    joules_up: Prior
    """Radio energy of a megabyte sent, joules."""
    joules_session: Prior
    """Radio energy of a session besides its bytes, joules."""
    metered: bool
    """Whether bytes cost money."""


NETWORKS: Mapping[str, Network] = MappingProxyType(
    {
        "2g": Network(
            down=assumed(0.1, "Mbit/s", "EDGE, half of its usual rate"),
            up=assumed(0.05, "Mbit/s", "EDGE, half of its usual rate"),
            sigma=assumed(0.6, "log", "no measurements at hand"),
            latency=assumed(0.7, "s", "EDGE"),
            joules_down=quoted(36.0, "J/MB", _BALA),
            joules_up=quoted(36.0, "J/MB", _BALA),
            joules_session=quoted(3.2, "J", f"{_BALA}: 1.7 J and 6 s at 0.25 W"),
            metered=True,
        ),
        "3g": Network(
            down=assumed(2.0, "Mbit/s", _OOKLA),
            up=assumed(1.0, "Mbit/s", _RURAL),
            sigma=assumed(0.8, "log", "spread between places and hours"),
            latency=assumed(0.2, "s", "HSPA"),
            joules_down=quoted(4.2, "J/MB", f"{_HUANG}: model at 2 Mbit/s"),
            joules_up=quoted(13.5, "J/MB", f"{_HUANG}: model at 1 Mbit/s"),
            joules_session=quoted(7.4, "J", _HUANG),
            metered=True,
        ),
        "4g": Network(
            down=assumed(8.0, "Mbit/s", _OOKLA),
            up=assumed(3.0, "Mbit/s", _OOKLA),
            sigma=assumed(0.8, "log", "spread between places and hours"),
            latency=assumed(0.07, "s", "LTE"),
            joules_down=quoted(1.7, "J/MB", f"{_HUANG}: model at 8 Mbit/s"),
            joules_up=quoted(6.9, "J/MB", f"{_HUANG}: model at 3 Mbit/s"),
            joules_session=quoted(12.6, "J", f"{_HUANG}: 11.6 s at 1.06 W"),
            metered=True,
        ),
        "5g": Network(
            down=assumed(60.0, "Mbit/s", "no measurements at hand"),
            up=assumed(15.0, "Mbit/s", "no measurements at hand"),
            sigma=assumed(0.8, "log", "as 4g"),
            latency=assumed(0.03, "s", "5G NSA"),
            joules_down=assumed(0.8, "J/MB", "half of 4g"),
            joules_up=assumed(3.0, "J/MB", "less than half of 4g"),
            joules_session=assumed(12.6, "J", "as 4g"),
            metered=True,
        ),
        "wifi": Network(
            down=measured(4.3, "Mbit/s", f"{_FLASH}: median"),
            up=measured(3.3, "Mbit/s", f"{_FLASH}: median"),
            sigma=measured(
                0.8, "log", f"{_FLASH}: a tenth of uploads below 0.66, of downloads above 8.9"
            ),
            latency=assumed(0.03, "s", "WLAN and DSL"),
            joules_down=quoted(1.3, "J/MB", f"{_HUANG}: model at 4.3 Mbit/s"),
            joules_up=quoted(2.6, "J/MB", f"{_HUANG}: model at 3.3 Mbit/s"),
            joules_session=quoted(0.1, "J", _HUANG),
            metered=False,
        ),
    }
)
"""The networks that a profile may name, by name."""

NETWORK_NAMES: tuple[str, ...] = tuple(NETWORKS)
"""In the order of their codes in a `FleetView`."""

_MEGABIT = 1e6 / 8.0
_MEGABYTE = 1e6


def network_column(field: str, codes: NDArray[np.int16]) -> Column:
    """One number of each row's network, in bytes, seconds and joules.

    ``down`` and ``up`` in bytes a second, ``joules_down`` and ``joules_up`` in joules a byte,
    ``metered`` as 0 or 1; the others as they are.

    >>> float(network_column("up", np.array([NETWORK_NAMES.index("3g")], np.int16))[0])
    125000.0
    """
    return np.asarray(_values(field)[codes])


@cache
def _values(field: str) -> Column:
    """The numbers of all networks, in the order of their codes."""
    factor = {"down": _MEGABIT, "up": _MEGABIT}.get(field, 1.0)
    if field in ("joules_down", "joules_up"):
        factor = 1.0 / _MEGABYTE
    held = [getattr(network, field) for network in NETWORKS.values()]
    values = [float(entry.value if isinstance(entry, Prior) else entry) for entry in held]
    return np.array(values) * factor
