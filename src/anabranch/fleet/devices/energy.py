r"""Energy of a task: computing, radio by byte, and the sessions of the radio.

    E = P * W / R  +  (e_down * S_down + e_up * S_up)  +  E_session * sessions

with W the floating-point operations of the work (6 for each multiply-add of a training example: one
pass forward, two back), R the sustained speed in FLOP/s, P the power above idle. The result is
*modelled*: simple models of processors have been seen to err by several hundred per cent, so what
a device measures stands beside it, and `calibration` says how far the two are apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from anabranch.fleet.devices.network import network_column
from anabranch.fleet.view import Codes, Column

__all__ = [
    "Calibration",
    "calibration",
    "compute_joules",
    "radio_joules",
    "share_of_battery",
]


def compute_joules(watts: Column, flops: Column, speed: Column) -> Column:
    """Energy of ``flops`` floating-point operations at ``speed`` a second and ``watts``.

    >>> compute_joules(np.array([2.5]), np.array([1.6e10]), np.array([8e9])).tolist()
    [5.0]
    """
    return np.asarray(watts * flops / speed)


def radio_joules(
    network: Codes, bytes_down: Column, bytes_up: Column, sessions: Column | float = 1.0
) -> Column:
    """Energy of the radio, by kind of network.

    >>> from anabranch.fleet.devices.network import NETWORK_NAMES
    >>> code = np.array([NETWORK_NAMES.index("3g")], np.int16)
    >>> round(float(radio_joules(code, np.array([1e6]), np.array([2e6]))[0]), 1)
    38.6
    """
    return np.asarray(
        network_column("joules_down", network) * bytes_down
        + network_column("joules_up", network) * bytes_up
        + network_column("joules_session", network) * sessions
    )


def share_of_battery(joules: Column, capacity: Column) -> Column:
    """``joules`` as a part of a full battery of ``capacity`` joules; NaN without a battery.

    >>> share_of_battery(np.array([620.0, 5.0]), np.array([62_000.0, 0.0])).tolist()
    [0.01, nan]
    """
    known = np.where(capacity > 0, capacity, np.nan)
    return np.asarray(joules / known)


@dataclass(frozen=True)
class Calibration:
    """How far modelled energy is from reported energy.

    Attributes:
        tasks: tasks with both numbers.
        ratio: median of reported over modelled; multiply the model by it.
        low, high: 10th and 90th percentile of that ratio.
        error: median of |reported - modelled| / reported.
    """

    tasks: int
    ratio: float
    low: float
    high: float
    error: float


def calibration(modelled: Column, reported: Column) -> Calibration | None:
    """Compare both columns where both are known and positive; None when there is no such task.

    >>> calibration(np.array([1.0, 2.0, 4.0]), np.array([2.0, np.nan, 8.0]))
    Calibration(tasks=2, ratio=2.0, low=2.0, high=2.0, error=0.5)
    """
    known = (modelled > 0) & (reported > 0)
    if not known.any():
        return None
    ratio = reported[known] / modelled[known]
    error = np.abs(1.0 - 1.0 / ratio)
    low, middle, high = np.quantile(ratio, [0.1, 0.5, 0.9])
    return Calibration(
        int(known.sum()), float(middle), float(low), float(high), float(np.median(error))
    )
