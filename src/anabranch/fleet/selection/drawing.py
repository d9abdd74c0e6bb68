"""Draws over columns that selectors share."""

from __future__ import annotations

import numpy as np

from anabranch.fleet.selection.base import Draw, Indices
from anabranch.fleet.view import Column, Flags

__all__ = ["members", "smallest", "systematic", "weighted_draw", "without"]


def smallest(keys: Column, among: Indices, count: int) -> Indices:
    """The ``count`` members of ``among`` with the smallest keys, ascending by number.

    Args:
        keys: one for each member of ``among``.
        among: client numbers.
        count: how many; all of them when there are no more.
    """
    if count >= len(among):
        return among
    if count <= 0:
        return among[:0]
    chosen: Indices = np.sort(among[np.argpartition(keys, count - 1)[:count]])
    return chosen


def members(flags: Flags) -> Indices:
    """Numbers of the clients whose flag is set, ascending."""
    return np.flatnonzero(flags).astype(np.int64, copy=False)


def weighted_draw(weights: Column, among: Indices, count: int, draw: Draw) -> Indices:
    """``count`` members without replacement, one after the other by weight.

    The keys -log(u) / weight of Efraimidis & Spirakis (2006): the smallest ``count`` are such a
    draw. Members without weight come last.
    """
    with np.errstate(divide="ignore"):
        keys = -np.log1p(-draw.random(len(among))) / weights
    return smallest(np.where(weights > 0, keys, np.inf), among, count)


def without(among: Indices, taken: Indices) -> Indices:
    """Members of ``among`` that are not in ``taken``."""
    left: Indices = np.setdiff1d(among, taken, assume_unique=True)
    return left


def systematic(chances: Column, among: Indices, draw: Draw) -> Indices:
    """A sample in which each member has its own chance, evenly spread over the given order.

    Systematic sampling (Madow 1949): chances are laid end to end and cut at unit steps from one
    random start. Any stretch of the order gets its expected number of members, up to one.

    Args:
        chances: one for each member, at most 1.
        among: client numbers in the order that the sample shall spread over.
        draw: where the start comes from.
    """
    ends = np.cumsum(chances) + float(draw.random(1)[0])
    # Rounding in the sum must not make or lose a member at the very end.
    counts = np.floor(ends + 1e-9)
    chosen = np.diff(counts, prepend=0.0) > 0
    picked: Indices = np.sort(among[chosen])
    return picked
