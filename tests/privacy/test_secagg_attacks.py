"""Attacks on secure aggregation. Each has a control: the attack works where the defence is out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from secagg_rounds import Round, context_of, identity_of, names_of, plain_sum, run_round, vectors_of

from anabranch.errors import AnabranchError
from anabranch.privacy.secure_aggregation import (
    Abandoned,
    Finished,
    KeyList,
    MaskedInput,
    NonceList,
    Outcome,
    RoundContext,
    SurvivorSet,
    UnmaskReply,
    client,
    server,
)
from anabranch.privacy.secure_aggregation.keys import (
    commit_seed,
    pair_seed,
    self_seed,
    transport_binding,
    transport_key,
)
from anabranch.privacy.secure_aggregation.message import signed
from anabranch.privacy.secure_aggregation.messages import (
    RevealedShare,
    ShareKind,
)
from anabranch.privacy.secure_aggregation.primitives import (
    agree,
    new_agreement_key,
    open_sealed,
    public_agreement_key,
    public_identity,
)
from anabranch.privacy.secure_aggregation.sharing import combine
from anabranch.privacy.secure_aggregation.streams import Lanes, add_streams

FIRST, SECOND, *OTHERS = names_of(6)


def masked_round(context: RoundContext, seed: int = 1) -> tuple[Round, dict[str, Lanes], Lanes]:
    """Inputs are in; the vectors, and what the first client sent."""
    play = Round(context)
    play.keys()
    play.shares()
    vectors = vectors_of(context, seed)
    delivery = server.delivery_for(play.state, FIRST)
    _, sent = client.mask_input(play.clients[FIRST], delivery, vectors[FIRST])
    play.inputs(vectors)
    return play, vectors, np.frombuffer(sent.payload, np.uint32)


def awaiting(play: Round, name: str) -> client.AwaitingSurvivors:
    state = play.clients[name]
    assert isinstance(state, client.AwaitingSurvivors)
    return state


def open_alone(play: Round, seen: Lanes, seed: bytes, secret: bytes) -> Lanes:
    """What a server does with both secrets of the first client."""
    here = awaiting(play, FIRST)
    public = {name: advert.mask_key for name, advert in here.group.adverts.items()}
    pairs = [
        pair_seed(secret, public[peer], here.active, FIRST, peer)
        for peer in here.active.graph[FIRST]
    ]
    found = seen.copy()
    # The first client comes before all others, so it subtracted every pair's stream.
    add_streams(found, pairs, [self_seed(seed, here.active, FIRST)], 32)
    return found


# Double reveal: the server asks for both secrets of a client.


def test_control_both_shares_open_a_single_vector() -> None:
    play, vectors, seen = masked_round(context_of(6))
    group = awaiting(play, FIRST).group
    # A broken client that answers whatever it is asked gives both shares away.
    holders = [awaiting(play, name) for name in OTHERS][: group.threshold]
    seeds = {group.holder(h.keys.name): h.held[FIRST].seed for h in holders}
    secrets = {group.holder(h.keys.name): h.held[FIRST].key for h in holders}
    found = open_alone(play, seen, combine(seeds), combine(secrets))
    assert np.array_equal(found, vectors[FIRST])


def test_a_request_for_both_secrets_is_refused() -> None:
    play, _, _ = masked_round(context_of(6))
    state = play.signatures()
    assert isinstance(state, server.CollectingReveals)
    request = state.request
    for survivors, dropped in (
        (request.survivors, (FIRST,)),
        (request.survivors[1:], (FIRST,)),
        (request.survivors[1:], ()),
        (request.survivors, ("nobody",)),
    ):
        lie = replace(request, survivors=survivors, dropped=dropped)
        for name in (SECOND, *OTHERS):
            with pytest.raises(AnabranchError, match="AB-962"):
                client.reveal(play.clients[name], lie)


def test_a_reply_holds_one_share_of_each_neighbour_and_of_the_right_kind() -> None:
    context = context_of(7)
    play = Round(context)
    play.keys()
    play.shares()
    play.inputs(vectors_of(context, 1), gone=[SECOND])
    state = play.signatures()
    assert isinstance(state, server.CollectingReveals)
    _, reply = client.reveal(play.clients[FIRST], state.request)
    kinds = {share.dealer: share.kind for share in reply.shares}
    assert len(kinds) == len(reply.shares) == 6
    assert {dealer for dealer, kind in kinds.items() if kind == "key"} == {SECOND}


# Split views: the server tells different clients different survivors.


def proposal(play: Round, name: str, survivors: tuple[str, ...]) -> SurvivorSet:
    """A set that the server made up, with the proofs that belong to it."""
    honest = server.survivors_for(play.state, name)
    proofs = tuple(proof for proof in honest.proofs if proof.sender in survivors)
    return replace(honest, survivors=survivors, proofs=proofs)


def split_signatures(play: Round, first: set[str]) -> list[server.SurvivorSignature]:
    names = tuple(sorted(play.clients))
    views = (names[:-1], tuple(name for name in names if name != FIRST))
    made = []
    for name in names:
        survivors = views[0] if name in first else views[1]
        proposed = proposal(play, name, survivors)
        _, signature = client.sign_survivors(play.clients[name], proposed)
        made.append(signature)
    return made


@pytest.mark.parametrize("half", range(1, 7))
def test_two_views_never_both_reach_the_quorum(half: int) -> None:
    play, _, _ = masked_round(context_of(8))
    names = sorted(play.clients)
    signatures = split_signatures(play, set(names[:half]))
    counts = [sum(s.view == view for s in signatures) for view in {s.view for s in signatures}]
    # The control: a plain majority of the survivors asked, 3 of 7, would let both views through.
    assert sum(count >= play.context.quorum for count in counts) <= 1
    if half == 4:
        assert all(count >= 3 for count in counts)


def test_a_client_signs_one_set_and_only_sets_with_itself() -> None:
    play, _, _ = masked_round(context_of(6))
    names = tuple(sorted(play.clients))
    for wrong in (names[1:], names[:2], names[::-1], (*names, "zz")):
        proposed = proposal(play, FIRST, wrong)
        with pytest.raises(AnabranchError, match="AB-962"):
            client.sign_survivors(play.clients[FIRST], proposed)
    good = proposal(play, FIRST, names)
    signed_once, _ = client.sign_survivors(play.clients[FIRST], good)
    with pytest.raises(AnabranchError, match="AB-956"):
        client.sign_survivors(signed_once, good)


def test_signatures_that_are_too_few_repeated_or_forged_open_nothing() -> None:
    play, _, _ = masked_round(context_of(6))
    state = play.signatures()
    assert isinstance(state, server.CollectingReveals)
    request = state.request
    enough = request.signatures
    for wrong in (
        enough[:3],
        (enough[0],) * 6,
        (*enough[:-1], (enough[-1][0], enough[0][1])),
    ):
        with pytest.raises(AnabranchError, match="AB-962"):
            client.reveal(play.clients[FIRST], replace(request, signatures=wrong))


# Split participants: the server tells one client of other participants, so that it shares masks
# with those alone whom the server then declares dropped.


def astray_round() -> tuple[Round, dict[str, Lanes], MaskedInput]:
    """Eight clients; the first is told that only six take part."""
    context = context_of(8)
    play = Round(context)
    play.keys()
    play.shares()
    delivery = server.delivery_for(play.state, FIRST)
    fewer = delivery.participants[:6]
    shares = tuple(share for share in delivery.shares if share.dealer in fewer)
    told = replace(delivery, participants=fewer, shares=shares)
    vectors = vectors_of(context, 1)
    _, sent = client.mask_input(play.clients[FIRST], told, vectors[FIRST])
    with pytest.raises(AnabranchError, match="AB-961"):
        server.receive_input(play.state, sent)
    return play, vectors, sent


def test_control_a_client_astray_is_open_to_whoever_holds_its_neighbours_keys() -> None:
    play, vectors, sent = astray_round()
    first = play.clients[FIRST]
    assert isinstance(first, client.AwaitingShares)
    active = first.group.activate(sorted(first.group.adverts)[:6])
    peers = [play.clients[name] for name in active.participants if name != FIRST]
    own = first.group.adverts[FIRST].mask_key
    seeds = [pair_seed(p.keys.mask_secret, own, active, p.keys.name, FIRST) for p in peers]
    found = np.frombuffer(sent.payload, np.uint32).copy()
    # The seed comes from neighbours that do not ask for whom it masked, the keys from "dropouts".
    add_streams(found, seeds, [self_seed(first.keys.seed, active, FIRST)], 32)
    assert np.array_equal(found, vectors[FIRST])


def test_neighbours_keep_the_seed_of_a_client_astray_closed() -> None:
    play, vectors, sent = astray_round()
    play.inputs(vectors)
    for name in (SECOND, *OTHERS):
        honest = server.survivors_for(play.state, name)
        assert honest.proofs[0].sender == FIRST
        for wrong in (
            (sent.proof(), *honest.proofs[1:]),
            honest.proofs[1:],
            (replace(honest.proofs[0], payload_digest=bytes(32)), *honest.proofs[1:]),
        ):
            with pytest.raises(AnabranchError, match="AB-962"):
                client.sign_survivors(play.clients[name], replace(honest, proofs=wrong))


# Masks used twice, in two rounds or for two vectors.


def test_control_a_mask_used_twice_gives_away_the_difference() -> None:
    context = context_of(6)
    play = Round(context)
    play.keys()
    play.shares()
    delivery = server.delivery_for(play.state, FIRST)
    old, new = vectors_of(context, 1)[FIRST], vectors_of(context, 2)[FIRST]
    # A broken client goes back to an old state and masks another vector.
    _, once = client.mask_input(play.clients[FIRST], delivery, old)
    _, twice = client.mask_input(play.clients[FIRST], delivery, new)
    seen = np.frombuffer(twice.payload, np.uint32) - np.frombuffer(once.payload, np.uint32)
    assert np.array_equal(seen, new - old)


def test_a_repeated_round_has_other_masks() -> None:
    sent = []
    for attempt in (0, 1):
        _, vectors, seen = masked_round(context_of(6, attempt=attempt))
        sent.append(seen - vectors[FIRST])
    assert not np.any(sent[0] == sent[1])


# Weak randomness.


def weak(bits: int, number: int) -> client.Entropy:
    """A generator with ``bits`` of entropy, as a mask seed from a small integer has."""
    small = number % (1 << bits)
    return lambda size: small.to_bytes(2, "big") * (size // 2)


def test_control_a_short_seed_is_found_by_search() -> None:
    context = context_of(6)
    _, advert = client.begin(context, FIRST, identity_of(FIRST), entropy=weak(12, 0xABC))
    tried = (number.to_bytes(2, "big") * 16 for number in range(1 << 12))
    found = [s for s in tried if commit_seed(context.digest, FIRST, s) == advert.seed_commitment]
    assert found == [(0xABC).to_bytes(2, "big") * 16]


def test_every_secret_takes_all_its_entropy_from_the_argument() -> None:
    asked: list[int] = []

    def entropy(size: int) -> bytes:
        asked.append(size)
        return bytes([len(asked)]) * size

    context = context_of(6)
    one, _ = client.begin(context, FIRST, identity_of(FIRST), entropy=entropy)
    assert asked == [32, 32, 32, 32]
    two, _ = client.begin(context, FIRST, identity_of(FIRST))
    three, _ = client.begin(context, FIRST, identity_of(FIRST))
    assert len({one.keys.seed, two.keys.seed, three.keys.seed}) == 3


# Model inconsistency: one client is given another model.


def test_another_model_makes_masks_that_cancel_with_nobodys() -> None:
    secret = new_agreement_key(lambda size: b"\x01" * size)
    other = new_agreement_key(lambda size: b"\x02" * size)
    public, back = public_agreement_key(other), public_agreement_key(secret)
    seeds = []
    for model in (bytes(32), bytes([1]) * 32):
        play, _, _ = masked_round(context_of(6, model=model))
        active = awaiting(play, FIRST).active
        seeds.append(pair_seed(secret, public, active, FIRST, SECOND))
        assert pair_seed(other, back, active, SECOND, FIRST) == seeds[-1]
    assert seeds[0] != seeds[1]


def test_a_client_with_another_model_is_refused() -> None:
    context = context_of(6)
    astray = replace(context, model_digest=bytes([1]) * 32)
    _, advert = client.begin(astray, FIRST, identity_of(FIRST))
    with pytest.raises(AnabranchError, match="AB-955"):
        server.receive_keys(server.open_round(context), advert)


# A server in the middle puts in keys of its own.


def swapped(play: Round) -> tuple[KeyList, bytes]:
    """The key list with the server's transport key for the second client."""
    assert isinstance(play.state, server.CollectingNonces)
    secret = new_agreement_key(lambda size: b"\x05" * size)
    adverts = list(play.state.key_list.adverts)
    own = replace(adverts[1], transport_key=public_agreement_key(secret))
    adverts[1] = signed(own, identity_of("server"))
    return replace(play.state.key_list, adverts=tuple(adverts)), secret


