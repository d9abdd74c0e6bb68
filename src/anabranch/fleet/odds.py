"""How many clients must be asked so that enough answer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from anabranch.fleet.view import Column

if TYPE_CHECKING:
    from anabranch.fleet.selection.base import Selection

__all__ = ["WISHED", "asked_for", "at_least", "fewest", "over_selection"]

WISHED = 0.99
"""Probability with which a round shall have enough answers."""
_EXACT = 256  # coins up to which the distribution of their sum is computed exactly


def at_least(probabilities: Column, goal: int) -> float:
    """Probability that at least ``goal`` of independent coins fall on one.

    Exact up to 256 coins; beyond, the normal approximation with Volkova's (1996) correction for
    skewness, whose error is far below a thousandth there.

    >>> round(at_least(np.full(3, 0.5), 2), 6)
    0.5
    """
    p = np.asarray(probabilities, np.float64)
    if goal <= 0:
        return 1.0
    if goal > len(p):
        return 0.0
    if len(p) > _EXACT:
        return _normal_tail(p, goal)
    counts = np.zeros(goal + 1)  # the last entry collects "goal or more"
    counts[0] = 1.0
    for chance in p:
        moved = counts * chance
        stayed = counts - moved
        stayed[1:] += moved[:-1]
        stayed[-1] += moved[-1]
        counts = stayed
    return float(counts[-1])


def _normal_tail(p: Column, goal: int) -> float:
    spread = float(np.sqrt((p * (1 - p)).sum()))
    mean = float(p.sum())
    if spread < 1e-9:
        return float(mean >= goal - 0.5)
    skew = float((p * (1 - p) * (1 - 2 * p)).sum()) / spread**3
    x = (goal - 0.5 - mean) / spread
    density = math.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    below = 0.5 * (1 + math.erf(x / math.sqrt(2))) + skew * (1 - x * x) * density / 6
    return 1.0 - min(1.0, max(0.0, below))


def asked_for(goal: int, success: float, wished: float = WISHED) -> int:
    """Fewest clients to ask so that at least ``goal`` answer with probability ``wished``.

    Args:
        goal: answers that a round wants.
        success: probability that a client answers in time, above 0.
        wished: probability of reaching the goal.

    >>> asked_for(30, 0.9), asked_for(30, 1.0)
    (39, 30)
    """
    if success >= 1.0:
        return goal
    low, high = goal, goal
    while at_least(np.full(high, success), goal) < wished:
        low, high = high + 1, 2 * high
    while low < high:
        middle = (low + high) // 2
        if at_least(np.full(middle, success), goal) >= wished:
            high = middle
        else:
            low = middle + 1
    return low


def fewest(
    select: Callable[[int], Selection], odds: Column, goal: int, wished: float, most: int
) -> Selection:
    """The smallest selection of which at least ``goal`` answer with probability ``wished``.

    Args:
        select: chooses so many clients; the same ones for the same number.
        odds: probability that each client of the fleet answers in time.
        goal: answers that a round wants.
        wished: probability of reaching the goal.
        most: clients that are asked at most, reached or not.
    """
    mean = float(odds.mean()) if len(odds) else 1.0
    count = min(most, asked_for(goal, mean, wished) if mean > goal / most else most)
    chosen = select(count)
    enough = _enough(chosen, odds, goal, wished)
    step = -1 if enough else 1
    while goal <= count + step <= most:
        other = select(count + step)
        if _enough(other, odds, goal, wished) != enough:
            return chosen if enough else other
        chosen, count = other, count + step
    return chosen


def _enough(chosen: Selection, odds: Column, goal: int, wished: float) -> bool:
    return at_least(odds[list(chosen.clients)], goal) >= wished


def over_selection(goal: int, success: float, wished: float = WISHED) -> float:
    """`asked_for` as a factor on the goal.

    >>> [round(over_selection(goal, 0.7), 2) for goal in (30, 100, 1000)]
    [1.8, 1.62, 1.49]
    """
    return asked_for(goal, success, wished) / goal
