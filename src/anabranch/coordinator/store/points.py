"""Every instant at which a kill is tested: before and after each write, sync, rename and commit."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from anabranch.disk import file_points, in_place_points

__all__ = ["KILL_POINTS", "Purpose", "transaction_points"]

Purpose: TypeAlias = Literal["schema", "create", "status", "note", "round"]
"""What a transaction is for."""

_PURPOSES: Final[tuple[Purpose, ...]] = ("schema", "create", "status", "note", "round")


def transaction_points(purpose: Purpose) -> tuple[str, ...]:
    """The points of one transaction: open, rows written, committed."""
    return (f"{purpose}.begin", f"{purpose}.commit.before", f"{purpose}.commit.after")


KILL_POINTS: Final[tuple[str, ...]] = (
    "store.mkdir.before",
    "store.mkdir.after",
    *file_points("blob"),
    *(point for purpose in _PURPOSES for point in transaction_points(purpose)),
    "collect.delete.before",
    "collect.delete.after",
    *in_place_points("slots"),
)
"""All points of the store and of the client-state file; the kill test hits each of them."""
