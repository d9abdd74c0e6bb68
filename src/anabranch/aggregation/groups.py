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

    Raises:
        ValueError: there are no groups, or their sections differ.
    """
    result: Total | None = None
    for total in totals:
        result = total if result is None else result.plus(total)
    if result is None:
        raise ValueError("there are no groups to combine")
    return result
