"""Local training and evaluation. PyTorch lives here and nowhere else.

`build_learner` turns the plan's model into a learner. PyTorch is imported when a model needs it,
not before: the NumPy learner trains logistic and linear models and MLPs without it.
"""

from anabranch.learners.base import (
    Learner,
    LocalResult,
    TrainingJob,
    batch_orders,
    gradient_coefficient,
)
from anabranch.learners.build import BUILT_IN, build_learner
from anabranch.learners.metrics import MetricSet
from anabranch.learners.plan import ModelPlan
from anabranch.learners.training import SGD, Adam, LocalTraining

__all__ = [
    "BUILT_IN",
    "SGD",
    "Adam",
    "Learner",
    "LocalResult",
    "LocalTraining",
    "MetricSet",
    "ModelPlan",
    "TrainingJob",
    "batch_orders",
    "build_learner",
    "gradient_coefficient",
]
