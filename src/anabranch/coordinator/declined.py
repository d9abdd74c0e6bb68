"""Who says that it never began: what such a client was to spend returns to it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from anabranch.client.task import Fate
from anabranch.coordinator.runtime import Outcome

__all__ = ["declined_of"]

_NEVER_BEGAN: Final = ("AB-744", "AB-929")
"""A client that says this has computed nothing for the run, ever: nobody there agreed to its
contract, or its own count of its privacy refused the run as a whole. Other refusals are of one task
(its hours, its traffic), and say nothing of an answer that left before."""


def declined_of(outcomes: Iterable[Outcome]) -> list[int]:
    """Numbers of the clients that say that they never computed anything for the run."""
    return [
        outcome.client
        for outcome in outcomes
        if outcome.fate is Fate.DECLINED and outcome.detail.startswith(_NEVER_BEGAN)
    ]
