"""The rules of the algebra, one file for each subject; `RULES` lists them in the order asked."""

from anabranch.plan.rules.base import Alternative, Note, Rule
from anabranch.plan.rules.compression import RULES as COMPRESSION
from anabranch.plan.rules.inside import RULES as INSIDE
from anabranch.plan.rules.mechanism import RULES as MECHANISM
from anabranch.plan.rules.memory import RULES as MEMORY
from anabranch.plan.rules.normalisation import RULES as NORMALISATION
from anabranch.plan.rules.notes import notes
from anabranch.plan.rules.optimizer import RULES as OPTIMIZER
from anabranch.plan.rules.promise import RULES as PROMISE
from anabranch.plan.rules.secure import RULES as SECURE
from anabranch.plan.rules.selection import RULES as SELECTION
from anabranch.plan.rules.stages import RULES as STAGES
from anabranch.plan.rules.statistics import RULES as STATISTICS
from anabranch.plan.rules.weighting import RULES as WEIGHTING

__all__ = ["RULES", "Alternative", "Note", "Rule", "notes"]

RULES: tuple[Rule, ...] = (
    *MEMORY,
    *WEIGHTING,
    *OPTIMIZER,
    *STAGES,
    *COMPRESSION,
    *NORMALISATION,
    *SELECTION,
    *MECHANISM,
    *INSIDE,
    *STATISTICS,
    *PROMISE,
    *SECURE,
)
"""Every rule, in the order in which a plan is judged."""
