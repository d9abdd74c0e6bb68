"""Broadcast vectors on a public grid, so that a difference to any older version is exact.

A vector is held as ``origin + 2^exponent * units`` with whole ``units``. The origin is what all can
compute from the plan: the first broadcast. Rounding to the grid is done anew from the exact
vector each time, so errors never add up: what one version leaves out stands in the next difference.
Since units are whole numbers, and steps are powers of two, the difference between two versions is
exact, and it does not matter over how many versions a client comes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from anabranch.updates.integers import LARGEST, read_integers, write_integers
from anabranch.updates.packed import Reader, Writer, inconsistent
from anabranch.updates.sections import Vector
from anabranch.updates.symbols import Symbols

__all__ = ["Change", "Grid", "Point", "coarse_exponent", "plus", "read_change", "write_change"]

_REACH = 2**15 - 1
"""Units of a vector that is sent whole: at most sixteen bits a coordinate."""

_HALF_STEP = 0.5 * (1 + 2.0**-10)
_STAY = 0.9
_FARTHEST = 120
"""Steps lie between 2^-120 and 2^120, so that no product leaves the range of float32."""


@dataclass(frozen=True)
class Grid:
    """One vector of one version.

    Attributes:
        exponent: the step is 2^exponent.
        units: whole numbers of steps from the origin, int32.
    """

    exponent: int
    units: Symbols

    def vector(self, origin: Vector) -> Vector:
        """The numbers; the same bits on every machine."""
        moved = np.ldexp(self.units.astype(np.float32), self.exponent).astype(np.float32)
        moved += origin
        return moved

    @staticmethod
    def zero(length: int) -> Grid:
        """The origin itself."""
        return Grid(0, np.zeros(length, np.int32))

    @staticmethod
    def nearest(vector: Vector, origin: Vector, exponent: int) -> Grid:
        """The point of the grid nearest to ``vector``."""
        away = vector.astype(np.float64) - origin
        units = np.rint(np.ldexp(away, -exponent, out=away), out=away)
        return Grid(exponent, units.astype(np.int32))


Point = Mapping[str, Grid]
"""One version of everything that is broadcast, by section name."""


@dataclass(frozen=True)
class Change:
    """What leads from one grid to another: ``2^exponent * units``, towards steps of 2^towards."""

    towards: int
    exponent: int
    units: Symbols

    @staticmethod
    def between(old: Grid, new: Grid) -> Change:
        """The exact difference.

        Raises:
            OverflowError: the steps are too far apart.
        """
        least = min(old.exponent, new.exponent)
        units = _finer(new.units, new.exponent - least) - _finer(old.units, old.exponent - least)
        return _plain(new.exponent, least, units)

    def after(self, old: Grid) -> Grid:
        """The grid that the change leads to.

        Raises:
            AnabranchError: AB-523 when there is none.
        """
        least = min(old.exponent, self.exponent, self.towards)
        try:
            units = _finer(old.units, old.exponent - least).astype(np.int64)
            units += _finer(self.units, self.exponent - least)
        except OverflowError as error:
            raise inconsistent("a difference is out of range") from error
        up = self.towards - least
        if up and (units & ((1 << up) - 1)).any():
            raise inconsistent("a difference does not lead to a point of its grid")
        units >>= up
        if len(units) and max(int(units.max()), -int(units.min())) > LARGEST:
            raise inconsistent("a difference leads out of range")
        return Grid(self.towards, units.astype(np.int32))


def plus(first: Change, second: Change) -> Change:
    """Both changes in one; ``first`` comes before ``second``.

    Raises:
        OverflowError: the steps are too far apart.
    """
    least = min(first.exponent, second.exponent)
    units = _finer(first.units, first.exponent - least)
    return _plain(second.towards, least, units + _finer(second.units, second.exponent - least))


def coarse_exponent(vector: Vector, origin: Vector, before: Grid, coarseness: float) -> int:
    """The exponent of the step for a vector: ``coarseness`` times the root mean square by which
    it has left the last version, as a power of two.

    The step stays while that moves it by less than a factor of two, since a new step makes every
    coordinate move; and it stays when no coordinate has left its place on the grid (a round that
    failed). It never gets so small that the vector would need more than sixteen bits.
    """
    away = vector.astype(np.float64) - origin
    farthest = float(np.abs(away).max(initial=0.0))
    lowest = math.ceil(math.log2(farthest / _REACH)) if farthest else -_FARTHEST
    moved = vector.astype(np.float64) - before.vector(origin)
    largest = float(np.abs(moved).max(initial=0.0))
    fresh = not before.units.any()
    if not largest or (not fresh and largest <= _HALF_STEP * 2.0**before.exponent):
        wanted = before.exponent
    else:
        square = float(np.mean(moved * moved))
        # Rounding moves coordinates, too: by a variance of step^2 / 12.
        rounding = 0.0 if fresh else 4.0**before.exponent / 12
        square = max(square - rounding, square / 16)
        exact = math.log2(coarseness * math.sqrt(square)) if square else -_FARTHEST
        stay = not fresh and abs(exact - before.exponent) <= _STAY
        wanted = before.exponent if stay else round(exact)
    return min(max(wanted, lowest, -_FARTHEST), _FARTHEST)


def write_change(change: Change, writer: Writer) -> None:
    """Append both exponents (i16) and the units."""
    writer.number(change.towards, "<i2")
    writer.number(change.exponent, "<i2")
    write_integers(change.units, writer)


def read_change(reader: Reader, length: int) -> Change:
    """What `write_change` has written.

    Raises:
        AnabranchError: AB-523 when it cannot come from there.
    """
    towards, exponent = reader.integer("<i2"), reader.integer("<i2")
    if max(abs(towards), abs(exponent)) > 2 * _FARTHEST:
        raise inconsistent("its exponent is out of range")
    return Change(towards, exponent, read_integers(reader, length))


def _finer(units: Symbols, by: int) -> Symbols:
    """The same numbers in steps of 2^-by.

    Raises:
        OverflowError: they would be too large.
    """
    if not by:
        return units
    largest = max(int(units.max(initial=0)), -int(units.min(initial=0)))
    if largest and (by > 30 or largest << by > LARGEST // 2):
        raise OverflowError("steps of two versions are too far apart")
    return np.left_shift(units, np.int32(min(by, 30)))


def _plain(towards: int, exponent: int, units: Symbols) -> Change:
    """The change in its largest step, so that equal changes are written alike."""
    together = int(np.bitwise_or.reduce(units)) if len(units) else 0
    if not together:
        return Change(towards, towards, units)
    common = (together & -together).bit_length() - 1
    return Change(towards, exponent + common, units >> common if common else units)
