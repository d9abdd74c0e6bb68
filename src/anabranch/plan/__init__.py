"""The plan: what a run needs, as a file or as frozen values; its algebra and its words.

The contract part says what is learnt, from which data, and how updates are merged; it is equal for
all and has a digest. The runtime part says how it is run here.
"""

from anabranch.plan.evaluation import EvaluationPlan, Limits, StopPlan
from anabranch.plan.rounds import ClientsPlan, RoundsPlan
from anabranch.plan.runtime import RuntimePlan

__all__ = ["ClientsPlan", "EvaluationPlan", "Limits", "RoundsPlan", "RuntimePlan", "StopPlan"]
