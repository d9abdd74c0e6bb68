"""How large updates were, and how coarsely they were encoded to fit what the plan allows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from anabranch.coordinator.store import Column
from anabranch.fleet.timeline import TRACE_PREFIX
from anabranch.observe.view import RunView, UpdateView
from anabranch.observe.words import bytes_in_words

__all__ = ["HEADER", "budget_rows", "updates_of"]

HEADER = ("network", "allowed", "tasks", "sent", "median", "largest", "coarseness", "did not fit")
_TOO_LARGE = "AB-524"


def updates_of(columns: Mapping[str, Column]) -> tuple[UpdateView, ...]:
    """Sizes and choices of a round's updates; empty where nothing was chosen."""
    if "coarseness" not in columns and "budget" not in columns:
        return ()
    rows = len(columns["client"])
    empty: Sequence[None] = [None] * rows

    def numbers(name: str) -> list[float | None]:
        cells = columns.get(name, empty)
        return [float(cell) if isinstance(cell, int | float) else None for cell in cells]

    networks = columns.get(f"{TRACE_PREFIX}network", empty)
    found = zip(
        columns["fate"],
        (str(network or "") for network in networks),
        numbers("budget"),
        numbers("bytes_up"),
        numbers("coarseness"),
        (str(detail or "") for detail in columns.get("detail", empty)),
        strict=True,
    )
    return tuple(
        UpdateView(network, None if most is None else int(most), int(size or 0), coarse,
                   _TOO_LARGE in detail)
        for fate, network, most, size, coarse, detail in found
        if fate
    )  # fmt: skip


def budget_rows(view: RunView) -> list[tuple[str, ...]]:
    """One row for each kind of network and number of bytes allowed, over all rounds."""
    groups: dict[tuple[str, int], list[UpdateView]] = defaultdict(list)
    for update in (u for r in view.rounds for u in r.updates):
        groups[update.network, update.budget or 0].append(update)
    return [_row(network, most, groups[network, most]) for network, most in sorted(groups)]


def _row(network: str, most: int, updates: Sequence[UpdateView]) -> tuple[str, ...]:
    sizes = [u.size for u in updates if u.size]
    return (
        network or "not known",
        bytes_in_words(most) if most else "as the plan says",
        str(len(updates)),
        str(len(sizes)),
        bytes_in_words(int(median(sizes))) if sizes else "–",
        bytes_in_words(max(sizes)) if sizes else "–",
        _span(u.coarseness for u in updates if u.coarseness is not None),
        str(sum(u.too_large for u in updates)),
    )


def _span(numbers: Iterable[float]) -> str:
    """Least and most, or the one number."""
    shown = sorted({f"{number:.3g}": number for number in numbers}.items(), key=lambda e: e[1])
    if not shown:
        return "–"
    return shown[0][0] if len(shown) == 1 else f"{shown[0][0]} to {shown[-1][0]}"
