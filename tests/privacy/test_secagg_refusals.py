"""What both ends refuse: foreign, unsigned, repeated, late and malformed messages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from secagg_rounds import Round, context_of, identity_of, names_of, vectors_of

from anabranch.errors import AnabranchError
from anabranch.privacy.secure_aggregation import (
    KeyAdvert,
    KeyList,
    MaskedInput,
    NonceList,
    NonceOpening,
    RoundContext,
    ShareBundle,
    ShareDelivery,
    SurvivorSet,
    SurvivorSignature,
    UnmaskReply,
    UnmaskRequest,
    client,
    server,
)
from anabranch.privacy.secure_aggregation.message import Message, signed

FIRST, SECOND, THIRD, *_ = names_of(5)
STAGES = ("listed", "keys", "shares", "inputs", "signatures")


def refused(code: str) -> pytest.RaisesExc[AnabranchError]:
    return pytest.raises(AnabranchError, match=code)


def until(stage: str, context: RoundContext | None = None) -> Round:
    """A round of five whose stage ``stage`` has just been closed."""
    play = Round(context or context_of(5, 4))
    play.keys(nonces=stage != "listed")
    if stage not in ("listed", "keys"):
        play.shares()
    if stage in ("inputs", "signatures"):
        play.inputs(vectors_of(play.context, 1))
    if stage == "signatures":
        play.signatures()
    return play


def messages_of(context: RoundContext) -> dict[str, Message]:
    """One valid message of each kind."""
    _, advert = client.begin(context, FIRST, identity_of(FIRST))
    play = until("listed", context)
    assert isinstance(play.state, server.CollectingNonces)
    key_list = play.state.key_list
    _, opening = client.open_nonce(play.clients[FIRST], key_list)
    play.nonces()
    assert isinstance(play.state, server.CollectingShares)
    nonces = play.state.nonces
    _, bundle = client.share_keys(play.clients[FIRST], nonces)
    play.shares()
    delivery = server.delivery_for(play.state, FIRST)
    vectors = vectors_of(context, 1)
    _, sent = client.mask_input(play.clients[FIRST], delivery, vectors[FIRST])
    play.inputs(vectors)
    assert isinstance(play.state, server.CollectingSignatures)
    proposed = server.survivors_for(play.state, FIRST)
    _, signature = client.sign_survivors(play.clients[FIRST], proposed)
    play.signatures()
    assert isinstance(play.state, server.CollectingReveals)
    request = play.state.request
    _, reply = client.reveal(play.clients[FIRST], request)
    keys = (advert, key_list, opening, nonces)
    made = (*keys, bundle, delivery, sent, proposed, signature, request, reply)
    return {type(message).__name__: message for message in made}


KINDS: list[type[Message]] = [
    KeyAdvert,
    KeyList,
    NonceOpening,
    NonceList,
    ShareBundle,
    ShareDelivery,
    MaskedInput,
    SurvivorSet,
    SurvivorSignature,
    UnmaskRequest,
    UnmaskReply,
]


@pytest.fixture(scope="module")
def messages() -> dict[str, Message]:
    return messages_of(context_of(5, 4))


@pytest.mark.parametrize("kind", KINDS)
def test_every_message_returns_from_its_bytes_and_no_cut_of_them(
    kind: type[Message], messages: dict[str, Message]
) -> None:
    message = messages[kind.__name__]
    content = message.to_bytes()
    assert kind.from_bytes(content) == message
    for size in range(len(content)):
        with refused("AB-954"):
            kind.from_bytes(content[:size])
    with refused("AB-954"):
        kind.from_bytes(content + b"\0")
    with refused("AB-954"):
        KINDS[KINDS.index(kind) - 1].from_bytes(content)


SERVER_STEPS: list[tuple[str, Callable[[server.ServerState, Message], object]]] = [
    ("KeyAdvert", server.receive_keys),
    ("NonceOpening", server.receive_nonce),
    ("ShareBundle", server.receive_shares),
    ("MaskedInput", server.receive_input),
    ("SurvivorSignature", server.receive_signature),
    ("UnmaskReply", server.receive_reveal),
]


def server_at(context: RoundContext, step: int) -> server.ServerState:
    return server.open_round(context) if step == 0 else until(STAGES[step - 1], context).state


@pytest.mark.parametrize("step", range(6))
def test_the_coordinator_refuses_replays_forgeries_and_disorder(step: int) -> None:
    context = context_of(5, 4)
    kind, receive = SERVER_STEPS[step]
    state = server_at(context, step)
    old = messages_of(replace(context, attempt=1))[kind]
    with refused("AB-955"):
        receive(state, old)
    # The same message in the right context, under the wrong key or by nobody on the roster.
    forged = signed(replace(old, context=context.digest, sender=SECOND), identity_of(FIRST))
    with refused("AB-958"):
        receive(state, forged)
    with refused("AB-958"):
        receive(state, signed(replace(forged, sender="nobody"), identity_of("nobody")))
    for other in range(6):
        if other != step:
            with refused("AB-956"):
                receive(server_at(context, other), forged)


@pytest.mark.parametrize("step", range(6))
def test_the_coordinator_takes_one_message_of_each_kind_from_a_client(step: int) -> None:
    context = context_of(5, 4)
    _, receive = SERVER_STEPS[step]
    state = server_at(context, step)
    if step == 0:
        message: Message = client.begin(context, FIRST, identity_of(FIRST))[1]
    else:
        play = until(STAGES[step - 1], context)
        state = play.state
        message = answer(play, step)
    after = receive(state, message)
    with refused("AB-957"):
        receive(after, message)


def answer(play: Round, step: int) -> Message:
    before, state = play.clients[FIRST], play.state
    if isinstance(state, server.CollectingNonces):
        return client.open_nonce(before, state.key_list)[1]
    if isinstance(state, server.CollectingShares):
        return client.share_keys(before, state.nonces)[1]
    if isinstance(state, server.CollectingInputs):
        vector = vectors_of(play.context, 1)[FIRST]
        return client.mask_input(before, server.delivery_for(state, FIRST), vector)[1]
    if isinstance(state, server.CollectingSignatures):
        return client.sign_survivors(before, server.survivors_for(state, FIRST))[1]
    assert isinstance(state, server.CollectingReveals)
    return client.reveal(before, state.request)[1]


def test_a_client_refuses_steps_out_of_order() -> None:
    play = until("listed")
    waiting, key_list = play.clients[FIRST], key_list_of(play)
    with refused("AB-956"):
        client.sign_survivors(
            waiting, SurvivorSet(context=key_list.context, survivors=(), proofs=())
        )
    after, _ = client.open_nonce(waiting, key_list)
    with refused("AB-956"):
        client.open_nonce(after, key_list)


def test_a_client_that_is_done_reveals_nothing_more() -> None:
    play = until("signatures")
    assert isinstance(play.state, server.CollectingReveals)
    request = play.state.request
    done, _ = client.reveal(play.clients[FIRST], request)
    # A coordinator that lost the answer may ask again, and gets the same one; nothing else.
    again, reply = client.reveal(done, request)
    assert (again, reply) == (done, client.reveal(play.clients[FIRST], request)[1])
    with refused("AB-956"):
        client.reveal(done, replace(request, dropped=(SECOND,)))
    # A client restored from an older state knows from its log that the context was opened.
    with refused("AB-963"):
        client.reveal(play.clients[FIRST], request, opened={done.opened})
    with refused("AB-963"):
        client.begin(play.context, FIRST, identity_of(FIRST), opened={done.opened})


def test_a_restored_coordinator_does_not_ask_twice() -> None:
    play = until("inputs")
    with refused("AB-963"):
        server.close_signatures(play.state, opened={play.context.digest})


def test_a_client_needs_its_enrolled_identity() -> None:
    with refused("AB-958"):
        client.begin(context_of(5), FIRST, identity_of(SECOND))


def key_list_of(play: Round) -> KeyList:
    assert isinstance(play.state, server.CollectingNonces)
    return play.state.key_list


def test_key_lists_that_differ_from_what_clients_signed_are_refused() -> None:
    play = until("listed")
    key_list, waiting = key_list_of(play), play.clients[FIRST]
    adverts = key_list.adverts
    with refused("AB-959"):
        client.open_nonce(waiting, replace(key_list, adverts=adverts[::-1]))
    with refused("AB-959"):
        client.open_nonce(waiting, replace(key_list, adverts=adverts[1:]))
    with refused("AB-953"):
        client.open_nonce(waiting, replace(key_list, adverts=adverts[:1]))
    _, again = client.begin(play.context, FIRST, identity_of(FIRST))
    with refused("AB-959"):
        client.open_nonce(waiting, replace(key_list, adverts=(again, *adverts[1:])))


def test_keys_of_small_order_are_refused_at_both_ends() -> None:
    play = until("listed")
    key_list = key_list_of(play)
    bad = signed(replace(key_list.adverts[1], mask_key=bytes(32)), identity_of(SECOND))
    with refused("AB-959"):
        server.receive_keys(server.open_round(play.context), bad)
    lying = play.clients[SECOND]
    assert isinstance(lying, client.AwaitingKeys)
    play.clients[SECOND] = client.AwaitingKeys(replace(lying.keys, advert=bad))
    adverts = (key_list.adverts[0], bad, *key_list.adverts[2:])
    listed = replace(key_list, adverts=adverts)
    opened = [client.open_nonce(play.clients[name], listed) for name in play.clients]
    nonces = NonceList(context=listed.context, openings=tuple(opening for _, opening in opened))
    with refused("AB-959"):
        client.share_keys(opened[0][0], nonces)


def test_deliveries_that_differ_from_the_graph_are_refused() -> None:
    play = until("shares")
    good = server.delivery_for(play.state, FIRST)
    vector = vectors_of(play.context, 1)[FIRST]
    for wrong in (
        server.delivery_for(play.state, SECOND),
        replace(good, shares=good.shares[1:]),
        replace(good, participants=good.participants[1:]),
        replace(good, participants=(*good.participants, "zz")),
    ):
        with refused("AB-961"):
            client.mask_input(play.clients[FIRST], wrong, vector)
    few = replace(good, participants=good.participants[:2], shares=good.shares[:1])
    with refused("AB-961"):
        client.mask_input(play.clients[FIRST], few, vector)


def test_shares_of_an_earlier_round_do_not_open() -> None:
    old = until("shares", context_of(5, 4, attempt=1))
    play = until("shares")
    stale = server.delivery_for(old.state, FIRST)
    vector = vectors_of(play.context, 1)[FIRST]
    with refused("AB-960"):
        replayed = replace(stale, context=play.context.digest)
        client.mask_input(play.clients[FIRST], replayed, vector)


def test_one_neighbour_that_seals_nonsense_is_named_and_stops_nobody() -> None:
    play = until("shares")
    good = server.delivery_for(play.state, FIRST)
    nonsense = replace(good.shares[0], sealed=bytes(92))
    delivery = replace(good, shares=(nonsense, *good.shares[1:]))
    vector = vectors_of(play.context, 1)[FIRST]
    after, _ = client.mask_input(play.clients[FIRST], delivery, vector)
    assert after.complaints == (SECOND,)
    assert SECOND not in after.held


def test_bundles_that_miss_a_neighbour_are_refused() -> None:
    play = until("keys")
    assert isinstance(play.state, server.CollectingShares)
    _, bundle = client.share_keys(play.clients[FIRST], play.state.nonces)
    short = signed(replace(bundle, shares=bundle.shares[1:]), identity_of(FIRST))
    with refused("AB-961"):
        server.receive_shares(play.state, short)


@pytest.mark.parametrize(
    "vector",
    [
        np.zeros(3, np.uint32),
        np.zeros(4, np.uint64),
        np.array([0, 0, 0, 1001], np.uint32),
        np.array([0, 0, 0, (1 << 20) - 1001], np.uint32),
        np.array([0, 0, 0, 1 << 20], np.uint32),
    ],
)
def test_vectors_that_do_not_fit_are_refused(vector: np.ndarray) -> None:
    play = until("shares", context_of(5, 4, bits=20))
    delivery = server.delivery_for(play.state, FIRST)
    with refused("AB-964"):
        client.mask_input(play.clients[FIRST], delivery, vector)


def active_of(play: Round) -> bytes:
    assert isinstance(play.state, server.CollectingInputs)
    return play.state.active.digest


def test_masked_vectors_of_another_size_are_refused() -> None:
    play = until("shares")
    content = MaskedInput(
        context=play.context.digest, sender=FIRST, active=active_of(play), payload=bytes(12)
    )
    with refused("AB-954"):
        server.receive_input(play.state, signed(content, identity_of(FIRST)))


def test_rounds_that_can_not_be_safe_are_refused_beforehand() -> None:
    with refused("AB-951"):
        context_of(40, bits=16, largest=1000)
    with refused("AB-952"):
        context_of(5, minimum=1)
    with refused("AB-952"):
        context_of(5, complete_below=4)
    with refused("AB-952"):
        context_of(5, corrupt=1.0)
    with refused("AB-953"):
        context_of(5, minimum=6)
    with refused("AB-953"):
        context_of(5, corrupt=0.5, dropout=0.3)
    with refused("AB-952"):
        context_of(5, model=b"short")


def test_secrets_are_not_printed() -> None:
    play = until("inputs")
    state = play.clients[FIRST]
    assert isinstance(state, client.AwaitingSurvivors)
    shown = repr(state)
    for secret in (state.keys.seed, state.keys.mask.root, state.keys.nonce, state.keys.identity):
        assert repr(secret)[2:-1] not in shown


def test_names_that_do_not_fit_are_refused() -> None:
    with refused("AB-954"):
        SurvivorSet(context=bytes(32), survivors=("x" * 256,), proofs=()).to_bytes()
    with refused("AB-954"):
        SurvivorSet(context=bytes(32), survivors=("",), proofs=()).to_bytes()
    broken = SurvivorSet(context=bytes(32), survivors=("a",), proofs=()).to_bytes()
    broken = broken[:-5] + b"\xff" + broken[-4:]
    with refused("AB-954"):
        SurvivorSet.from_bytes(broken)
    endless = SurvivorSet(context=bytes(32), survivors=(), proofs=()).to_bytes()[:-4] + b"\xff" * 4
    with refused("AB-954"):
        SurvivorSet.from_bytes(endless)
