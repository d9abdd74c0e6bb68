"""One secure sum, from the first invitation to the opened total: events in, work out.

::

    keys -> nonces -> shares -> update (the training or evaluation itself) -> signatures -> reveals

Where there is no roster, clients whose key is not known are asked for it first (hello). Each phase
asks the clients that answered the one before, and is closed when all have answered or its time is
up. Until the update is asked for, a sum that fails is tried again with those who answered; later it
is given up, because a second sum over the same model would tell what the two differ by. Whatever
happens, one set of survivors at most is ever opened.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from enum import IntEnum
from hashlib import sha256

from anabranch.client.secure import broadcast_digest
from anabranch.client.task import Fate, TaskKind
from anabranch.coordinator.runtime import Outcome, Partial, Payload, RuntimeEvent, Work
from anabranch.coordinator.secure_journal import SumRecord
from anabranch.coordinator.secure_setup import SecureSetup
from anabranch.errors import AnabranchError
from anabranch.privacy.secure_aggregation import server
from anabranch.privacy.secure_aggregation.bases import NO_BASES, Bases
from anabranch.privacy.secure_aggregation.context import RoundContext
from anabranch.privacy.secure_aggregation.key_messages import (
    Hello,
    Introduction,
    Invitation,
    KeyAdvert,
    NonceOpening,
)
from anabranch.privacy.secure_aggregation.message import SignedMessage
from anabranch.privacy.secure_aggregation.messages import (
    MaskedInput,
    ShareBundle,
    SurvivorSignature,
    UnmaskReply,
)
from anabranch.privacy.secure_aggregation.refusals import bad_signature
from anabranch.privacy.secure_aggregation.stored import read_reveals, reveals_bytes
from anabranch.updates.total import Finest

__all__ = ["Phase", "SecureSum", "half_opened"]


class Phase(IntEnum):
    """What is waited for."""

    HELLO = -1
    KEYS = 0
    NONCES = 1
    SHARES = 2
    UPDATE = 3
    SIGNATURES = 4
    REVEALS = 5


def half_opened(setup: SecureSetup, purpose: str) -> RoundContext | None:
    """What the newest sum was about, if clients may have been asked to open it."""
    record = setup.journal.load(purpose, setup.journal.newest(purpose))
    if record is None or not record.reveals:
        return None
    context = read_reveals(record.reveals).inputs.group.context
    return context if context.run == setup.run else None


class SecureSum:
    """Drives one sum. It sends nothing itself: `advance` says what is to be asked next.

    Args:
        setup: of the run.
        work: the sum that is wanted, as if in the clear.
        bases: what the updates were made from that the clients hold already (asynchronous rounds);
            the round of ``work`` then counts the sums.
    """

    def __init__(self, setup: SecureSetup, work: Work, bases: Bases = NO_BASES) -> None:
        self._setup, self._wanted, self._bases = setup, work, bases
        self._numbers = {setup.names[client]: client for client in work.clients}
        self._fates: dict[int, Outcome] = {}
        self._seconds: dict[int, float] = {}
        self._bytes: Counter[int] = Counter()
        self._state: server.ServerState | None = None
        self._asked: tuple[int, ...] = ()
        self._attempt = 0
        self._hello = sha256(f"{setup.run}/{work.task}/{work.round}".encode()).digest()
        self.phase = Phase.KEYS
        self.waiting: frozenset[int] = frozenset()
        self.task = work.task
        self.result: list[RuntimeEvent] | None = None

    @property
    def held(self) -> bool:
        """Whether the clients hold their updates already."""
        return bool(self._bases)

    def unmasked(self) -> frozenset[int]:
        """Clients that may be in another sum: nothing was asked of them that holds their update."""
        if self.phase >= Phase.UPDATE:
            return frozenset()
        return frozenset(self._wanted.clients) - self._fates.keys()

    @property
    def purpose(self) -> str:
        """What is summed up."""
        return self._wanted.kind.value

    # Steps ---------------------------------------------------------------------------------

    def begin(self) -> Work | None:
        """The first work; None when the sum has ended at once (`result` says how)."""
        key = (self.purpose, self._wanted.round)
        stored = self._setup.journal.load(*key)
        if stored is not None and stored.reveals:
            resumed = self._resume(stored)
            if resumed is not None:
                return resumed
        self._attempt = 0 if stored is None else stored.attempt + 1
        strangers = [c for c in self._wanted.clients if self._setup.key(c) is None]
        if not strangers or not self._setup.open:
            return self._try(self._attempt, self._wanted.clients)
        self.phase = Phase.HELLO
        letter = Hello(context=self._hello).to_bytes()
        return self._work({self._setup.names[client]: letter for client in strangers})

    def absorb(self, event: RuntimeEvent) -> None:
        """Take one event of the current phase."""
        if isinstance(event, Partial) or event.client not in self.waiting:
            if isinstance(event, Outcome) and event.seconds and self.phase is Phase.UPDATE:
                self._seconds[event.client] = event.seconds
            return
        if isinstance(event, Payload):
            self.waiting -= {event.client}
            self._receive(event.client, bytes(event.content))
        elif not event.fate.counts:
            self.waiting -= {event.client}
            self._drop(event.client, event.fate, event.detail)
        else:
            self._seconds[event.client] = event.seconds

    def advance(self) -> Work | None:
        """Close the phase; the next work, or None when the sum has ended."""
        for client in self.waiting:
            self._drop(client, Fate.TOO_LATE, "")
        self.waiting = frozenset()
        if self.phase is Phase.HELLO:
            return self._try(self._attempt, self._wanted.clients)
        state = self._closed()
        if isinstance(state, server.Abandoned):
            return self._again(f"{state.outcome.value}: {state.detail}")
        self._state = state
        if isinstance(state, server.Finished):
            self._finish(state)
            return None
        self.phase = Phase(self.phase + 1)
        if isinstance(state, server.CollectingReveals):
            # Before anybody is asked to reveal: after a crash the same request is made again.
            record = SumRecord(self._wanted.round, self._attempt, reveals_bytes(state))
            self._setup.journal.save(self.purpose, record)
        return self._work(self._letters(state))

    # Beginning -----------------------------------------------------------------------------

    def _try(self, attempt: int, clients: Sequence[int]) -> Work | None:
        self._attempt, self.phase = attempt, Phase.KEYS
        try:
            context = self._context(attempt, clients)
            self._state = server.open_round(context)
        except AnabranchError as error:
            self._fail(str(error))
            return None
        # An attempt is counted before anybody hears of it.
        self._setup.journal.save(self.purpose, SumRecord(self._wanted.round, attempt))
        letter = Invitation(context=context.digest, content=context.to_bytes()).to_bytes()
        return self._work(dict.fromkeys(context.roster, letter))

    def _context(self, attempt: int, clients: Sequence[int]) -> RoundContext:
        setup, work, terms = self._setup, self._wanted, self._setup.terms
        roster = {}
        for client in clients:
            key = setup.key(client)
            if key is None:
                self._drop(client, Fate.REFUSED, "not on the roster")
            else:
                roster[setup.names[client]] = key
        bases = self._bases.of_those(roster)
        codec = terms.codec_for(self.purpose, max(2, len(roster)))
        (entries, head), (canaries, enrolment) = setup.ledger(), setup.standing()
        return RoundContext(
            run=setup.run,
            round=work.round,
            attempt=attempt,
            model_digest=bases.model_digest if bases else broadcast_digest(work.broadcast),
            plan_digest=terms.plan_digest,
            ledger_head=head,
            roster=roster,
            length=codec.length,
            encoding=codec.encoding,
            corrupt_share=terms.corrupt_share,
            dropout_share=terms.dropout_share,
            minimum_survivors=max(terms.minimum, setup.needed.get(self.purpose, 0)),
            complete_below=terms.complete_below,
            purpose=self.purpose,
            canaries=canaries & set(roster),
            attempts=terms.attempts,
            unopened=terms.unopened,
            draw=terms.draw,
            ledger_length=entries,
            enrolment=enrolment,
            hybrid=terms.hybrid,
            bases=bases,
        )

    def _resume(self, stored: SumRecord) -> Work | None:
        """Ask once more for the shares of a sum that was about to be opened."""
        state = read_reveals(stored.reveals)
        context = state.inputs.group.context
        own = self._bases.model_digest if self.held else broadcast_digest(self._wanted.broadcast)
        mine = (self._setup.run, self.purpose, own)
        if (context.run, context.purpose, context.model_digest) != mine:
            return None
        self._attempt, self.phase, self._state = stored.attempt, Phase.REVEALS, state
        for client in self._wanted.clients:
            if self._setup.names[client] not in state.inputs.proofs:
                out = Outcome(client, Fate.LOST, "not in the sum", task=self._wanted.task)
                self._fates[client] = out
        return self._work(self._letters(state))

    # Phases --------------------------------------------------------------------------------

    def _receive(self, client: int, content: bytes) -> None:
        self._bytes[client] += len(content)
        if self.phase is Phase.HELLO:
            self._meet(client, content)
            return
        kind, receive = _RECEIVES[self.phase]
        try:
            message = kind.from_bytes(content)
            if message.sender != self._setup.names[client]:
                raise bad_signature(message.sender, "an answer")
            assert self._state is not None
            self._state = receive(self._state, message, check=self._setup.checker.verify)
        except AnabranchError as error:
            self._drop(client, Fate.REFUSED, str(error))

    def _meet(self, client: int, content: bytes) -> None:
        """Take the key that a client shows, once."""
        try:
            shown = Introduction.from_bytes(content)
            name, check = self._setup.names[client], self._setup.checker.verify
            signed = check(shown.key, shown.signature, shown.signed_content())
            if shown.context != self._hello or shown.sender != name or not signed:
                raise bad_signature(name, "its introduction")
            self._setup.met.setdefault(client, shown.key)
        except AnabranchError as error:
            self._drop(client, Fate.REFUSED, str(error))

    def _drop(self, client: int, fate: Fate, detail: str) -> None:
        """Out of the sum, if its update is not in it yet."""
        if self.phase <= Phase.UPDATE:
            words = detail or f"no {self.phase.name.lower()} in time"
            self._fates.setdefault(client, Outcome(client, fate, words, task=self._wanted.task))

    def _closed(self) -> server.ServerState:
        assert self._state is not None
        check = self._setup.checker.verify
        if self.phase is Phase.KEYS:
            return server.close_keys(self._state, check=check)
        if self.phase is Phase.NONCES:
            return server.close_nonces(self._state, check=check)
        if self.phase is Phase.SHARES:
            return server.close_shares(self._state)
        if self.phase is Phase.UPDATE:
            return server.close_inputs(self._state)
        if self.phase is Phase.SIGNATURES:
            return server.close_signatures(self._state)
        return server.close_reveals(self._state, threads=self._setup.threads)

    def _letters(self, state: server.ServerState) -> dict[str, bytes]:
        """What each client is sent next, by name."""
        if isinstance(state, server.CollectingNonces):
            return dict.fromkeys(state.ring.adverts, state.key_list.to_bytes())
        if isinstance(state, server.CollectingShares):
            for name in state.group.ring.adverts.keys() - state.group.adverts.keys():
                self._drop(self._numbers[name], Fate.DECLINED, "not drawn into the cohort")
            return dict.fromkeys(state.group.adverts, state.nonces.to_bytes())
        if isinstance(state, server.CollectingInputs):
            names = state.active.participants
            return {name: server.delivery_for(state, name).to_bytes() for name in names}
        if isinstance(state, server.CollectingSignatures):
            return {n: server.survivors_for(state, n).to_bytes() for n in state.survivors}
        assert isinstance(state, server.CollectingReveals)
        request = state.request.to_bytes()
        return {name: request for name, _ in state.request.signatures}

    def _work(self, letters: Mapping[str, bytes]) -> Work:
        wanted = self._wanted
        by_number = {self._numbers[name]: letter for name, letter in letters.items()}
        self._asked = tuple(client for client in wanted.clients if client in by_number)
        self.waiting = frozenset(self._asked)
        if self.phase is Phase.UPDATE and self._attempt == 0 and not self._bases:
            self.task = wanted.task
        else:
            name = f"{wanted.task}/{self._attempt}/{self.phase.value}"
            self.task = sha256(name.encode()).hexdigest()[:32]
        update = self.phase is Phase.UPDATE
        asked = TaskKind.MASK if self._bases else wanted.kind
        return replace(
            wanted,
            kind=asked if update else TaskKind.EXCHANGE,
            clients=self._asked,
            broadcast=wanted.broadcast if update else {},
            finest=Finest.INDIVIDUALS,
            task=self.task,
            letters=by_number,
            fractions=wanted.fractions if update else {},
        )

    # Ending --------------------------------------------------------------------------------

    def _again(self, reason: str) -> Work | None:
        there = tuple(client for client in self._asked if client not in self._fates)
        last = self._attempt + 1 >= self._setup.terms.attempts
        if self.phase < Phase.UPDATE and len(there) > 1 and not last:
            return self._try(self._attempt + 1, there)
        self._fail(reason)
        return None

    def _fail(self, reason: str) -> None:
        self.result = list(self.give_up(reason))

    def give_up(self, reason: str) -> list[Outcome]:
        """End the sum; everybody's outcome."""
        lost = [
            self._fates.get(client) or Outcome(client, Fate.LOST, reason, task=self._wanted.task)
            for client in self._wanted.clients
        ]
        return [self._measured(outcome) for outcome in lost]

    def _finish(self, state: server.Finished) -> None:
        codec = self._setup.terms.codec(state.context)
        task, inside = self._wanted.task, {self._numbers[name] for name in state.survivors}
        try:
            total = codec.decode(state.total, len(state.survivors))
        except AnabranchError as error:
            for client in inside:
                self._fates[client] = Outcome(client, Fate.REFUSED, str(error), task=task)
            self.result = list(self.give_up(error.message))
            return
        wrong = {self._numbers[name] for name in state.blamed}
        for client in inside:
            detail = "it revealed a share that was not dealt to it" if client in wrong else ""
            self._fates[client] = Outcome(client, Fate.MERGED, detail, task=task)
        ordered = tuple(client for client in self._wanted.clients if client in inside)
        self.result = [Partial(total, ordered, task), *self.give_up("it left the round")]

    def _measured(self, outcome: Outcome) -> Outcome:
        client = outcome.client
        seconds = self._seconds.get(client, 0.0)
        return replace(outcome, seconds=seconds, bytes_up=self._bytes[client])


_RECEIVES: Mapping[Phase, tuple[type[SignedMessage], Callable[..., server.ServerState]]] = {
    Phase.KEYS: (KeyAdvert, server.receive_keys),
    Phase.NONCES: (NonceOpening, server.receive_nonce),
    Phase.SHARES: (ShareBundle, server.receive_shares),
    Phase.UPDATE: (MaskedInput, server.receive_input),
    Phase.SIGNATURES: (SurvivorSignature, server.receive_signature),
    Phase.REVEALS: (UnmaskReply, server.receive_reveal),
}
