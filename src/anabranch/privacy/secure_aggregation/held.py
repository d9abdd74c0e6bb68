"""The update that a client holds until a sum is formed (asynchronous rounds).

A client has one open training task of a run, so it holds one update. It goes behind masks once:
two sums with the same update in them would tell, by their difference, what the others put in.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from anabranch.errors import AnabranchError
from anabranch.privacy.secure_aggregation.bases import Base
from anabranch.privacy.secure_aggregation.primitives import DIGEST_BYTES, KEY_BYTES, digest
from anabranch.privacy.secure_aggregation.stored import unreadable
from anabranch.privacy.secure_aggregation.wire import Reader, Writer

__all__ = ["Held", "held_bytes", "read_held"]

_MAGIC = b"anabranch-secagg-held/1"


@dataclass(frozen=True)
class Held:
    """One update.

    Attributes:
        base: what it was made from.
        nonce: hides the update in its commitment.
        content: the packed update; empty once it went behind masks.
    """

    base: Base
    nonce: bytes = field(repr=False)
    content: bytes = field(repr=False)

    @property
    def commitment(self) -> bytes:
        """32 bytes that the client shows when it has trained: they fix the update, hidden."""
        return digest("held", self.nonce + self.content)


def held_bytes(held: Held) -> bytes:
    """For the disk."""
    base = held.base
    writer = Writer().raw(_MAGIC).raw(bytes.fromhex(base.task)).number(base.round)
    return writer.raw(base.model).raw(held.nonce).finish() + held.content


def read_held(stored: bytes) -> Held:
    """The inverse of `held_bytes`.

    Raises:
        AnabranchError: AB-969 if it is damaged or of another version.
    """
    try:
        head = len(_MAGIC) + 16 + 8 + DIGEST_BYTES + KEY_BYTES
        reader = Reader(stored[:head])
        if reader.raw(len(_MAGIC)) != _MAGIC:
            raise unreadable("it is of another version")
        base = Base(reader.raw(16).hex(), reader.number(), reader.raw(DIGEST_BYTES))
        return Held(base, reader.raw(KEY_BYTES), stored[head:])
    except AnabranchError as error:
        raise error if error.code == "AB-969" else unreadable(error.message) from error
