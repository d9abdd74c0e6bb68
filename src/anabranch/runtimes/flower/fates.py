"""Fates of tasks on a Flower fleet: told after the commit, kept on the coordinator's disk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from anabranch.client.task import Fate
from anabranch.coordinator.store import RoundRecord, RunSession
from anabranch.disk import explained, write_durably
from anabranch.runtimes.http.messages import TaskFate

__all__ = ["FatesFile"]

_REMEMBERED = 32
"""Fates that are kept for a client that does not come back to hear them."""


class FatesFile:
    """Fates by client. A file beside the store says for which round the newest ones hold.

    It is written before the round is committed and believed only up to the last durable round, so
    that a client is told "merged" only about rounds that exist. Flower drops messages of nodes that
    went away, so a fate is repeated until a later task of the client was answered.

    Args:
        path: of the file; made at the first round.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._round = 0
        self._held: dict[str, dict[str, Fate]] = {}
        self._told: dict[str, dict[str, Fate]] = {}

    def recover(self, last: int) -> None:
        """After a restart: believe what holds for the store's rounds up to ``last``."""
        if not self._path.exists():
            return
        with explained(self._path, "reading the fates of tasks"):
            document = json.loads(self._path.read_text("utf-8"))
        self._told = _parsed(document["told"])
        if int(document["round"]) <= last:
            self._merge(_parsed(document["held"]))

    def settle(self, task: str, fates: Mapping[str, Fate]) -> None:
        """Fates that hold once the next commit is durable."""
        for client, fate in fates.items():
            self._held.setdefault(client, {})[task] = fate

    def of(self, client: str) -> tuple[TaskFate, ...]:
        """What a client is told with its next task."""
        return tuple(
            TaskFate(task=task, fate=fate) for task, fate in self._told.get(client, {}).items()
        )

    def heard(self, client: str, told: tuple[TaskFate, ...]) -> None:
        """The client answered a task that carried these fates."""
        known = self._told.get(client, {})
        for fate in told:
            known.pop(fate.task, None)

    # The journal's side ----------------------------------------------------------------------

    def recall(self, session: RunSession) -> None:
        """Nothing: the file says it all."""

    def witness(self, record: RoundRecord) -> RoundRecord:
        """The round that is about to be committed."""
        self._round = record.round
        return record

    def sync(self) -> None:
        """Write down what will hold after the commit."""
        document = {"round": self._round, "held": _plain(self._held), "told": _plain(self._told)}
        with explained(self._path, "writing the fates of tasks"):
            write_durably(self._path, json.dumps(document).encode(), "fates")

    def durable(self) -> Mapping[int, int]:
        """No slot is named by the commit."""
        return {}

    def committed(self) -> None:
        """The round is durable: its fates may be told."""
        self._merge(self._held)
        self._held = {}

    def _merge(self, held: Mapping[str, Mapping[str, Fate]]) -> None:
        for client, fates in held.items():
            known = self._told.setdefault(client, {})
            known.update(fates)
            while len(known) > _REMEMBERED:
                del known[next(iter(known))]


def _plain(fates: Mapping[str, Mapping[str, Fate]]) -> dict[str, dict[str, str]]:
    return {c: {task: fate.value for task, fate in tasks.items()} for c, tasks in fates.items()}


def _parsed(document: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, Fate]]:
    return {c: {task: Fate(word) for task, word in tasks.items()} for c, tasks in document.items()}