def test_control_a_server_whose_keys_are_trusted_reads_the_shares() -> None:
    honest = context_of(6)
    # The broken variant: identities come from the server instead of an enrolment.
    roster = {**honest.roster, SECOND: public_identity(identity_of("server"))}
    context = replace(honest, roster=roster)
    state = server.open_round(context)
    clients = {}
    for name in context.roster:
        identity = identity_of("server" if name == SECOND else name)
        clients[name], advert = client.begin(context, name, identity)
        state = server.receive_keys(state, advert)
    play = Round(context)
    play.state = server.close_keys(state)
    key_list, secret = swapped(play)
    openings = []
    mine = clients[SECOND].keys  # the server plays the second client
    clients[SECOND] = client.AwaitingKeys(replace(mine, advert=key_list.adverts[1]))
    for name in context.roster:
        clients[name], opening = client.open_nonce(clients[name], key_list)
        openings.append(opening)
    nonces = NonceList(context=context.digest, openings=tuple(openings))
    after, bundle = client.share_keys(clients[FIRST], nonces)
    share = bundle.shares[0]
    assert share.recipient == SECOND
    dealer_key = after.group.adverts[FIRST].transport_key
    key = transport_key(agree(secret, dealer_key), after.group.digest, FIRST, SECOND)
    commitments = share.seed_commitment + share.key_commitment
    bound = transport_binding(after.group.digest, FIRST, SECOND, commitments)
    opened = open_sealed(key, share.sealed, bound)
    assert opened is not None
    assert len(opened) == 64  # a share of each of the two secrets


