"""The hash chain over a run's releases: an entry cannot be changed, dropped or moved unnoticed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

from anabranch.coordinator.store.records import ReleaseEntry, StoredRelease
from anabranch.errors import AnabranchError

__all__ = ["checked", "first_link", "link"]


def first_link(run_id: str) -> str:
    """What the first entry of a run refers to: chains of different runs never mix."""
    return hashlib.sha256(f"anabranch releases 1\n{run_id}".encode()).hexdigest()


def link(round_: int, sequence: int, entry: ReleaseEntry, previous: str) -> StoredRelease:
    """Append ``entry`` to the chain whose head is ``previous`` (SHA-256 of canonical JSON)."""
    content = [previous, round_, sequence, entry.what, entry.mechanism, entry.details]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return StoredRelease(
        round_, sequence, entry, previous, hashlib.sha256(text.encode()).hexdigest()
    )


def checked(run_id: str, releases: Iterable[StoredRelease]) -> tuple[StoredRelease, ...]:
    """The releases, after recomputing every link.

    Raises:
        AnabranchError: AB-610 when an entry does not follow from the one before it.
    """
    head = first_link(run_id)
    result = []
    for sequence, stored in enumerate(releases):
        if stored != link(stored.round, sequence, stored.entry, head):
            raise AnabranchError(
                "AB-610",
                f"the release chain of run {run_id!r} is broken at entry {sequence}.",
                fix="restore the store from a backup; entries from there on are not trustworthy.",
            )
        head = stored.digest
        result.append(stored)
    return tuple(result)
