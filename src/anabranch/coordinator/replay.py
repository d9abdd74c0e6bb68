"""Rounds computed again from the updates that made them, bit for bit. Pure but for reading them.

The fold is exact and the server's rule is a pure function, so the model of a round follows from the
model before and the set of accepted updates: neither the order in which they came nor restarts of
the coordinator matter. The head of each round names both, which makes this an audit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from anabranch.aggregation.fold import FoldPlan
from anabranch.algorithms.base import RoundContext, ServerState
from anabranch.client.program import ClientProgram
from anabranch.client.task import TaskKind
from anabranch.coordinator.aggregate import aggregate
from anabranch.coordinator.collect import Collected, OpenWork
from anabranch.coordinator.heads import model_digest
from anabranch.coordinator.releasing import OpenReleases
from anabranch.coordinator.runtime import Fate, Outcome, Payload, Work
from anabranch.fleet.receipts import Head, Leaf
from anabranch.plan.schema import Plan
from anabranch.privacy.door import ReleaseDoor

__all__ = ["Recomputed", "recompute"]


@dataclass(frozen=True)
class Recomputed:
    """What a round should have been.

    Attributes:
        round: its number.
        holds: whether the model is the one that the head names.
        model: SHA-256 of the model that follows from the updates.
        uploads: how many.
    """

    round: int
    holds: bool
    model: str
    uploads: int


def recompute(
    plan: Plan,
    program: ClientProgram,
    names: tuple[str, ...],
    server: ServerState,
    fold: FoldPlan,
    rounds: Iterable[tuple[Head, tuple[Leaf, ...]]],
    read: Callable[[str], bytes],
) -> Iterator[Recomputed]:
    """Follow a run from its initial state.

    Args:
        plan: synchronous, without noise, masks or a coded broadcast.
        program: what clients ran.
        names: client identifiers by number.
        server: the state before round 1.
        fold: of a round.
        rounds: heads and uploads from round 1 on, in order.
        read: the bytes of an update by its SHA-256.

    Raises:
        AnabranchError: AB-745 an update is missing; AB-5xx an accepted update is not acceptable.
    """
    for head, leaves in rounds:
        if leaves:
            server = _made(plan, program, names, server, fold, head.round, leaves, read)
        model = model_digest({f"server.{k}": v for k, v in server.arrays().items()})
        yield Recomputed(head.round, model == head.model, model, len(leaves))


def _made(
    plan: Plan,
    program: ClientProgram,
    names: tuple[str, ...],
    server: ServerState,
    fold: FoldPlan,
    number: int,
    leaves: tuple[Leaf, ...],
    read: Callable[[str], bytes],
) -> ServerState:
    numbers = {name: client for client, name in enumerate(names)}
    collected = Collected(
        number, fold, 0.0, lambda update, work: program.pipeline.decode_one(update), False
    )
    for task in dict.fromkeys(leaf.task for leaf in leaves):
        clients = tuple(numbers[leaf.client] for leaf in leaves if leaf.task == task)
        work = Work(TaskKind.TRAIN, number, clients, {}, fold, task=task)
        collected.give_out(OpenWork.of(work, 0.0))
    for leaf in leaves:
        client = numbers[leaf.client]
        for event in (
            Payload(client, read(leaf.upload), leaf.task),
            Outcome(client, Fate.MERGED, task=leaf.task),
        ):
            collected.absorb(event, names.__getitem__, 0.0)
    releases, rules = OpenReleases(ReleaseDoor()), plan.rounds
    factor = rules.server_schedule.factor(number, rules.count)
    return aggregate(
        program,
        server,
        collected,
        context=RoundContext(number, len(names), factor),
        needed=1,
        release=lambda total, who: releases.release(number, total, who, server.model, {}),
    ).server
