"""What a round's record keeps of its selections: reasons of the selected, codes of the rest."""

from __future__ import annotations

import time
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from anabranch.coordinator.store import Json, StoredEvent
from anabranch.fleet.selection import Code, CodeColumn, Reason, Selection
from anabranch.updates.zstd import compress, decompress

__all__ = ["SELECTION", "codes_of", "selection_events"]

SELECTION: Final = "selection"
"""Details: ``dispatches`` of the round, clients by ``reasons``, clients by ``codes`` (of all its
dispatches), and ``column``: the last dispatch's code of every client, for `codes_of`."""

_PLAIN = frozenset({Code.SELECTED, Code.NOT_DRAWN})


def selection_events(selections: Sequence[Selection]) -> tuple[StoredEvent, ...]:
    """One event for the dispatches of a round; none where all clients were alike to the draw."""
    codes: Counter[Code] = Counter()
    reasons: Counter[Reason] = Counter()
    for selection in selections:
        codes.update(selection.counts())
        reasons.update(selection.reasons)
    alike = set(codes) <= _PLAIN and set(reasons) <= {Reason.DRAWN, Reason.EVERYONE}
    if not selections or alike:
        return ()
    details: dict[str, Json] = {
        "dispatches": len(selections),
        "reasons": {reason.value: count for reason, count in sorted(reasons.items())},
        "codes": {code.words: count for code, count in sorted(codes.items())},
        "column": _packed(selections[-1].codes),
    }
    told = ", ".join(f"{count} {reason.value}" for reason, count in reasons.most_common())
    left = codes.total() - codes[Code.SELECTED]
    text = f"selected: {told or 'nobody'}; not selected: {left}"
    return (StoredEvent(SELECTION, text, at=time.time(), details=details),)


def _packed(codes: CodeColumn) -> str:
    return b64encode(compress(codes.astype(np.int8).tobytes(), 3)).decode()


def codes_of(details: Mapping[str, Json]) -> CodeColumn:
    """The code of every client in a round's last dispatch, shape (fleet,).

    >>> column = np.array([0, 1, 1, 6], np.int8)
    >>> codes_of({"column": _packed(column)}).tolist()
    [0, 1, 1, 6]
    """
    packed = details.get("column")
    if not isinstance(packed, str):
        return np.empty(0, np.int8)
    return np.frombuffer(decompress(b64decode(packed)), np.int8)
