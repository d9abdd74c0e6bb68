"""Local training and evaluation. PyTorch lives here and nowhere else."""

from anabranch.learners.base import (
    Learner,
    LocalResult,
    TrainingJob,
    batch_orders,
    gradient_coefficient,
)
from anabranch.learners.training import SGD, Adam, LocalTraining

__all__ = [
    "SGD",
    "Adam",
    "Learner",
    "LocalResult",
    "LocalTraining",
    "TrainingJob",
    "batch_orders",
    "gradient_coefficient",
]
