"""What the clients of a piece of work download: the same for all, or a difference for some."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from anabranch.coordinator.runtime import Work
from anabranch.runtimes.http.broadcasts import pack_frame, pack_work, sections_beside
from anabranch.runtimes.http.messages import TaskOffer
from anabranch.runtimes.http.server.shelf import Item, Shelf
from anabranch.updates.sections import Sections

__all__ = ["Downloads"]


@dataclass(frozen=True)
class Downloads:
    """The downloads of one piece of work, on the shelf until `drop`.

    Attributes:
        common: what every client can read.
        decoded: SHA-256 of the vectors that it decodes to; empty where it holds them as they are.
        differences: smaller downloads, by the version that their readers hold.
        bases: that version by client.
        fetched: clients with a difference that fetched ``common`` all the same.
    """

    common: Item
    decoded: str = ""
    differences: Mapping[int, Item] = field(default_factory=dict)
    bases: Mapping[int, int] = field(default_factory=dict)
    fetched: set[int] = field(default_factory=set)

    @staticmethod
    def put(shelf: Shelf, work: Work, sections: Sections) -> Downloads:
        """Lay out what goes down with a work.

        Args:
            shelf: where downloads lie.
            work: its broadcast may be empty.
            sections: the type of a broadcast.

        Raises:
            AnabranchError: AB-6xx the disk.
        """
        parts, decoded = pack_work(work, sections)
        common, frames = shelf.put(parts), work.frames
        if frames is None or not decoded:
            return Downloads(common)
        beside = sections_beside(sections, frames.names)
        wanted = set(frames.bases.values())
        return Downloads(
            common=common,
            decoded=decoded,
            differences={
                version: shelf.put(pack_frame(frame, work.broadcast, beside))
                for version, frame in frames.differences.items()
                if version in wanted
            },
            bases=frames.bases,
        )

    def offered(self, offer: TaskOffer, client: int) -> TaskOffer:
        """The task with what this client shall download."""
        base = self.bases.get(client, 0)
        if not base:
            return offer
        item = self.differences[base]
        return offer.model_copy(
            update={
                "broadcast": item.digest,
                "bytes": item.size,
                "base": base,
                "whole": self.common.digest,
                "whole_bytes": self.common.size,
            }
        )

    def told(self, client: int, digest: str) -> None:
        """A client asked for a download by its name."""
        if client in self.bases and digest == self.common.digest:
            self.fetched.add(client)

    def drop(self, shelf: Shelf) -> None:
        """Nobody needs them any more."""
        for item in (self.common, *self.differences.values()):
            shelf.drop(item.digest)
