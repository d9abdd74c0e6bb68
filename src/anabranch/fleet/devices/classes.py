"""Classes of devices: what a planner believes of a device that has reported nothing."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from anabranch.fleet.devices.marks import Prior, assumed, quoted
from anabranch.fleet.view import Column
from anabranch.values import Value

__all__ = ["CLASSES", "CLASS_NAMES", "DeviceClass", "class_column"]

_POWER = "between AutoFL's 3.6 to 5.6 W and EAFL's 3.0 to 6.3 W for processors of phones"
_TRAIN = "a tenth to a third of the peak of such processors; replace it by measurements"


class DeviceClass(Value):
    """One class of devices."""

    title: str
    """For people."""
    examples: str
    """Chips or boards of this class."""
    gflops: Prior
    """Sustained speed in training, 10^9 floating-point operations a second."""
    sigma: Prior
    """Spread of speed within the class: standard deviation of the logarithm."""
    watts: Prior
    """Power above idle while training, watts."""
    memory: Prior
    """Memory that training may use, megabytes (a quarter of what is built in)."""
    battery: Prior
    """Energy of a full battery, kilojoules; 0 on the mains."""
    networks: Mapping[str, float]
    """Which cellular or fixed network devices of the class use: name and share."""
    home_wifi: float
    """Share of devices that have WiFi where they spend the night."""


CLASSES: Mapping[str, DeviceClass] = MappingProxyType(
    {
        "flagship": DeviceClass(
            title="flagship phone",
            examples="Snapdragon 8 series",
            gflops=assumed(60.0, "GFLOP/s", _TRAIN),
            sigma=assumed(0.4, "log", "within a class"),
            watts=assumed(6.0, "W", _POWER),
            memory=assumed(2500.0, "MB", "10 GB built in"),
            battery=quoted(69.0, "kJ", "5000 mAh at 3.85 V"),
            networks={"5g": 0.5, "4g": 0.5},
            home_wifi=0.9,
        ),
        "mid": DeviceClass(
            title="middle-class phone",
            examples="Snapdragon 6xx, Dimensity 700",
            gflops=assumed(25.0, "GFLOP/s", _TRAIN),
            sigma=assumed(0.4, "log", "within a class"),
            watts=assumed(4.0, "W", _POWER),
            memory=assumed(1250.0, "MB", "5 GB built in"),
            battery=quoted(69.0, "kJ", "5000 mAh at 3.85 V"),
            networks={"4g": 0.9, "3g": 0.1},
            home_wifi=0.5,
        ),
        "entry": DeviceClass(
            title="entry phone",
            examples="Unisoc SC9863A, Helio A22",
            gflops=assumed(8.0, "GFLOP/s", _TRAIN),
            sigma=assumed(0.4, "log", "within a class"),
            watts=assumed(2.5, "W", "below the phones that AutoFL and EAFL measured"),
            memory=assumed(600.0, "MB", "2 to 3 GB built in"),
            battery=quoted(62.0, "kJ", "4500 mAh at 3.85 V"),
            networks={"3g": 0.6, "4g": 0.4},
            home_wifi=0.15,
        ),
        "ultra-low": DeviceClass(
            title="Android Go phone with 1 GB",
            examples="Unisoc SC7731E, QM215",
            gflops=assumed(2.0, "GFLOP/s", _TRAIN),
            sigma=assumed(0.4, "log", "within a class"),
            watts=assumed(1.8, "W", "below the phones that AutoFL and EAFL measured"),
            memory=assumed(250.0, "MB", "1 GB built in"),
            battery=quoted(38.0, "kJ", "2750 mAh at 3.85 V"),
            networks={"2g": 0.5, "3g": 0.5},
            home_wifi=0.05,
        ),
        "board": DeviceClass(
            title="gateway or board",
            examples="Raspberry Pi Zero 2 W",
            gflops=assumed(3.0, "GFLOP/s", _TRAIN),
            sigma=assumed(0.4, "log", "within a class"),
            watts=assumed(2.5, "W", "board at full load"),
            memory=assumed(128.0, "MB", "0.5 GB built in"),
            battery=assumed(0.0, "kJ", "on the mains"),
            networks={"wifi": 1.0},
            home_wifi=1.0,
        ),
    }
)
"""The classes that a plan or a profile may name, by name."""

CLASS_NAMES: tuple[str, ...] = tuple(CLASSES)
"""In the order of their codes in a `FleetView`."""

_UNITS = {"gflops": 1e9, "memory": 1e6, "battery": 1e3}


def class_column(field: str, codes: NDArray[np.int16]) -> Column:
    """One prior of each row's class, in FLOP/s, watts, bytes and joules.

    >>> float(class_column("gflops", np.array([CLASS_NAMES.index("mid")], np.int16))[0])
    25000000000.0
    """
    priors = [getattr(entry, field).value for entry in CLASSES.values()]
    return np.asarray(np.array(priors, np.float64)[codes] * _UNITS.get(field, 1.0))
