"""What clients of one run are told of their tasks: held until a commit, told until it was heard.

A fate is written to the spool before the store's commit, marked as not yet true; `release` says
that the commit happened. In between it is held here, and nobody hears of it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping

from anabranch.client.task import Fate
from anabranch.runtimes.http.messages import TaskFate
from anabranch.runtimes.http.server.spool import Spool

__all__ = ["Fates"]


class Fates:
    """Fates of one run's training tasks.

    Args:
        run: its id.
        spool: where they are durable.
        lock: of the desk; taken here where memory changes, never while the disk is written.
        remembered: fates that are told at once to a client that does not confirm them.
    """

    def __init__(self, run: str, spool: Spool, lock: threading.Condition, remembered: int) -> None:
        self._run, self._spool, self._lock = run, spool, lock
        self._remembered = remembered
        self._held: list[tuple[str, TaskFate]] = []
        self._told: dict[str, dict[str, TaskFate]] = {}

    def recover(self, last: int) -> None:
        """After a restart: which fates may be told, given the store's last durable round."""
        self._spool.release(self._run, last=last)
        for task, client, fate in self._spool.unheard(self._run):
            self._tell(client, TaskFate(task=task, fate=fate))

    def keep(self, task: str, fates: Mapping[str, Fate]) -> None:
        """Hold fates by client; under the desk's lock, so that the task is never unknown."""
        self._held += [(name, TaskFate(task=task, fate=fate)) for name, fate in fates.items()]

    def write(self, task: str, fates: Mapping[str, Fate], after: int) -> None:
        """Put what is held on the disk; ``after`` is the last durable round."""
        self._spool.hold(self._run, task, dict(fates), after)

    def release(self) -> list[str]:
        """The round is durable: those whose fates may be told from now on."""
        with self._lock:
            held, self._held = self._held, []
            for name, fate in held:
                self._tell(name, fate)
        self._spool.release(self._run)
        return [name for name, _ in held]

    def waiting_for(self, name: str) -> bool:
        """Whether a client has something to hear."""
        with self._lock:
            return bool(self._told.get(name))

    @property
    def unheard(self) -> int:
        """Fates that clients have not confirmed."""
        with self._lock:
            return sum(len(fates) for fates in self._told.values())

    def hear(self, name: str, heard: Iterable[str]) -> list[str]:
        """A client confirms fates of these tasks; those among them that it had been told."""
        fates = self._told.get(name, {})
        return [task for task in heard if fates.pop(task, None) is not None]

    def of(self, name: str) -> list[TaskFate]:
        """What a client is to be told now."""
        return list(self._told.get(name, {}).values())

    def told(self, name: str, task: str) -> TaskFate | None:
        """What a client is to be told of one task; None when there is nothing, or it was heard."""
        return self._told.get(name, {}).get(task)

    def holds(self, task: str) -> bool:
        """Whether the fate of a task is known, but not yet durable."""
        return any(held.task == task for _, held in self._held)

    def _tell(self, name: str, fate: TaskFate) -> None:
        fates = self._told.setdefault(name, {})
        fates[fate.task] = fate
        while len(fates) > self._remembered:  # of a client that never confirms
            del fates[next(iter(fates))]
