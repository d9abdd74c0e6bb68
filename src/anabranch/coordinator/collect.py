"""Collecting one piece of work: answers are merged as they come, and every client gets a fate."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from anabranch.aggregation.fold import Accumulator
from anabranch.coordinator.policies import OpenWork, Policy
from anabranch.coordinator.runtime import Fate, Outcome, Partial, Payload, Runtime, Work
from anabranch.errors import AnabranchError
from anabranch.updates.sections import Update
from anabranch.updates.total import Finest, Total
from anabranch.updates.wire import unpack

__all__ = ["Collected", "collect"]


@dataclass
class Collected:
    """The open state of one piece of work.

    Attributes:
        work: what is asked, and all clients that may be asked.
        started: when the first task was given out, in seconds of the loop's clock.
        asked: how many of the clients were asked so far.
        outcomes: by client number, as they come.
        decode: undoes the stages of one update before it is folded.
        individuals: single updates by client number, when the work asked for them.
    """

    work: Work
    started: float
    decode: Callable[[Update], Update] = lambda update: update
    asked: int = 0
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    individuals: dict[int, Update] = field(default_factory=dict)
    _sum: Accumulator = field(init=False)

    def __post_init__(self) -> None:
        self._sum = Accumulator(self.work.fold)

    def seen(self, now: float) -> OpenWork:
        """What a policy may know."""
        selected, merged = len(self.work.clients), self.contributors
        return OpenWork(selected, self.asked, len(self.outcomes), merged, now - self.started)

    def next_tasks(self, count: int) -> Work:
        """The work for the next ``count`` clients of the selection."""
        clients = self.work.clients[self.asked : self.asked + count]
        self.asked += len(clients)
        return replace(self.work, clients=clients)

    @property
    def contributors(self) -> int:
        """Updates in the sum."""
        return self._sum.contributors

    def total(self) -> Total:
        """The exact sum over everything merged."""
        return self._sum.total(copy=False)

    def absorb(self, event: Outcome | Payload | Partial, name: Callable[[int], str]) -> None:
        """Merge one event; an update that is not acceptable turns its client's fate to refused."""
        if isinstance(event, Outcome):
            known = self.outcomes.setdefault(event.client, event)
            if known.fate is event.fate is Fate.MERGED:  # a payload's outcome knows no time
                self.outcomes[event.client] = replace(known, seconds=event.seconds)
        elif isinstance(event, Partial):
            self._sum.absorb(event.total)
        else:
            self._absorb_payload(event, name(event.client))

    def _absorb_payload(self, payload: Payload, name: str) -> None:
        if payload.client in self.individuals:
            return  # a repeated delivery counts once
        try:
            update = self.decode(unpack(payload.content, self.work.fold.sections, name))
            self._sum.add(update, name)
        except AnabranchError as error:
            self.outcomes[payload.client] = Outcome(payload.client, Fate.REFUSED, str(error))
            return
        self.individuals[payload.client] = update
        if self.work.finest is not Finest.INDIVIDUALS:
            self.individuals[payload.client] = Update({}, {})  # merged; not kept
        size = len(payload.content)
        self.outcomes[payload.client] = Outcome(payload.client, Fate.MERGED, bytes_up=size)


def collect(
    work: Work,
    runtime: Runtime,
    policy: Policy,
    name: Callable[[int], str],
    decode: Callable[[Update], Update] = lambda update: update,
    clock: Callable[[], float] = time.monotonic,
) -> Collected:
    """Ask and wait by the policy; give up what is still open when it closes.

    Payloads of single clients are decoded here; sums come from where their updates were decoded.
    Every client that was asked has exactly one outcome at the end.
    """
    collected = Collected(work, clock(), decode)
    while not policy.close(collected.seen(clock())):
        if count := policy.dispatch(collected.seen(clock())):
            runtime.submit(collected.next_tasks(count))
        for event in runtime.poll(policy.patience(collected.seen(clock()))):
            collected.absorb(event, name)
    if collected.seen(clock()).waiting:
        for outcome in runtime.abandon():
            collected.absorb(outcome, name)
    for client in work.clients[: collected.asked]:
        collected.outcomes.setdefault(client, Outcome(client, Fate.LOST, "no answer"))
    return collected
