"""Who may still take part in a private run, in columns: a mirror of what the ledger keeps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from anabranch.privacy.budget import ParticipationLimit

__all__ = ["Takers"]


class Takers:
    """The rounds in which clients take or took part, and who is free in the next one.

    Args:
        limit: how often, and how soon again.
        rounds: of every client by number, ascending, as the ledger holds them.
    """

    def __init__(self, limit: ParticipationLimit, rounds: Sequence[Sequence[int]]) -> None:
        self.limit = limit
        self._rounds = [list(known) for known in rounds]
        self._counts = np.array([len(known) for known in rounds], np.int64)
        self._last = np.array([known[-1] if known else -limit.separation for known in rounds])
        self._by_round: dict[int, set[int]] = {}
        for client, known in enumerate(rounds):
            for round_ in known:
                self._by_round.setdefault(round_, set()).add(client)

    def free(self, round_: int) -> NDArray[np.bool_]:
        """Which clients may be asked; those that were asked for this very round may be again.

        >>> takers = Takers(ParticipationLimit(most=2, separation=5), [[], [1], [1, 6], [8]])
        >>> takers.free(8).tolist()
        [True, True, False, True]
        """
        free = (self._counts < self.limit.most) & (round_ - self._last >= self.limit.separation)
        for client in self.at(round_):  # the round is computed again after a crash
            others = [other for other in self._rounds[client] if other != round_]
            free[client] = self.limit.allows(others, round_)
        return free

    def at(self, round_: int) -> set[int]:
        """Clients that take part in a round."""
        return self._by_round.get(round_, set())

    def add(self, round_: int, clients: Iterable[int]) -> None:
        """These clients take part."""
        for client in clients:
            if round_ not in self._rounds[client]:
                self._rounds[client] = sorted([*self._rounds[client], round_])
                self._refresh(client)
                self._by_round.setdefault(round_, set()).add(client)

    def drop(self, round_: int, clients: Iterable[int]) -> None:
        """These clients did not take part after all."""
        for client in clients:
            self._rounds[client].remove(round_)
            self._refresh(client)
        self._by_round[round_] = self.at(round_) - set(clients)

    def _refresh(self, client: int) -> None:
        known = self._rounds[client]
        self._counts[client] = len(known)
        self._last[client] = known[-1] if known else -self.limit.separation
