"""What a selector is: a value that says which clients are asked, purely.

``select(view, wanted, draw, known)`` depends on its arguments alone. The view says what the
coordinator may know of devices; `Known` adds what earlier rounds showed and what admission allows.
Everything is computed in columns over clients: 100,000 of them take milliseconds.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from anabranch.fleet.history import FleetHistory
from anabranch.fleet.selection.codes import Code, Reason
from anabranch.fleet.view import Column, FleetView
from anabranch.values import Value

__all__ = ["CodeColumn", "Draw", "Indices", "Known", "Selection", "Selector", "eligible_codes"]

CodeColumn: TypeAlias = NDArray[np.int8]
Indices: TypeAlias = NDArray[np.int64]


class Draw(Protocol):
    """Where a selector's chances come from; `numpy.random.Generator` is one.

    A selector that privacy relies on is given a cryptographic one (`SecretDraw`).
    """

    def random(self, size: int) -> Column:
        """Independent numbers, uniform in [0, 1)."""
        ...

    def choice(self, a: int, size: int, replace: bool, *, shuffle: bool) -> Indices:
        """``size`` of the numbers below ``a``."""
        ...


@dataclass(frozen=True, slots=True)
class Known:
    """What a selector may know besides the view.

    Attributes:
        round: the round that clients are selected for, from 1.
        history: what clients showed in earlier rounds.
        refused: `Code` of each client that admission refuses; `Code.NOT_DRAWN` for the others.
        seconds: predicted seconds of the task; NaN where nothing is known.
        joules: predicted energy of the task, in joules; NaN where nothing is known.
        deadline: seconds that a task may take; inf without a deadline.
        separation: rounds that must lie between two tasks of a client (1: may be asked again at
            once), as the privacy claim needs it; the selector may ask for more.
        participations: merged tasks that a client may have in a run, as the privacy claim needs
            it; None without a cap.
    """

    round: int
    history: FleetHistory
    refused: CodeColumn
    seconds: Column
    joules: Column
    deadline: float = float("inf")
    separation: int = 1
    participations: int | None = None

    @staticmethod
    def nothing(clients: int, round_: int = 1) -> Known:
        """Nothing but how many clients there are."""
        unknown = np.full(clients, np.nan)
        free = np.full(clients, Code.NOT_DRAWN, np.int8)
        return Known(round_, FleetHistory.empty(clients), free, unknown, unknown)


@dataclass(frozen=True, slots=True)
class Selection:
    """Who is asked, and why the others are not.

    Attributes:
        clients: numbers of the selected, ascending.
        reasons: one for each of them.
        codes: for every client of the fleet what became of it, as `Code`; shape (fleet,).
    """

    clients: tuple[int, ...]
    reasons: tuple[Reason, ...]
    codes: CodeColumn

    @staticmethod
    def of(codes: CodeColumn, parts: Sequence[tuple[Indices, Reason]]) -> Selection:
        """From the codes before the draw and the parts that were chosen, which share no client."""
        after = codes.copy()
        reason_of: dict[int, Reason] = {}
        for chosen, reason in parts:
            after[chosen] = Code.SELECTED
            reason_of.update((int(client), reason) for client in chosen)
        clients = tuple(sorted(reason_of))
        return Selection(clients, tuple(reason_of[client] for client in clients), after)

    def counts(self) -> dict[Code, int]:
        """How many clients each code has; codes of nobody are left out."""
        found, counts = np.unique(self.codes, return_counts=True)
        return {Code(int(c)): int(n) for c, n in zip(found, counts, strict=True)}

    def reason_counts(self) -> dict[Reason, int]:
        """How many clients were selected for each reason."""
        return {r: self.reasons.count(r) for r in Reason if r in self.reasons}


class Selector(Value):
    """A rule for whom to ask; one frozen value with the rule's settings.

    A subclass defines `select`, and states what it reads and promises. The contract suite
    `anabranch.testing.SelectorContract` says what every selector must do.
    """

    kind: ClassVar[str] = ""
    """The name in a plan; "" for a class that a plan names as ``module:Class``."""
    amplifies: ClassVar[bool] = False
    """Whether each enrolled client is drawn by an independent coin, so that a privacy claim may
    use amplification by Poisson sampling. The draw must then be secret."""

    separation: int = Field(default=1, ge=1, json_schema_extra={"unit": "rounds"})
    """Rounds between two tasks of one client: 1 allows the next round, 10 nine rounds without it.
    """
    max_participations: int | None = Field(
        default=None, ge=1, json_schema_extra={"unit": "merged updates of a client"}
    )
    """Most merged updates of one client in a run; left out, there is no cap."""

    @property
    def reads_losses(self) -> bool:
        """Whether single clients' losses decide: they must then be visible, and are a release."""
        return False

    @property
    def floor_rounds(self) -> int | None:
        """Rounds within which every eligible client is asked at least once; None: no promise."""
        return None

    @abstractmethod
    def select(
        self, view: FleetView, wanted: int, draw: Draw, known: Known | None = None
    ) -> Selection:
        """Choose at most ``wanted`` clients (a coin for each may choose more, up to its cap).

        Args:
            view: what may be known of devices.
            wanted: tasks to give out.
            draw: where chance comes from.
            known: history, predictions and refusals; None when there is nothing yet.
        """
        raise NotImplementedError

    def codes(self, view: FleetView, known: Known) -> CodeColumn:
        """The codes before the draw: `Code.NOT_DRAWN` for the eligible."""
        return eligible_codes(view, known, self.separation, self.max_participations)


def eligible_codes(
    view: FleetView, known: Known, separation: int = 1, participations: int | None = None
) -> CodeColumn:
    """`Code.NOT_DRAWN` for each client that may be asked, else why it may not.

    The stricter of the selector's and the privacy claim's separation and cap holds. The first
    reason that applies is given: availability, open tasks, privacy, then admission's.
    """
    history = known.history
    codes = known.refused.copy()
    caps = [cap for cap in (participations, known.participations) if cap is not None]
    if caps:
        codes[history.merged >= min(caps)] = Code.PARTICIPATIONS
    apart = max(separation, known.separation)
    if apart > 1:
        recent = (history.last_asked > 0) & (known.round - history.last_asked < apart)
        codes[recent] = Code.SEPARATION
    codes[view.busy] = Code.BUSY
    codes[~view.available] = Code.UNAVAILABLE
    return codes
