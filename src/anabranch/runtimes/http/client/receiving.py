"""From a download to the vectors of a round: as they are, or decoded by the plan's downlink."""

from __future__ import annotations

from typing import Final

from anabranch.algorithms.base import Broadcast
from anabranch.client.program import ClientProgram
from anabranch.errors import AnabranchError
from anabranch.runtimes.http.broadcasts import sections_beside, unpack_frame, vectors_digest
from anabranch.runtimes.http.held import HeldBroadcasts
from anabranch.runtimes.http.messages import TaskOffer, unpack_broadcast
from anabranch.updates.container import Buffer
from anabranch.updates.downlink_state import Held

__all__ = ["NOT_HELD", "received"]

NOT_HELD: Final = "AB-526"
"""The difference was of no use here: the whole model is to be fetched."""


def received(
    program: ClientProgram, held: HeldBroadcasts | None, offer: TaskOffer, content: Buffer
) -> Broadcast:
    """The vectors that a task's download holds.

    Args:
        program: says how broadcasts are encoded, and from where.
        held: earlier versions at this client; the new one is kept there.
        offer: names the version that the download leads on from.
        content: the download.

    Raises:
        AnabranchError: AB-526 the version it leads on from is not here, or not the coordinator's;
            AB-525 it cannot be read; AB-528 this client's first broadcast is another one than the
            coordinator's; AB-720 the vectors are not those of the program.
    """
    if not offer.decoded:
        return unpack_broadcast(content, program.broadcast_sections)
    downlink, origin = program.downlink, program.origin
    if downlink is None:
        raise _unlike("the plan has no downlink, and the download is encoded")
    beside = sections_beside(program.broadcast_sections, tuple(origin))
    frame, others = unpack_frame(content, beside)
    before = held.read(offer.base) if held is not None else Held()
    after, vectors = downlink.receive(frame, before, origin)
    if vectors_digest(vectors) != offer.decoded:
        raise _another(held, offer)
    if held is not None and downlink.remembers:
        held.keep(after, offer.base)
    return {**vectors, **others}


def _another(held: HeldBroadcasts | None, offer: TaskOffer) -> AnabranchError:
    """What to say of vectors that are not the coordinator's."""
    if not offer.base or held is None:
        return _unlike("the whole model that came down decodes to other numbers here")
    held.forget()
    return AnabranchError(
        NOT_HELD,
        f"the version {offer.base} that this client held is not the coordinator's.",
        fix="nothing: the whole model is fetched.",
        kept="Nothing was sent.",
    )


def _unlike(what: str) -> AnabranchError:
    return AnabranchError(
        "AB-528",
        f"{what}: the first broadcast of this client's program is not the coordinator's.",
        fix="use the same plan, the same version of the software and the same PyTorch at both "
        "ends; or leave out [updates.downlink].",
        kept="Nothing was sent; the round goes on without this client.",
    )
