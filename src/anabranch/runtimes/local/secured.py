"""Simulated clients of secure sums: their sessions live here, beside the workers that train.

Workers compute updates; letters are answered and masks put on in this process, where all clients'
sessions are. What leaves this runtime is what real clients send: letters and masked vectors.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from anabranch.client.secure import broadcast_digest
from anabranch.client.task import TaskKind
from anabranch.coordinator.runtime import (
    Fate,
    Outcome,
    Payload,
    Runtime,
    RuntimeEvent,
    Work,
)
from anabranch.errors import AnabranchError
from anabranch.privacy.secure_aggregation.bases import Base
from anabranch.privacy.secure_aggregation.checking import SharedChecker
from anabranch.privacy.secure_aggregation.primitives import Entropy
from anabranch.privacy.secure_aggregation.session import ClientSession, MemoryKeeper
from anabranch.privacy.secure_aggregation.terms import Known, Terms
from anabranch.updates.wire import unpack

__all__ = ["SecureSimulation", "SimulatedMembers"]


@dataclass
class SimulatedMembers:
    """The sessions of all simulated clients, each made when its client is first asked.

    Attributes:
        names: by client number.
        terms: of the plan.
        entropy: secret randomness, also of identities.
    """

    names: Sequence[str]
    terms: Terms
    entropy: Entropy
    _sessions: dict[int, ClientSession] = field(default_factory=dict)
    _checker: SharedChecker = field(default_factory=SharedChecker)

    def session(self, client: int) -> ClientSession:
        """The client's session."""
        if client not in self._sessions:
            self._sessions[client] = ClientSession(
                self.names[client],
                self.entropy(32),
                self.terms,
                Known(),
                MemoryKeeper(),
                self._checker,
                self.entropy,
            )
        return self._sessions[client]

    def identity(self, client: int) -> bytes:
        """The client's public key."""
        return self.session(client).public_key


class SecureSimulation:
    """A local runtime whose clients keep sessions.

    Args:
        inner: computes updates.
        members: the clients' sessions.
        clock: seconds, for the time that clients work.
    """

    def __init__(
        self,
        inner: Runtime,
        members: SimulatedMembers,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._inner, self._members, self._clock = inner, members, clock
        self._letters: list[Work] = []
        self._masked: dict[str, tuple[Work, bytes]] = {}

    def submit(self, work: Work) -> None:
        if work.kind in (TaskKind.EXCHANGE, TaskKind.MASK):
            self._letters.append(work)
            return
        held = self._members.terms.holds(work.kind.value)
        if work.letters or held:
            self._masked[work.task] = (work, broadcast_digest(work.broadcast))
        self._inner.submit(replace(work, letters={}))

    def poll(self, timeout: float | None) -> Sequence[RuntimeEvent]:
        if self._letters:
            work = self._letters.pop(0)
            return [event for client in work.clients for event in self._answer(work, client)]
        events: list[RuntimeEvent] = []
        for event in self._inner.poll(timeout):
            known = self._masked.get(event.task)
            if isinstance(event, Payload) and known is not None:
                work, digest = known
                hold = not work.letters
                behind = self._hold(event, work, digest) if hold else self._mask(event, *known)
                events.append(behind)
            else:
                events.append(event)
        return events

    def abandon(self, task: str | None = None) -> Sequence[Outcome]:
        gone = [work for work in self._letters if task in (None, work.task)]
        self._letters = [work for work in self._letters if task not in (None, work.task)]
        late = [Outcome(c, Fate.TOO_LATE, task=work.task) for work in gone for c in work.clients]
        return [*late, *self._inner.abandon(task)]

    def settle(self, task: str, fates: Mapping[int, Fate]) -> None:
        self._masked.pop(task, None)
        self._inner.settle(task, fates)

    def now(self) -> float:
        return self._inner.now()

    def close(self) -> None:
        self._letters.clear()
        self._inner.close()

    def _answer(self, work: Work, client: int) -> list[RuntimeEvent]:
        started = self._clock()
        try:
            session, letter = self._members.session(client), work.letters[client]
            mask = work.kind is TaskKind.MASK
            content = session.mask_held(letter) if mask else session.answer(letter)
        except AnabranchError as error:
            return [Outcome(client, Fate.DECLINED, str(error), task=work.task)]
        seconds, size = self._clock() - started, len(content)
        return [
            Payload(client, content, work.task),
            Outcome(client, Fate.MERGED, "", seconds, size, work.task),
        ]

    def _hold(self, payload: Payload, work: Work, digest: bytes) -> RuntimeEvent:
        """The client keeps its update until a sum is formed, and shows that it has trained."""
        client, name = payload.client, self._members.names[payload.client]
        base = Base(work.task, work.round, digest)
        try:
            update = unpack(payload.content, work.fold.sections, name)
            shown = self._members.session(client).hold(base, update)
        except AnabranchError as error:
            return Outcome(client, Fate.REFUSED, str(error), task=work.task)
        return Payload(client, shown, work.task)

    def _mask(self, payload: Payload, work: Work, digest: bytes) -> RuntimeEvent:
        client, name = payload.client, self._members.names[payload.client]
        try:
            update = unpack(payload.content, work.fold.sections, name)
            letter = work.letters[client]
            content = self._members.session(client).mask(letter, update, digest)
        except AnabranchError as error:
            return Outcome(client, Fate.REFUSED, str(error), task=work.task)
        return Payload(client, content, work.task)
