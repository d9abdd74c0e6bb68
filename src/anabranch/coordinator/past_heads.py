"""Heads and receipts of runs that nobody carries any more, read from the store when asked for.

A client that was away when a run ended, or whose coordinator was started again since, proves its
updates all the same.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from anabranch.coordinator.heads import HEAD_EVENT, RunHeads
from anabranch.coordinator.store import Store, StoredEvent
from anabranch.errors import AnabranchError
from anabranch.fleet.receipts import Head, SignedHead

__all__ = ["PastHeads"]

_RUNS: Final = 4
_UNKNOWN: Final = "AB-608"


class PastHeads:
    """Heads by run; the last few runs that were asked for stay in memory.

    Any thread may ask.

    Args:
        store: folder of the store.
    """

    def __init__(self, store: Path) -> None:
        self._store = Path(store)
        self._lock = threading.Lock()
        self._recent: OrderedDict[str, RunHeads] = OrderedDict()

    def __call__(self, run: str) -> RunHeads | None:
        """What a run told; None when it is not in the store, has not ended, or made no heads.

        Raises:
            AnabranchError: AB-748 a stored head is damaged; AB-6xx the store.
        """
        with self._lock:
            found = self._recent.get(run)
            if found is None:
                found = self._read(run)
                if found is None:
                    return None
                self._recent[run] = found
            self._recent.move_to_end(run)
            while len(self._recent) > _RUNS:
                self._recent.popitem(last=False)
            return found

    def _read(self, run: str) -> RunHeads | None:
        def stored(round_: int | None) -> Sequence[StoredEvent]:
            with Store.open(self._store, create=False) as store:
                return store.events(run, HEAD_EVENT, round_)

        try:
            with Store.open(self._store, create=False) as store:
                if store.run(run).status == "running":  # it may still make heads
                    return None
        except AnabranchError as error:
            if error.code != _UNKNOWN:
                raise
            return None
        heads = RunHeads(run, _sealed)
        heads.recall(stored)
        return heads if heads.heads(-1, 1) else None


def _sealed(head: Head) -> SignedHead:
    """A run that has ended makes no more heads."""
    raise ValueError(f"run {head.run!r} has ended")
