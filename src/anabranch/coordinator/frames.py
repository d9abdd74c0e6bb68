"""A broadcast as each client gets it, where the plan has a downlink."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Frames"]


@dataclass(frozen=True, slots=True)
class Frames:
    """One broadcast, encoded.

    Attributes:
        names: the sections that every frame holds; other sections go down as they are.
        whole: the frame that every client can read, whatever it holds.
        differences: shorter frames, by the version that their readers hold.
        bases: that version, by client; clients that are left out get ``whole``.
    """

    names: tuple[str, ...]
    whole: bytes
    differences: Mapping[int, bytes] = field(default_factory=dict)
    bases: Mapping[int, int] = field(default_factory=dict)

    @staticmethod
    def of(
        names: tuple[str, ...], whole: bytes, held: Mapping[int, int], frames: Mapping[int, bytes]
    ) -> Frames:
        """For clients that hold the versions ``held``, with the best frame for each version."""
        shorter = {v: frame for v, frame in frames.items() if v and frame is not whole}
        bases = {client: v for client, v in held.items() if v in shorter}
        return Frames(names, whole, shorter, bases)

    def frame(self, client: int) -> bytes:
        """What one client gets."""
        return self.differences.get(self.bases.get(client, 0), self.whole)
