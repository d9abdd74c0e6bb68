"""How much computing one training example is."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from anabranch.learners.base import Learner
from anabranch.updates.layout import Policy

__all__ = ["CountsFlops", "flops_per_example"]

_PASSES = 6.0
"""Two operations for each multiply-add, three times: forward, and back to inputs and weights."""


@runtime_checkable
class CountsFlops(Protocol):
    """A learner that can count its own operations."""

    def training_flops(self) -> float:
        """Floating-point operations of one training example, forward and backward; 0 unknown."""
        ...


def flops_per_example(learner: Learner) -> float:
    """Floating-point operations of one training example.

    A learner that cannot count is taken for dense: six operations for each parameter that is
    trained, two for each that is frozen.
    """
    counted = learner.training_flops() if isinstance(learner, CountsFlops) else 0.0
    if counted > 0:
        return counted
    layout = learner.layout
    frozen = sum(p.size for p in layout.parameters if p.policy is Policy.FREEZE)
    return _PASSES * (layout.size - frozen) + 2.0 * frozen
