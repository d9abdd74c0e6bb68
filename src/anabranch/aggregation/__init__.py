"""Many updates become one: the exact fold and its weights. Pure."""

from anabranch.aggregation.fold import Accumulator, FoldPlan, round_to_quantum
from anabranch.aggregation.weighting import Custom, Examples, Steps, Uniform, WeightRule

__all__ = [
    "Accumulator",
    "Custom",
    "Examples",
    "FoldPlan",
    "Steps",
    "Uniform",
    "WeightRule",
    "round_to_quantum",
]
