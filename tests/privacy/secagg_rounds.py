"""A round in one process, with dropouts wherever a test wants them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import numpy as np

from anabranch.privacy.secure_aggregation import FixedPoint, RoundContext, client, server
from anabranch.privacy.secure_aggregation.checking import SharedChecker
from anabranch.privacy.secure_aggregation.primitives import public_identity
from anabranch.privacy.secure_aggregation.streams import Lanes, lane_dtype

ZEROS = bytes(32)


def identity_of(name: str) -> bytes:
    """A client's secret identity, the same in every test."""
    return hashlib.sha256(b"identity " + name.encode()).digest()


def names_of(clients: int) -> list[str]:
    return [f"client-{number:03d}" for number in range(clients)]


def context_of(
    clients: int,
    length: int = 8,
    *,
    bits: int = 32,
    largest: int = 1000,
    corrupt: float = 0.0,
    dropout: float = 0.0,
    minimum: int = 2,
    attempt: int = 0,
    complete_below: int = 100,
    model: bytes = ZEROS,
    **others: object,
) -> RoundContext:
    return RoundContext(
        run="run",
        round=7,
        attempt=attempt,
        model_digest=model,
        plan_digest=ZEROS,
        ledger_head=ZEROS,
        roster={name: public_identity(identity_of(name)) for name in names_of(clients)},
        length=length,
        encoding=FixedPoint(scale=1.0, bound=float(largest), bits=bits),
        corrupt_share=corrupt,
        dropout_share=dropout,
        minimum_survivors=minimum,
        complete_below=complete_below,
        **others,  # type: ignore[arg-type]  # any other field
    )


def vectors_of(context: RoundContext, seed: int) -> dict[str, Lanes]:
    """Integers within the public bound, encoded; a different vector for each client."""
    numbers = np.random.default_rng(seed)
    largest = context.encoding.largest
    return {
        name: context.encoding.encode(
            numbers.integers(-largest, largest, context.length, endpoint=True).astype(np.float64)
        )
        for name in context.roster
    }


def plain_sum(context: RoundContext, vectors: dict[str, Lanes], names: Collection[str]) -> Lanes:
    """The oracle: Python integers, one coordinate at a time."""
    modulus = 1 << context.encoding.bits
    return np.array(
        [sum(int(vectors[name][i]) for name in names) % modulus for i in range(context.length)],
        lane_dtype(context.encoding.bits),
    )


@dataclass
class Round:
    """Both ends of a round, advanced stage by stage.

    Each stage takes the clients that vanish before they answer it. Messages travel as bytes.
    """

    context: RoundContext
    state: server.ServerState = field(init=False)
    clients: dict[str, client.ClientState] = field(default_factory=dict)
    opened: set[bytes] = field(default_factory=set)
    check: SharedChecker = field(default_factory=SharedChecker)

    def __post_init__(self) -> None:
        self.state = server.open_round(self.context)

    def keys(self, gone: Collection[str] = (), nonces: bool = True) -> server.ServerState:
        for name in self.context.roster:
            if name not in gone:
                after, advert = client.begin(self.context, name, identity_of(name))
                self.clients[name] = after
                advert = type(advert).from_bytes(advert.to_bytes())
                self.state = server.receive_keys(self.state, advert)
        self.state = server.close_keys(self.state)
        if nonces and not isinstance(self.state, server.Abandoned):
            self.nonces()
        return self.state

    def nonces(self, gone: Collection[str] = ()) -> server.ServerState:
        assert isinstance(self.state, server.CollectingNonces)
        key_list = type(self.state.key_list).from_bytes(self.state.key_list.to_bytes())
        for name in self.present(gone):
            self.clients[name], opening = client.open_nonce(
                self.clients[name], key_list, check=self.check
            )
            opening = type(opening).from_bytes(opening.to_bytes())
            self.state = server.receive_nonce(self.state, opening, check=self.check.verify)
        self.state = server.close_nonces(self.state, check=self.check.verify)
        return self.state

    def shares(self, gone: Collection[str] = ()) -> server.ServerState:
        assert isinstance(self.state, server.CollectingShares)
        nonces = type(self.state.nonces).from_bytes(self.state.nonces.to_bytes())
        cohort = self.state.group.adverts
        for name in [name for name in self.clients if name not in cohort]:
            del self.clients[name]
        for name in self.present(gone):
            self.clients[name], bundle = client.share_keys(
                self.clients[name], nonces, check=self.check
            )
            bundle = type(bundle).from_bytes(bundle.to_bytes())
            self.state = server.receive_shares(self.state, bundle)
        self.state = server.close_shares(self.state)
        return self.state

    def inputs(self, vectors: dict[str, Lanes], gone: Collection[str] = ()) -> server.ServerState:
        for name in self.present(gone):
            delivery = server.delivery_for(self.state, name)
            delivery = type(delivery).from_bytes(delivery.to_bytes())
            self.clients[name], sent = client.mask_input(
                self.clients[name], delivery, vectors[name]
            )
            self.state = server.receive_input(self.state, type(sent).from_bytes(sent.to_bytes()))
        self.state = server.close_inputs(self.state)
        return self.state

    def signatures(self, gone: Collection[str] = ()) -> server.ServerState:
        assert isinstance(self.state, server.CollectingSignatures)
        asked = self.state
        for name in self.present(gone):
            proposed = server.survivors_for(asked, name)
            proposed = type(proposed).from_bytes(proposed.to_bytes())
            self.clients[name], signature = client.sign_survivors(
                self.clients[name], proposed, check=self.check
            )
            signature = type(signature).from_bytes(signature.to_bytes())
            self.state = server.receive_signature(self.state, signature)
        self.state = server.close_signatures(self.state, opened=self.opened)
        return self.state

    def reveals(
        self,
        gone: Collection[str] = (),
        change: Callable[[client.UnmaskReply], client.UnmaskReply] = lambda reply: reply,
    ) -> server.ServerState:
        assert isinstance(self.state, server.CollectingReveals)
        request = type(self.state.request).from_bytes(self.state.request.to_bytes())
        for name in self.present(gone):
            self.clients[name], reply = client.reveal(self.clients[name], request, check=self.check)
            reply = change(type(reply).from_bytes(reply.to_bytes()))
            self.state = server.receive_reveal(self.state, reply)
        self.state = server.close_reveals(self.state)
        return self.state

    def present(self, gone: Collection[str]) -> list[str]:
        for name in gone:
            self.clients.pop(name, None)
        return list(self.clients)


def run_round(
    context: RoundContext,
    vectors: dict[str, Lanes],
    gone: tuple[Collection[str], ...] = ((), (), (), (), ()),
) -> server.ServerState:
    """A whole round; ``gone``: who vanishes before keys, shares, inputs, signing, revealing."""
    play = Round(context)
    play.keys(gone[0])
    for stage, lost in (
        (play.shares, gone[1]),
        (lambda lost: play.inputs(vectors, lost), gone[2]),
        (play.signatures, gone[3]),
        (play.reveals, gone[4]),
    ):
        if isinstance(play.state, server.Abandoned):
            break
        stage(lost)
    return play.state
