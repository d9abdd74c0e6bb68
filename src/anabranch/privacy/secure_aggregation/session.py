"""A client over many rounds: what it agrees to, what it remembers, and its answer to each letter.

``begin`` and the other steps of ``client`` are one round. A ``ClientSession`` puts them behind two
calls, one for a letter that is answered with a letter and one for the update itself, and keeps what
must outlive a round: that a run went so far, that a model was summed up, whose keys were seen. All
of it is stored before an answer leaves.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from typing import Protocol, TypeAlias

from anabranch.aggregation.staleness import damped
from anabranch.privacy.secure_aggregation import client
from anabranch.privacy.secure_aggregation.bases import Base
from anabranch.privacy.secure_aggregation.checking import Checker
from anabranch.privacy.secure_aggregation.client_states import ClientState, Done
from anabranch.privacy.secure_aggregation.context import RoundContext
from anabranch.privacy.secure_aggregation.held import Held
from anabranch.privacy.secure_aggregation.key_messages import (
    Hello,
    Introduction,
    Invitation,
    KeyList,
    NonceList,
)
from anabranch.privacy.secure_aggregation.message import Message, kind_of, signed
from anabranch.privacy.secure_aggregation.messages import (
    ShareDelivery,
    SurvivorSet,
    UnmaskRequest,
)
from anabranch.privacy.secure_aggregation.primitives import KEY_BYTES, Entropy, public_identity
from anabranch.privacy.secure_aggregation.refusals import (
    invitation_refused,
    malformed,
    no_session,
    not_held,
    older,
    roster_refused,
)
from anabranch.privacy.secure_aggregation.remembered import Remembered, Track
from anabranch.privacy.secure_aggregation.terms import HELD_PURPOSE, Known, Terms
from anabranch.updates.sections import Update
from anabranch.updates.wire import pack, unpack

__all__ = ["ClientSession", "Keeper", "MemoryKeeper"]

_MODELS = 64
"""Models of which a track remembers that they were summed up: far more than are ever open."""


class Keeper(Protocol):
    """Keeps what a client remembers; durable where clients outlive a process."""

    def load(self) -> Remembered:
        """What was saved last; nothing at first."""
        ...

    def save(self, remembered: Remembered) -> None:
        """Durable when this returns."""
        ...

    def held(self) -> Held | None:
        """The update that waits for its sum, or that went into one."""
        ...

    def hold(self, held: Held) -> None:
        """Takes the place of an older one; durable when this returns."""
        ...


class MemoryKeeper:
    """Keeps it in this process: for simulated clients, which end with it."""

    def __init__(self) -> None:
        self._remembered = Remembered()
        self._held: Held | None = None

    def load(self) -> Remembered:
        return self._remembered

    def save(self, remembered: Remembered) -> None:
        self._remembered = remembered

    def held(self) -> Held | None:
        return self._held

    def hold(self, held: Held) -> None:
        self._held = held


_Made: TypeAlias = tuple[Message, Track, Remembered, tuple[str, str]]
"""An answer, and what is to be remembered before it leaves: of which run and purpose."""


class ClientSession:
    """One client.

    Args:
        name: as the roster knows it.
        identity: 32 secret bytes of Ed25519.
        terms: what the client's own plan says of sums.
        known: whose identities it knows from elsewhere than the coordinator.
        keeper: keeps what it remembers.
        checker: makes checks that all clients make alike.
        entropy: secret randomness.
    """

    def __init__(
        self,
        name: str,
        identity: bytes,
        terms: Terms,
        known: Known,
        keeper: Keeper,
        checker: Checker | None = None,
        entropy: Entropy = os.urandom,
    ) -> None:
        self.name = name
        self._identity = identity
        self._terms = terms
        self._known = known
        self._keeper = keeper
        self._check = checker or Checker()
        self._entropy = entropy

    @property
    def public_key(self) -> bytes:
        """What the roster must list."""
        return public_identity(self._identity)

    def answer(self, letter: bytes) -> bytes:
        """The answer to a letter of the coordinator.

        It is stored together with what the client then knows, so that a client that is killed
        before the answer has arrived gives the same bytes to the same letter.

        Raises:
            AnabranchError: AB-954 to AB-970 when the client refuses; it then remembers what it did
                before, and may be asked again.
        """
        kind = kind_of(letter)
        if kind == Hello.KIND:
            return self._introduce(Hello.from_bytes(letter)).to_bytes()
        asked = sha256(letter).digest()
        for track in self._keeper.load().tracks.values():
            if track.answer and track.asked == asked:
                return track.answer
        made = self._join(letter) if kind == Invitation.KIND else self._step(kind, letter)
        message, after, remembered, key = made
        content = message.to_bytes()
        self._save(remembered, key, replace(after, asked=asked, answer=content))
        return content

    def mask(self, letter: bytes, update: Update, model_digest: bytes) -> bytes:
        """The update behind masks, as it is sent.

        Args:
            letter: the shares of the neighbours.
            update: with exactly the declared sections.
            model_digest: of the broadcast that the update was computed from.

        Raises:
            AnabranchError: AB-501 to AB-503 for an update that the fold would refuse, AB-954 to
                AB-970 as `answer`; AB-966 when the model is not the one of the invitation.
        """
        delivery = ShareDelivery.from_bytes(letter)
        remembered = self._keeper.load()
        key, track = self._track(remembered, delivery.context)
        state = track.state
        context = _context_of(state)
        if state is None or context is None:
            raise no_session(self.name)
        if context.model_digest != model_digest:
            raise invitation_refused("the model is not the one that was announced")
        codec = self._terms.codec(context)
        after, sent = client.mask_input(state, delivery, codec.encode(update, self.name))
        self._save(remembered, key, replace(track, state=after, answer=b""))
        return sent.to_bytes()

    # Updates that wait for their sum ---------------------------------------------------------

    @property
    def holds(self) -> bool:
        """Whether updates wait at the client until a sum is formed (asynchronous rounds)."""
        return self._terms.holds(HELD_PURPOSE)

    def hold(self, base: Base, update: Update) -> bytes:
        """Keep an update; what the coordinator is shown is a commitment to it.

        Raises:
            AnabranchError: AB-990 the update of this task was masked already.
        """
        before = self._keeper.held()
        if before is not None and before.base.task == base.task and not before.content:
            raise not_held("the update of this task went behind masks already")
        sections = self._terms.shapes[HELD_PURPOSE].sections
        held = Held(base, self._entropy(KEY_BYTES), pack(update, sections))
        self._keeper.hold(held)
        return held.commitment

    def mask_held(self, letter: bytes) -> bytes:
        """The held update behind masks, damped by its staleness: once, and in one sum.

        Raises:
            AnabranchError: as `mask`; AB-990 nothing is held that the sum is about.
        """
        delivery = ShareDelivery.from_bytes(letter)
        _, track = self._track(self._keeper.load(), delivery.context)
        context = _context_of(track.state)
        if context is None:
            raise no_session(self.name)
        held = self._held_for(context)
        update = unpack(held.content, self._terms.shapes[HELD_PURPOSE].sections, self.name)
        assert self._terms.staleness is not None
        factor = self._terms.staleness.factor(context.bases.staleness(self.name))
        update = damped(update, factor, self._terms.shapes[HELD_PURPOSE].sections)
        # Before the masked vector exists: a crash in between loses the update, and shows nothing.
        self._keeper.hold(replace(held, content=b""))
        return self.mask(letter, update, context.model_digest)

    def _held_for(self, context: RoundContext) -> Held:
        """The update that a sum is about."""
        held, base = self._keeper.held(), context.bases.of.get(self.name)
        if held is None or base is None:
            raise not_held("nothing is held")
        if held.base != base:
            raise not_held("the sum names another task, version or model than the update has")
        if not held.content:
            raise not_held("the update of this task went behind masks already")
        return held

    # One letter ----------------------------------------------------------------------------

    def _introduce(self, asked: Hello) -> Message:
        mine = Introduction(context=asked.context, sender=self.name, key=self.public_key)
        return signed(mine, self._identity)

    def _join(self, letter: bytes) -> _Made:
        invitation = Invitation.from_bytes(letter)
        context = self._check.context(invitation.content)
        if context.digest != invitation.context:
            raise malformed("an invitation names another context")
        self._terms.check(context)
        if context.bases:
            self._held_for(context)
        remembered = self._keeper.load()
        key = (context.run, context.purpose)
        track = remembered.tracks.get(key, Track())
        _check_newer(track, context, self._model_of(context))
        pins = self._pinned(remembered.pins, context)
        state, advert = client.begin(context, self.name, self._identity, entropy=self._entropy)
        joined = replace(
            track,
            round=context.round,
            attempt=context.attempt,
            ledger_length=context.ledger_length,
            ledger_head=context.ledger_head,
            state=state,
            context=context.digest,
            model=self._model_of(context),
        )
        return advert, joined, replace(remembered, pins=pins), key

    def _step(self, kind: int, letter: bytes) -> _Made:
        if kind not in _LETTERS:
            raise malformed(f"a letter of kind {kind} is not for clients")
        asked = self._check.message(_LETTERS[kind], letter)
        remembered = self._keeper.load()
        key, track = self._track(remembered, asked.context)
        if track.state is None:
            raise no_session(self.name)
        after, answer = self._next(track, asked)
        track = replace(track, state=after)
        if isinstance(after, Done) and track.model not in track.opened:
            track = replace(track, opened=(*track.opened, track.model)[-_MODELS:])
        return answer, track, remembered, key

    def _next(self, track: Track, asked: Message) -> tuple[ClientState, Message]:
        state, check = track.state, self._check
        assert state is not None
        if isinstance(asked, KeyList):
            return client.open_nonce(state, asked, check=check)
        if isinstance(asked, NonceList):
            return client.share_keys(state, asked, check=check, entropy=self._entropy)
        if isinstance(asked, SurvivorSet):
            self._enough_known(asked)
            return client.sign_survivors(state, asked, check=check)
        assert isinstance(asked, UnmaskRequest)
        if not isinstance(state, Done) and track.model in track.opened:
            raise older("a sum over this model was opened before")
        return client.reveal(state, asked, check=check)

    # What is remembered --------------------------------------------------------------------

    def _model_of(self, context: RoundContext) -> bytes:
        """Digest of the model that this client's update was made from."""
        own = context.bases.of.get(self.name)
        return context.model_digest if own is None else own.model

    def _track(self, remembered: Remembered, context: bytes) -> tuple[tuple[str, str], Track]:
        for key, track in remembered.tracks.items():
            if track.context == context:
                return key, track
        raise no_session(self.name)

    def _save(self, remembered: Remembered, key: tuple[str, str], track: Track) -> None:
        tracks = {**remembered.tracks, key: track}
        self._keeper.save(replace(remembered, tracks=tracks))

    def _pinned(self, pins: Mapping[str, bytes], context: RoundContext) -> Mapping[str, bytes]:
        """Every peer's key is the one that is known, or else the one that was seen first."""
        if self._stranger(pins, context):
            self._known.refresh()
            if fault := self._stranger(pins, context):
                raise roster_refused(fault)
        fresh = {
            name: key
            for name, key in context.roster.items()
            if name not in pins and self._known.key_of(name) is None
        }
        return {**pins, **fresh} if fresh else pins

    def _stranger(self, pins: Mapping[str, bytes], context: RoundContext) -> str | None:
        """What is wrong with the roster of a round, or None."""
        for name, key in context.roster.items():
            expected = self._known.key_of(name) or pins.get(name)
            if expected is None and not self._known.open:
                return f"{name} is not on the roster that this client knows"
            if expected is not None and expected != key:
                return f"{name} has another key than this client knows"
        if context.canaries != frozenset(filter(self._known.canary, context.roster)):
            return "its canaries are not those of the roster"
        return None

    def _enough_known(self, proposed: SurvivorSet) -> None:
        among = sum(name in self._known.vouched for name in proposed.survivors)
        if among < self._known.least_vouched:
            raise roster_refused(
                f"{among} of the survivors are vouched for by this client, "
                f"{self._known.least_vouched} must be"
            )


_LETTERS: Mapping[int, type[Message]] = {
    kind.KIND: kind for kind in (KeyList, NonceList, SurvivorSet, UnmaskRequest)
}


def _check_newer(track: Track, context: RoundContext, model: bytes) -> None:
    now, before = (context.round, context.attempt), (track.round, track.attempt)
    if now <= before:
        raise older(
            f"round {context.round}, attempt {context.attempt} is not after round {track.round}, "
            f"attempt {track.attempt}"
        )
    if model in track.opened:
        raise older("a sum over this model was opened before")
    if context.ledger_length < track.ledger_length:
        raise older(
            f"its ledger has {context.ledger_length} entries, {track.ledger_length} are known"
        )
    forked = context.ledger_length == track.ledger_length and context.ledger_length
    if forked and context.ledger_head != track.ledger_head:
        raise older("its ledger has another history than the one that is known")


def _context_of(state: ClientState | None) -> RoundContext | None:
    if state is None or isinstance(state, Done):
        return None
    keys = state.keys if not hasattr(state, "before") else state.before.keys
    return keys.context