def test_keys_that_the_enrolled_client_did_not_sign_are_refused() -> None:
    play = Round(context_of(6))
    play.keys(nonces=False)
    key_list, _ = swapped(play)
    with pytest.raises(AnabranchError, match="AB-958"):
        client.open_nonce(play.clients[FIRST], key_list)


# Wrap-around.


def test_control_a_modulus_that_is_too_small_wraps_silently() -> None:
    context = context_of(32, bits=16, largest=1000)
    vectors = {name: np.full(8, 1000, np.uint32) for name in context.roster}
    total = sum(int(vector[0]) for vector in vectors.values())
    assert context.encoding.decode(plain_sum(context, vectors, vectors))[0] == total
    doubled = 2 * total  # a cohort of 64
    wrapped = np.array([doubled % (1 << 16)], np.uint32)
    assert context.encoding.decode(wrapped)[0] != doubled


def test_a_cohort_that_could_wrap_is_refused_beforehand() -> None:
    with pytest.raises(AnabranchError, match="AB-951"):
        context_of(64, bits=16, largest=1000)


# Bad shares.


def tamper(reply: UnmaskReply) -> UnmaskReply:
    if reply.sender != SECOND:
        return reply
    shares = [
        RevealedShare(dealer=s.dealer, kind=s.kind, value=bytes(31) + b"\x01") for s in reply.shares
    ]
    return signed(replace(reply, shares=tuple(shares)), identity_of(SECOND))


