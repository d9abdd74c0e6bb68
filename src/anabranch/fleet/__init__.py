"""Who is there, who is asked, and for how much: roster, devices, selection, admission, prediction.

Everything that decides is a pure function of columns over clients: `FleetView` (what may be known
of devices) and `FleetHistory` (what clients showed). What simulated devices really do stays in
`anabranch.fleet.devices`.
"""

from anabranch.fleet.admission import Admission, Assignment, admit
from anabranch.fleet.history import FleetHistory
from anabranch.fleet.odds import asked_for, over_selection
from anabranch.fleet.selection import SELECTORS, Selection, Selector, select_uniform
from anabranch.fleet.view import FleetView, unknown_fleet

__all__ = [
    "SELECTORS",
    "Admission",
    "Assignment",
    "FleetHistory",
    "FleetView",
    "Selection",
    "Selector",
    "admit",
    "asked_for",
    "over_selection",
    "select_uniform",
    "unknown_fleet",
]
