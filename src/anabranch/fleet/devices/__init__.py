"""Devices: what they are, when they are there, what tasks take and cost on them.

`SimulatedFleet` shows a coordinator what it may know (`view`) and keeps what it may not: the truth
that tasks meet and that caps are checked against. Every prior carries its mark: measured, quoted
or assumed.
"""

from anabranch.fleet.devices.classes import CLASSES, DeviceClass
from anabranch.fleet.devices.energy import Calibration, calibration
from anabranch.fleet.devices.marks import Mark, Prior
from anabranch.fleet.devices.network import NETWORKS, Network
from anabranch.fleet.devices.profiles import Profiles, draw_profiles, read_profiles
from anabranch.fleet.devices.report import DeviceReport, TaskReport
from anabranch.fleet.devices.settings import DeviceSettings
from anabranch.fleet.devices.simulated import SimulatedFleet
from anabranch.fleet.devices.traces import Trace, read_trace

__all__ = [
    "CLASSES",
    "NETWORKS",
    "Calibration",
    "DeviceClass",
    "DeviceReport",
    "DeviceSettings",
    "Mark",
    "Network",
    "Prior",
    "Profiles",
    "SimulatedFleet",
    "TaskReport",
    "Trace",
    "calibration",
    "draw_profiles",
    "read_profiles",
    "read_trace",
]
