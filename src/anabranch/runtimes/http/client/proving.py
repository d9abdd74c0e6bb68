"""Fetching heads and receipts: what `anabranch verify` later looks at, offline."""

from __future__ import annotations

import time
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


@dataclass
class Proving:
    """What is still to be proved to one client, and how it is asked for.

    Proofs are fetched for several rounds at once, so that short rounds are not made longer.

    Attributes:
        home: keeps them.
    """

    home: ClientHome
    _wanted: dict[str, tuple[str, int]] = field(default_factory=dict)
    _offered: dict[str, tuple[str, int]] = field(default_factory=dict)
    _last: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        for part in self.home.evidence.unproved():  # of an earlier process
            self._wanted[part.task] = (part.run, part.round)

    def offered(self, task: str, run: str, round_: int) -> None:
        """A task of this run may be merged later."""
        self._offered[task] = (run, round_)
        while len(self._offered) > 1000:
            del self._offered[next(iter(self._offered))]

    def told(self, task: str, fate: Fate) -> None:
        """What became of a task: a merged one is to be proved."""
        found = self._offered.pop(task, None)
        if fate.counts and found is not None:
            self._wanted[task] = found

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
        for run in dict.fromkeys(run for run, _ in self._wanted.values()):
            try:
                self._run(run, line)
            except AnabranchError as error:
                if error.code == "AB-748" or error.code.startswith("AB-6"):
                    raise
                # Anything else may be better next time; nothing is proved until then.

    def _run(self, run: str, line: Line) -> None:
        evidence = self.home.evidence
        for _ in range(_REQUESTS):
            tasks = {t: n for t, (of, n) in self._wanted.items() if of == run}
            known = evidence.latest(run)
            after = known.round if known is not None else max(min(tasks.values()) - 1, 0)
            some = list(tasks)[:_MANY]
            query: dict[str, str | list[str]] = {"after": str(after), "task": some}
            shown = parsed(Proofs, line.send("GET", f"/runs/{run}/proofs", params=query))
            if shown.heads:
                evidence.shown(run, shown.heads)
            for upload in shown.uploads:
                evidence.keep(upload.receipt, upload.hashes)
                self._wanted.pop(upload.receipt.leaf.task, None)
            left = any(of == run for of, _ in self._wanted.values())
            if not left or not (shown.heads or shown.uploads):
                return
