"""The plan's tables ``[selection]`` and ``[admission]``: whom a round asks, and for how much work.

A selector is chosen by ``kind``, a built-in one or your own class (``module:Class``)::

    [selection]
    kind = "utility"
    floor = 40

    [admission]
    max_battery = 0.05
    unmetered_only = true
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from anabranch.fleet.admission import Admission
from anabranch.fleet.selection import SELECTORS, Selector
from anabranch.plan.named import Named

__all__ = ["Admission", "AnySelector"]

AnySelector: TypeAlias = Annotated[Selector, Named(Selector, "kind", lambda: SELECTORS)]
