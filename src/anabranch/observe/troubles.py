"""Lines about clients that did not contribute: a reason in full once, then briefly."""

from __future__ import annotations

from anabranch.observe.events import ClientTrouble

__all__ = ["Troubles"]

_MOST = 3  # brief lines a round; a fleet in trouble must not bury the rest


class Troubles:
    """Turns troubles into lines, in the order in which they come.

    >>> troubles = Troubles()
    >>> said = [troubles.line(ClientTrouble(1, name, "refused", "AB-502 [run] a value is NaN."))
    ...         for name in "abcdef"]
    >>> print("\\n".join(said).rstrip())
    round 1: client a refused: AB-502 [run] a value is NaN.
    round 1: client b refused: AB-502
    round 1: client c refused: AB-502
    >>> troubles.rest()
    'round 1: 3 more clients did not contribute'
    """

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._round = self._told = self._more = 0

    def line(self, event: ClientTrouble) -> str:
        """The line for one trouble; empty when the round has had enough of them."""
        if event.round != self._round:
            self._round, self._told, self._more = event.round, 0, 0
        code = event.reason.split(" ", 1)[0]
        brief = code if code.startswith("AB-") else event.reason
        new = brief not in self._known
        self._known.add(brief)
        if not new and self._told >= _MOST:
            self._more += 1
            return ""
        self._told += 1
        reason = event.reason if new else brief
        return f"round {event.round}: client {event.client} {event.fate}: {reason}"

    def rest(self) -> str:
        """One line for those of the present round that had none; empty when all had one."""
        more, self._more = self._more, 0
        clients = "client" if more == 1 else "clients"
        return f"round {self._round}: {more} more {clients} did not contribute" if more else ""
