"""Who may be given work of a run: who speaks a new enough version, and accepts its contract.

A contract is put to each client by itself (a *summons*). Who says no is given no work, and is asked
again later: somebody there may have agreed in the meantime. Who has not answered is given work of
a run that was never amended, for a client judges a contract with its first task, too; under an
amended contract it is given none. A yes to an amended contract is durable, so that a restart does
not ask anew.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from anabranch.disk import explained
from anabranch.runtimes.http.messages import Acceptance, Summons
from anabranch.runtimes.http.versions import AMENDMENTS, FIRST, Version

__all__ = ["Muster", "Standing"]

_AGAIN_SECONDS: Final = 10.0
"""A client that said no is asked again after so long: somebody there may have approved."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a client stands to the contract in force.

    Attributes:
        client: its name.
        answered: whether it said anything about it, or cannot.
        willing: whether it said yes; or is here and speaks a version that is not asked.
        reason: why it is given no work; empty when it is.
    """

    client: str
    answered: bool
    willing: bool
    reason: str = ""


@dataclass
class Muster:
    """The clients of one run under the contract in force.

    Attributes:
        run: its id.
        contract: digest of the contract.
        needs: version of the protocol that the run's tasks need.
        amended: whether the contract takes the place of another one.
        least: clients that make a round: while fewer than these would take part, nobody is asked.
        continuous: whether clients are asked one after the other, without rounds of all.
        book: file in which acceptances are durable; None keeps them in memory.
        software: version of the coordinator's software, for messages.
        clock: monotonic seconds.
    """

    run: str
    contract: str
    needs: Version = FIRST
    amended: bool = False
    least: int = 0
    continuous: bool = False
    book: Path | None = None
    software: str = ""
    clock: Callable[[], float] = time.monotonic
    _versions: dict[str, Version] = field(default_factory=dict)
    _accepted: set[str] = field(default_factory=set)
    _declined: dict[str, str] = field(default_factory=dict)
    _asked: dict[str, float] = field(default_factory=dict)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def __post_init__(self) -> None:
        self._speak = max(self.needs, AMENDMENTS) if self.amended else self.needs
        if self.amended and self.book is not None and self.book.exists():
            with explained(self.book, "reading who accepted the contract"):
                lines = self.book.read_text("utf-8").splitlines()
            told = (line.partition(" ") for line in lines)
            self._accepted = {name for digest, _, name in told if digest == self.contract}

    def speaks(self, name: str, version: Version) -> None:
        """A client is here and speaks this version."""
        with self._changed:
            if self._versions.get(name) != version:
                self._versions[name] = version
                self._changed.notify_all()

    def why_not(self, name: str) -> str:
        """Why a client is given no work now; empty when it is."""
        with self._changed:
            return self._reason(name)

    def _reason(self, name: str) -> str:
        version = self._versions.get(name)
        if version is not None and version < self._speak:
            return (
                f"AB-751 it speaks protocol {version}, and this run needs {self._speak}: install "
                f"anabranch {self.software} there"
            )
        if name in self._accepted:
            return ""
        silent = f"it has not answered yet to the amended contract {self.contract[:16]}"
        return self._declined.get(name, silent if self.amended else "")

    def available(self, names: Sequence[str]) -> NDArray[np.bool_] | None:
        """Which of these clients may be chosen now; None where all may.

        A client that says no is chosen for a round of all, and its outcome says that it declined.
        It is not where tasks would be given out again at once. Nobody is chosen while too few would
        take part to make a round: it would fail, and people only have not agreed yet.
        """
        with self._changed:
            out = np.array([bool(self._reason(name)) for name in names], np.bool_)
        if len(out) - int(out.sum()) < self.least:
            return np.zeros(len(out), np.bool_)
        return ~out if self.continuous and out.any() else None

    def summons(self, name: str) -> Summons | None:
        """What to ask a client now; not again right after it was asked."""
        now = self.clock()
        with self._changed:
            able = self._versions.get(name, FIRST) >= AMENDMENTS
            if name in self._accepted or not able:
                return None
            if now - self._asked.get(name, -_AGAIN_SECONDS) < _AGAIN_SECONDS:
                return None
            self._asked[name] = now
        return Summons(run=self.run, contract=self.contract)

    def answered(self, name: str, acceptance: Acceptance) -> bool:
        """A client said yes or no; whether that was about the contract in force.

        Raises:
            AnabranchError: AB-6xx a yes cannot be made durable, and does not count.
        """
        with self._changed:
            if acceptance.contract != self.contract:
                return False
            if not acceptance.accepted:
                self._accepted.discard(name)
                self._declined[name] = f"{acceptance.code} {acceptance.reason}".strip()
            elif name not in self._accepted:
                self._keep(name)
                self._accepted.add(name)
                self._declined.pop(name, None)
            self._changed.notify_all()
        return True

    def _keep(self, name: str) -> None:
        if self.book is None or not self.amended:
            return
        doing = "writing who accepted the contract"
        with explained(self.book, doing), self.book.open("a", encoding="utf-8") as file:
            file.write(f"{self.contract} {name}\n")
            file.flush()
            os.fsync(file.fileno())

    def standings(self, names: Iterable[str]) -> tuple[Standing, ...]:
        """How these clients stand."""
        with self._changed:
            return tuple(self._standing(name) for name in names)

    def _standing(self, name: str) -> Standing:
        version, reason = self._versions.get(name), self._reason(name)
        # Who speaks an older version cannot be asked, and is not waited for.
        old = version is not None and version < max(self._speak, AMENDMENTS)
        heard = name in self._accepted or name in self._declined
        unasked = version is not None and version < AMENDMENTS
        willing = not reason and (unasked or name in self._accepted)
        return Standing(name, old or heard, willing, reason)

    def wait(self, seconds: float) -> None:
        """Until a client says something, or the time is over."""
        with self._changed:
            self._changed.wait(seconds)
