"""The two-phase memory of simulated clients, as a runtime uses it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from anabranch.client.states import SlotFile
from anabranch.client.task import TaskKind
from anabranch.coordinator.runtime import Fate

__all__ = ["ClientMemories"]


class ClientMemories:
    """Says which slots a task reads and writes, and promotes or discards by fate.

    Args:
        slots: the slot file, or None when clients keep nothing.
    """

    def __init__(self, slots: SlotFile | None) -> None:
        self._slots = slots

    def slots(self, kind: TaskKind, clients: Sequence[int]) -> dict[int, tuple[int, int]]:
        """For each client the slot to read and, in training, the one to write (else -1)."""
        if self._slots is None or kind is TaskKind.HOLDOUT:
            return {}
        training = kind is TaskKind.TRAIN
        return {
            client: (
                self._slots.current_slot(client),
                self._slots.pending_slot(client) if training else -1,
            )
            for client in clients
        }

    def settle(self, fates: Mapping[int, Fate]) -> None:
        if self._slots is None:
            return
        for client, fate in fates.items():
            if fate.counts:
                self._slots.promote(client)
            else:
                self._slots.discard(client)
