"""What clients report is checked; modelled and reported energy are compared."""

from __future__ import annotations

import numpy as np
import pytest

from anabranch.errors import AnabranchError
from anabranch.fleet.devices.energy import calibration, radio_joules, share_of_battery
from anabranch.fleet.devices.network import NETWORK_NAMES
from anabranch.fleet.devices.report import device_report, task_report


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"battery": 1.5}, "battery (1.5)"),
        ({"gflops": -3.0}, "gflops (-3.0)"),
        ({"network": "6g"}, "network"),
        ({"speed": 3.0}, "speed"),
        ({"watts": float("nan")}, "watts"),
        ([1, 2], "the report"),
    ],
)
def test_reports_that_cannot_be_are_refused_by_name(document: object, says: str) -> None:
    with pytest.raises(AnabranchError, match="AB-535") as caught:
        device_report(document, "va")
    assert "'va'" in str(caught.value)
    assert says in str(caught.value)


def test_task_reports_are_checked_to_the_bottom() -> None:
    assert task_report({"train_seconds": 3.0, "joules": 12.0}, "va").joules == 12.0
    with pytest.raises(AnabranchError, match=r"device\.battery"):
        task_report({"device": {"battery": -0.1}}, "va")
    with pytest.raises(AnabranchError, match="train_seconds"):
        task_report({"train_seconds": -1.0}, "va")


def test_energy_of_a_task_by_hand() -> None:
    """An entry phone on 3G: 2 MB down at 4.2 J/MB, 1 MB up at 13.5 J/MB, 7.4 J for the session."""
    code = np.array([NETWORK_NAMES.index("3g")], np.int16)
    joules = radio_joules(code, np.array([2e6]), np.array([1e6]))
    assert joules[0] == pytest.approx(2 * 4.2 + 13.5 + 7.4)
    share = share_of_battery(joules, np.array([62_000.0]))
    assert share[0] == pytest.approx(29.3 / 62_000)


def test_calibration_is_the_median_ratio_of_what_both_sides_know() -> None:
    modelled = np.array([10.0, 10.0, 10.0, 0.0, 10.0])
    reported = np.array([5.0, 10.0, 20.0, 7.0, np.nan])
    found = calibration(modelled, reported)
    assert found is not None
    assert (found.tasks, found.ratio) == (3, 1.0)
    assert found.error == pytest.approx(0.5)  # of 1.0, 0.0 and 0.5
    assert calibration(modelled, np.full(5, np.nan)) is None
