"""Fetching heads and receipts: what `anabranch verify` later looks at, offline."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from anabranch.client.task import Fate
from anabranch.errors import AnabranchError
from anabranch.runtimes.http.client.line import Line, parsed
from anabranch.runtimes.http.messages import Proofs

if TYPE_CHECKING:
    from anabranch.client.home import ClientHome

__all__ = ["Proving"]

_MANY: Final = 32
_SECONDS: Final = 2.0
_REQUESTS: Final = 20  # of one turn: the rest waits for the next
_OPEN_TRIES: Final = 50  # a task whose fate was not told
_MERGED_TRIES: Final = 500  # a task that was told to be merged; `verify` says that it is unproved


@dataclass
class _Wanted:
    run: str
    round: int
    merged: bool = False
    asked: int = 0


@dataclass
class Proving:
    """What is still to be proved to one client, and how it is asked for.

    Proofs are fetched for several rounds at once, so that short rounds are not made longer.

    A task is asked about until its receipt is there, or it was told to be dropped, or it was asked
    about too often: of a run that has ended, the last fate may never be told, but its receipt is.

    Attributes:
        home: keeps them.
    """

    home: ClientHome
    _wanted: dict[str, _Wanted] = field(default_factory=dict)
    _last: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        for part in self.home.evidence.unproved():  # of an earlier process
            self._wanted[part.task] = _Wanted(part.run, part.round, merged=True)

    def offered(self, task: str, run: str, round_: int) -> None:
        """A task of this run may be merged later."""
        self._wanted[task] = _Wanted(run, round_)

    def told(self, task: str, fate: Fate) -> None:
        """What became of a task: a merged one is to be proved."""
        found = self._wanted.get(task)
        if found is not None and fate.counts:
            found.merged = True
        elif found is not None:
            del self._wanted[task]

    def fetch(self, line: Line, *, now: bool = False) -> None:
        """Ask for what is wanted, when it is worth a request.

        Args:
            line: to the coordinator.
            now: however little it is.

        Raises:
            AnabranchError: AB-748 what the coordinator shows does not hold; AB-6xx the disk.
        """
        waited = time.monotonic() - self._last
        if not self._wanted or not (now or waited >= _SECONDS or len(self._wanted) >= _MANY):
            return
        self._last = time.monotonic()
        for run in dict.fromkeys(wanted.run for wanted in self._wanted.values()):
            try:
                self._run(run, line)
            except AnabranchError as error:
                if error.code == "AB-748" or error.code.startswith("AB-6"):
                    raise
                # Anything else may be better next time; nothing is proved until then.

    def _run(self, run: str, line: Line) -> None:
        evidence = self.home.evidence
        for _ in range(_REQUESTS):
            tasks = {task: wanted for task, wanted in self._wanted.items() if wanted.run == run}
            if not tasks:
                return
            known, first = evidence.latest(run), min(wanted.round for wanted in tasks.values())
            after = known.round if known is not None else max(first - 1, 0)
            some = list(tasks)[:_MANY]
            query: dict[str, str | list[str]] = {"after": str(after), "task": some}
            shown = parsed(Proofs, line.send("GET", f"/runs/{run}/proofs", params=query))
            if shown.heads:
                evidence.shown(run, shown.heads)
            for upload in shown.uploads:
                evidence.keep(upload.receipt, upload.hashes)
                self._wanted.pop(upload.receipt.leaf.task, None)
            self._tire(some)
            if not (shown.heads or shown.uploads):
                return

    def _tire(self, tasks: Iterable[str]) -> None:
        """These were asked about; what nobody could prove or tell for long is given up."""
        for task in tasks:
            wanted = self._wanted.get(task)
            if wanted is not None:
                wanted.asked += 1
                if wanted.asked >= (_MERGED_TRIES if wanted.merged else _OPEN_TRIES):
                    del self._wanted[task]
