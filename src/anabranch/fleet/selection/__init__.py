"""Selection: which clients are asked in a round, as pure functions of view, history and chance."""

from anabranch.fleet.selection.base import Draw, Known, Selection, Selector, eligible_codes
from anabranch.fleet.selection.codes import Code, Reason
from anabranch.fleet.selection.uniform import Uniform, select_uniform

__all__ = [
    "Code",
    "Draw",
    "Known",
    "Reason",
    "Selection",
    "Selector",
    "Uniform",
    "eligible_codes",
    "select_uniform",
]
