"""Selection: which clients are asked in a round, as pure functions of view, history and chance."""

from anabranch.fleet.selection.base import (
    CodeColumn,
    Draw,
    Indices,
    Known,
    Selection,
    Selector,
    eligible_codes,
)
from anabranch.fleet.selection.choice import PowerOfChoice
from anabranch.fleet.selection.codes import Code, Reason
from anabranch.fleet.selection.fairness import Floored, due_now
from anabranch.fleet.selection.oort import Oort
from anabranch.fleet.selection.poisson import Poisson, largest_cohort
from anabranch.fleet.selection.registry import SELECTORS
from anabranch.fleet.selection.secret import SecretDraw
from anabranch.fleet.selection.stratified import Stratified
from anabranch.fleet.selection.uniform import Uniform, select_uniform
from anabranch.fleet.selection.utility import DeviceUtility
from anabranch.fleet.selection.weighted import Weighted

__all__ = [
    "SELECTORS",
    "Code",
    "CodeColumn",
    "DeviceUtility",
    "Draw",
    "Floored",
    "Indices",
    "Known",
    "Oort",
    "Poisson",
    "PowerOfChoice",
    "Reason",
    "SecretDraw",
    "Selection",
    "Selector",
    "Stratified",
    "Uniform",
    "Weighted",
    "due_now",
    "eligible_codes",
    "largest_cohort",
    "select_uniform",
]
