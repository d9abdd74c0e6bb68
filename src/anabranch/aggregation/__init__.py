"""Many updates become one: the exact fold, groups and rules over groups. Pure."""

from anabranch.aggregation.fold import Accumulator, FoldPlan, round_to_quantum
from anabranch.aggregation.groups import Combine, combine_sums
from anabranch.aggregation.weighting import Custom, Examples, Steps, Uniform, WeightRule

__all__ = [
    "Accumulator",
    "Combine",
    "Custom",
    "Examples",
    "FoldPlan",
    "Steps",
    "Uniform",
    "WeightRule",
    "combine_sums",
    "round_to_quantum",
]
