"""How the sums of groups become one total.

The same clients are never regrouped within one model version: a client belongs to exactly one
group, so differences of sums reveal nobody.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from anabranch.updates.total import Finest, Total

__all__ = ["Combine", "combine_sums"]


class Combine(Protocol):
    """A rule over the totals of groups (mean, robust rules)."""

    @property
    def finest(self) -> Finest: ...

    def __call__(self, totals: Iterable[Total]) -> Total: ...


def combine_sums(totals: Iterable[Total]) -> Total:
    """The total over all groups: the combination rule of every averaging algorithm.

    Sums are added in float64 without rounding error, because each is a multiple of its quantum
    inside the exact range, so flat and hierarchical folds agree bit for bit.
    """
    iterator = iter(totals)
    first = next(iterator)
    result = first
    for total in iterator:
        result = result.plus(total)
    return result
