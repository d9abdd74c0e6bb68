"""The plan's downlink in the loop: clients compute with what was sent; its bytes are counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from anabranch.algorithms.base import Broadcast
from anabranch.client.program import ClientProgram
from anabranch.coordinator.collect import Collected, OpenWork
from anabranch.coordinator.frames import Frames
from anabranch.coordinator.runtime import Fate, Framed
from anabranch.coordinator.store import Arrays
from anabranch.fleet.view import Column
from anabranch.updates.downlink import Downlink
from anabranch.updates.downlink_state import DownlinkState

__all__ = ["Downstream", "Sending"]

_PREFIX = "downlink."
_ANSWERED = frozenset((Fate.MERGED, Fate.MERGED_LATE, Fate.REFUSED))
"""Who answered has decoded the broadcast; of all others it is not known."""


@dataclass(frozen=True)
class Sending:
    """The broadcast of one round.

    Attributes:
        vectors: what clients compute with.
        before: the state before this broadcast; None when vectors are sent as they are.
        state: the state after it.
    """

    vectors: Broadcast
    before: DownlinkState | None = None
    state: DownlinkState | None = None
    _frames: dict[int, bytes] = field(default_factory=dict, repr=False)
    """By the version that a client holds: where clients are asked one by one, each is made once."""

    def addressed(self, opened: OpenWork, framed: Framed = "differences") -> OpenWork:
        """The work with the frame that each of its clients gets."""
        if self.before is None or self.state is None:
            return opened
        clients = opened.work.clients
        held = self.before.held[list(clients)].tolist()
        lengths = {name: len(vector) for name, vector in self.vectors.items()}
        if missing := set(held) - self._frames.keys():
            self._frames.update(self.state.frames(missing, lengths))
        versions = dict(zip(clients, held, strict=True))
        names, whole = tuple(self.vectors), self.state.whole
        frames = Frames(names, whole)
        if framed == "differences":
            frames = Frames.of(names, whole, versions, self._frames)
        return replace(opened, work=replace(opened.work, frames=frames))

    def sizes(self, framed: Framed = "differences") -> Column | None:
        """Bytes that each client of the fleet would be sent; None where all get float32."""
        if self.before is None or self.state is None:
            return None
        return self.state.sizes(self.before.held, differences=framed == "differences")

    def kept(self, collected: Collected) -> Arrays:
        """What the next round needs to know, for the durable state of the run."""
        if self.state is None:
            return {}
        answered: dict[int, list[int]] = {}
        for key, outcome in collected.outcomes.items():
            if outcome.fate in _ANSWERED:
                answered.setdefault(collected.works[key.task].round, []).append(key.client)
        state = self.state
        for version, clients in answered.items():
            state = state.received(clients, version)
        return {_PREFIX + name: value for name, value in state.arrays().items()}


@dataclass
class Downstream:
    """Encodes the broadcasts of one run.

    Attributes:
        program: what clients run; its first broadcast is the origin, which all of them know.
        clients: enrolled clients.
    """

    program: ClientProgram
    clients: int

    def sending(self, number: int, vectors: Broadcast, extra: Arrays) -> Sending:
        """The broadcast of round ``number``, from the state that the last one left in ``extra``."""
        downlink = self.program.downlink
        if downlink is None:
            return Sending(vectors)
        before = self._state(downlink, vectors, extra)
        decoded, state = downlink.step(vectors, self.program.origin, before, number)
        return Sending(decoded, before, state)

    def _state(self, downlink: Downlink, vectors: Broadcast, extra: Arrays) -> DownlinkState:
        own: Mapping[str, np.ndarray] = {
            name.removeprefix(_PREFIX): value
            for name, value in extra.items()
            if name.startswith(_PREFIX)
        }
        if not own:
            return downlink.start(self.clients)
        lengths = {name: len(v) for name, v in vectors.items()}
        return DownlinkState.from_arrays(own, lengths).for_clients(self.clients)
