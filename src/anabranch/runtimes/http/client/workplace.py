"""A client's work on one run: its program, its examples, and what it keeps between tasks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from anabranch.algorithms.base import Broadcast
from anabranch.client.answers import Answers
from anabranch.client.execute import execute
from anabranch.client.program import ClientProgram
from anabranch.client.secure import broadcast_digest
from anabranch.client.task import Reply, Task, TaskKind
from anabranch.data.federation import Examples, Federation
from anabranch.privacy.secure_aggregation.bases import Base
from anabranch.privacy.secure_aggregation.session import ClientSession
from anabranch.runtimes.http.client.options import not_the_protocol
from anabranch.runtimes.http.client.receiving import received
from anabranch.runtimes.http.held import HeldBroadcasts
from anabranch.runtimes.http.memory import ClientMemory
from anabranch.runtimes.http.messages import TaskOffer
from anabranch.updates.container import Buffer, joined
from anabranch.updates.wire import packed_parts

__all__ = ["ClientData", "Workplace", "answered_once"]


@dataclass(frozen=True)
class ClientData:
    """The examples of one client.

    Attributes:
        train: for training.
        test: for evaluation; the training examples when None.
    """

    train: Examples
    test: Examples | None = None

    @staticmethod
    def of(federation: Federation, name: str) -> ClientData:
        """One client's part of a federation."""
        number = federation.names.index(name)
        test = federation.test.of(number) if federation.test is not None else None
        return ClientData(federation.train.of(number), test)

    def asked(self, kind: TaskKind) -> Examples:
        """The examples that a task of this kind is about."""
        return self.train if kind is TaskKind.TRAIN or self.test is None else self.test


@dataclass(frozen=True)
class Workplace:
    """What a client has for the tasks of one run.

    Attributes:
        program: built from the contract.
        data: this client's examples.
        memory: between rounds.
        session: of secure sums, where the plan has them.
        answers: those that must not be made twice, where secret randomness is in them.
        held: versions of the model that are kept, where the plan sends differences.
    """

    program: ClientProgram
    data: ClientData
    memory: ClientMemory
    session: ClientSession | None = None
    answers: Answers | None = None
    held: HeldBroadcasts | None = None

    def readable(self, offer: TaskOffer) -> TaskOffer:
        """The task with a download that this client can read: the difference, or the whole."""
        known = self.held is not None and self.held.holds(offer.base)
        return offer if known else offer.self_contained()

    def answer(
        self, offer: TaskOffer, name: str, content: Buffer, letter: bytes = b""
    ) -> tuple[Buffer, ...]:
        """Do a task; what the client would remember is on the disk, pending, when this returns.

        Raises:
            AnabranchError: the task cannot be done; AB-979 it was done before, otherwise.
        """
        if self.session is not None and offer.kind is TaskKind.EXCHANGE:
            return (self.session.answer(letter),)
        if offer.kind is TaskKind.HOLDOUT:  # about examples of the coordinator, never of a client
            raise not_the_protocol("it asks a client for its hold-out examples")
        if self.answers is None:
            return self._made(offer, name, content, letter)
        return (
            answered_once(
                self.answers, offer, letter, lambda: self._made(offer, name, content, letter)
            ),
        )

    def _made(
        self, offer: TaskOffer, name: str, content: Buffer, letter: bytes
    ) -> tuple[Buffer, ...]:
        if self.session is not None and offer.kind is TaskKind.MASK:
            return (self.session.mask_held(letter),)
        broadcast = received(self.program, self.held, offer, content)
        reply = self._executed(offer, name, broadcast)
        train = offer.kind is TaskKind.TRAIN
        if train and reply.memory is not None:
            self.memory.write_pending(offer.task, reply.memory)
        if self.session is not None:
            # Behind masks or not at all, whatever the coordinator asks for.
            return (self._masked(offer, reply, broadcast_digest(broadcast), letter),)
        sections = self.program.sections if train else self.program.evaluation_sections
        return packed_parts(reply.update, sections)

    def _masked(self, offer: TaskOffer, reply: Reply, model: bytes, letter: bytes) -> bytes:
        """The update behind masks, or what shows that it waits for its sum."""
        assert self.session is not None
        if offer.kind is TaskKind.TRAIN and self.session.holds:
            return self.session.hold(Base(offer.task, offer.round, model), reply.update)
        return self.session.mask(letter, reply.update, model)

    def _executed(self, offer: TaskOffer, name: str, broadcast: Broadcast) -> Reply:
        draw, fraction = offer.draw or offer.round, float(offer.fraction or 1.0)
        most = offer.update_bytes or None
        left = offer.milliseconds / 1000 if offer.milliseconds else None
        task = Task(offer.kind, offer.round, 0, name, draw, offer.task, fraction, most, left)
        data, memory = self.data.asked(offer.kind), self.memory.read()
        with np.errstate(over="ignore", invalid="ignore"):  # the fold names such updates
            return execute(self.program, task, broadcast, memory, data)


def answered_once(
    answers: Answers,
    offer: TaskOffer,
    letter: bytes,
    make: Callable[[], tuple[Buffer, ...]],
) -> bytes:
    """The answer to a task: the bytes that were kept, or those that ``make`` makes, kept now.

    Raises:
        AnabranchError: AB-979 another question was answered under this task; AB-6xx they cannot be
            kept, so nothing may leave; whatever hinders ``make``.
    """
    asked = offer.question().encode()
    held = answers.recall(offer.task, asked, letter)
    if held is None:
        held = joined(make())
        answers.keep(offer.task, asked, held, letter)
    return held
