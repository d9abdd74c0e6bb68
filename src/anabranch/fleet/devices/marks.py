"""Numbers that say where they come from."""

from __future__ import annotations

from enum import StrEnum

from anabranch.values import Value

__all__ = ["Mark", "Prior", "assumed", "measured", "quoted"]


class Mark(StrEnum):
    """How far a number can be trusted."""

    MEASURED = "measured"  # by this project, or computed by it from published data
    QUOTED = "quoted"  # from a publication
    ASSUMED = "assumed"  # a judgement; replace it by your own measurements


class Prior(Value):
    """A number that the planner believes until a device reports better."""

    value: float
    """The number."""
    unit: str
    """Its unit."""
    mark: Mark
    """How far it can be trusted."""
    source: str
    """Where it comes from."""

    def __str__(self) -> str:
        return f"{self.value:g} {self.unit} ({self.mark.value}: {self.source})"


def measured(value: float, unit: str, source: str) -> Prior:
    """A number of our own.

    >>> print(measured(2.0, "s", "a watch"))
    2 s (measured: a watch)
    """
    return Prior(value=value, unit=unit, mark=Mark.MEASURED, source=source)


def quoted(value: float, unit: str, source: str) -> Prior:
    """A number of somebody else's."""
    return Prior(value=value, unit=unit, mark=Mark.QUOTED, source=source)


def assumed(value: float, unit: str, source: str) -> Prior:
    """A number that nobody measured."""
    return Prior(value=value, unit=unit, mark=Mark.ASSUMED, source=source)