def test_control_an_unchecked_bad_share_spoils_the_secret() -> None:
    play, _, _ = masked_round(context_of(6))
    group = awaiting(play, FIRST).group
    holders = [awaiting(play, name) for name in (SECOND, *OTHERS)][: group.threshold]
    shares = {group.holder(h.keys.name): h.held[FIRST].seed for h in holders}
    assert combine(shares) == awaiting(play, FIRST).keys.seed
    shares[group.holder(SECOND)] = bytes(31) + b"\x01"
    assert combine(shares) != awaiting(play, FIRST).keys.seed


def test_a_tampered_share_is_attributed_and_the_sum_stays_exact() -> None:
    play, vectors, _ = masked_round(context_of(8))
    play.signatures()
    state = play.reveals(change=tamper)
    assert isinstance(state, Finished)
    assert state.blamed == (SECOND,)
    assert np.array_equal(state.total, plain_sum(play.context, vectors, vectors))


def test_a_dealer_that_shares_another_seed_is_named() -> None:
    context = context_of(6)
    play = Round(context)
    play.keys()
    lying = play.clients[FIRST]
    assert isinstance(lying, client.AwaitingNonces)
    play.clients[FIRST] = replace(lying, keys=replace(lying.keys, seed=b"\x01" * 32))
    play.shares()
    play.inputs(vectors_of(context, 1))
    play.signatures()
    state = play.reveals()
    assert isinstance(state, Abandoned)
    assert state.outcome is Outcome.BAD_DEALER
    assert FIRST in state.detail


def test_reveals_of_the_other_secret_are_refused_by_the_coordinator() -> None:
    play, _, _ = masked_round(context_of(6))
    state = play.signatures()
    assert isinstance(state, server.CollectingReveals)
    held = awaiting_before(play, SECOND).held[FIRST]
    _, reply = client.reveal(play.clients[SECOND], state.request)
    both = replace(
        reply,
        shares=(replace(reply.shares[0], kind=ShareKind.KEY, value=held.key), *reply.shares[1:]),
    )
    with pytest.raises(AnabranchError, match="AB-961"):
        server.receive_reveal(state, signed(both, identity_of(SECOND)))


def awaiting_before(play: Round, name: str) -> client.AwaitingSurvivors:
    state = play.clients[name]
    assert isinstance(state, client.AwaitingSignatures)
    return state.before


# Small cohorts.


def test_the_minimum_of_survivors_holds_though_the_threshold_would_not() -> None:
    context = context_of(12, minimum=11)
    state = run_round(context, vectors_of(context, 1), ((), (), names_of(2), (), ()))
    assert isinstance(state, Abandoned)
    assert state.outcome is Outcome.TOO_FEW_INPUTS
