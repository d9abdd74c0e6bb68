"""Attacks on secure sums over rounds. Each has a control: the attack works on a broken variant.

Attacks inside one round (both secrets of a client, split views, model inconsistency, bad shares,
wrap-around, weak randomness) are in ``test_secagg_attacks``.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from secagg_rounds import Round, context_of, identity_of, names_of, plain_sum, vectors_of
from secagg_sums import (
    Bench,
    details_of,
    equal,
    fates_of,
    plain_total,
    terms_of,
    total_of,
    update_of,
)

from anabranch.client.task import Fate
from anabranch.coordinator.secure_sum import Phase
from anabranch.errors import AnabranchError
from anabranch.privacy.secure_aggregation import (
    Finished,
    KeyList,
    MaskedInput,
    NonceList,
    RoundContext,
    client,
    server,
)
from anabranch.privacy.secure_aggregation.graph import neighbour_graph
from anabranch.privacy.secure_aggregation.message import signed
from anabranch.privacy.secure_aggregation.packing import pack, unpack
from anabranch.privacy.secure_aggregation.primitives import digest
from anabranch.privacy.secure_aggregation.session import MemoryKeeper
from anabranch.privacy.secure_aggregation.streams import keystream
from anabranch.privacy.secure_aggregation.terms import Known
from anabranch.privacy.secure_aggregation.thresholds import choose_neighbourhood, worst_draw

FIRST, SECOND, *OTHERS = names_of(6)


# A server that searches key lists until the graph suits it (6) ----------------------------------


def neighbours_from(names: list[str], k: int, seed: bytes, victim: str, corrupt: set[str]) -> int:
    return len(neighbour_graph(names, k, seed)[victim] & corrupt)


def test_control_a_graph_from_the_key_list_alone_can_be_searched() -> None:
    """The server leaves one of its own clients out, another one each time, until it likes it."""
    names, k = names_of(120), 20
    corrupt = set(names[-24:])
    found = [
        neighbours_from(rest, k, digest("key list", *(n.encode() for n in rest)), FIRST, corrupt)
        for rest in ([n for n in names if n != left] for left in sorted(corrupt))
    ]
    # 24 lists are 24 graphs that are known before any honest client has said more than its key.
    assert max(found) >= found[0] + 2
    assert len(set(found)) > 3


def test_with_nonces_a_list_says_nothing_of_its_graph() -> None:
    context = context_of(100, corrupt=0.05, dropout=0.1)
    play = Round(context)
    play.keys(nonces=False)
    assert isinstance(play.state, server.CollectingNonces)
    key_list, ring = play.state.key_list, play.state.ring
    # Nothing in the list tells a nonce: only its hash, with 256 random bits inside.
    waiting = play.clients[FIRST]
    assert isinstance(waiting, client.AwaitingKeys)
    assert waiting.keys.nonce not in key_list.to_bytes()
    play.nonces()
    assert isinstance(play.state, server.CollectingShares)
    graphs = [play.state.group.graph]
    # The same list with one other nonce is another graph, so no graph is known before all are open.
    lying = replace(waiting, keys=replace(waiting.keys, nonce=bytes(32)))
    with pytest.raises(AnabranchError, match="AB-965"):
        server.receive_nonce(
            server.CollectingNonces(ring, key_list), client.open_nonce(lying, key_list)[1]
        )
    assert graphs[0][FIRST] != set(ring.adverts) - {FIRST}


def test_a_client_opens_its_nonce_for_one_list_and_sees_that_all_others_did_for_the_same() -> None:
    play = Round(context_of(6))
    play.keys(nonces=False)
    assert isinstance(play.state, server.CollectingNonces)
    whole = play.state.key_list
    fewer = KeyList(context=whole.context, adverts=whole.adverts[:5])
    opened = {}
    for name, waiting in play.clients.items():
        opened[name] = client.open_nonce(waiting, whole if name != SECOND else fewer)
        with pytest.raises(AnabranchError, match="AB-956"):
            client.open_nonce(opened[name][0], fewer)
    nonces = NonceList(
        context=whole.context, openings=tuple(opening for _, opening in opened.values())
    )
    with pytest.raises(AnabranchError, match="AB-965"):
        client.share_keys(opened[FIRST][0], nonces)


def test_a_sparse_round_does_not_go_on_without_nonces_that_the_plan_does_not_allow() -> None:
    for unopened, goes_on in ((0, False), (2, True)):
        context = context_of(100, corrupt=0.05, dropout=0.1, unopened=unopened)
        play = Round(context)
        play.keys(nonces=False)
        state = play.nonces(gone=names_of(2))
        assert isinstance(state, server.CollectingShares) is goes_on
        if not goes_on:
            # A client decides the same: the coordinator can not leave nonces out for it.
            few = NonceList(context=context.digest, openings=())
            with pytest.raises(AnabranchError, match="AB-965"):
                client.share_keys(next(iter(play.clients.values())), few)


def test_every_graph_to_choose_among_costs_neighbours() -> None:
    plain = choose_neighbourhood(1000, 100, 100)
    for freedom in (3, 3 * 1001, 3 * 1001**2):
        more = choose_neighbourhood(1000, 100, 100, freedom=freedom)
        assert more.neighbours > plain.neighbours
        plain = more
    open_context = context_of(100, corrupt=0.05, dropout=0.1, unopened=2)
    closed_context = context_of(100, corrupt=0.05, dropout=0.1)
    assert open_context.listed(100).shape.neighbours > closed_context.listed(100).shape.neighbours
    assert open_context.digest != closed_context.digest


# Sybils, cohorts that the server chose (6) ------------------------------------------------------


def test_control_a_chosen_cohort_of_sybils_leaves_the_victim_alone() -> None:
    """Five of six are the server's: it subtracts what they sent from the opened sum."""
    bench = Bench()
    total = total_of(bench.run())
    sybils = plain_total(bench.terms, 6, range(1, 6), 1)
    alone = plain_total(bench.terms, 6, [0], 1)
    found = total.sums["delta"] - sybils.sums["delta"]
    assert np.array_equal(found, alone.sums["delta"])


def test_a_client_wants_members_that_it_vouches_for_in_the_sum() -> None:
    names = Bench().members.names
    friends = frozenset(names[:3])
    bench = Bench()
    bench.members.known = Known(vouched=friends, least_vouched=3)
    assert set(fates_of(bench.run()).values()) == {Fate.MERGED}
    bench = Bench(gone={Phase.UPDATE: {1}})  # the server says that a friend vanished
    bench.members.known = Known(vouched=friends, least_vouched=3)
    made, work = bench.start()
    bench.finish(made, work, Phase.SIGNATURES)
    state = made._state
    assert isinstance(state, server.CollectingSignatures)
    letter = server.survivors_for(state, names[0]).to_bytes()
    with pytest.raises(AnabranchError, match="AB-968"):
        bench.members.session(0).answer(letter)


def test_names_and_keys_that_are_not_on_the_signed_roster_are_refused() -> None:
    bench = Bench()
    _, work = bench.start()
    assert work is not None
    keys = {name: bench.members.session(c).public_key for c, name in enumerate(bench.members.names)}
    first = bench.members.names[1]
    for known in (
        Known(key_of=lambda name: keys[name] if name != first else None, open=False),
        Known(key_of=lambda name: keys[name] if name != first else bytes(32)),
    ):
        bench.members.known = known
        with pytest.raises(AnabranchError, match="AB-968"):
            bench.answer(work, 0)
    bench.members.known = Known(key_of=keys.get, open=False)
    bench.answer(work, 0)


def test_a_client_with_an_old_roster_looks_for_a_newer_one_before_it_refuses() -> None:
    bench = Bench()
    _, work = bench.start()
    assert work is not None
    signed = {
        name: bench.members.session(c).public_key for c, name in enumerate(bench.members.names)
    }
    held = dict(list(signed.items())[:-1])  # the last member was enrolled later
    bench.members.known = Known(held.get, open=False, refresh=lambda: held.update(signed))
    bench.answer(work, 0)
    stale = dict(list(signed.items())[:-1])
    bench.members.known = Known(stale.get, open=False, refresh=lambda: None)
    with pytest.raises(AnabranchError, match="AB-968"):
        bench.answer(work, 1)


def test_without_a_roster_a_key_that_was_replaced_is_noticed() -> None:
    bench = Bench()
    bench.run()
    kept = bench.members.keepers[0]
    pins = kept.load().pins
    assert set(pins) == set(bench.members.names)
    kept.save(replace(kept.load(), pins={**pins, bench.members.names[1]: bytes(32)}))
    _, work = bench.start(2, 1.0)
    assert work is not None
    with pytest.raises(AnabranchError, match="AB-968"):
        bench.answer(work, 0)


def test_a_drawn_cohort_has_few_of_the_servers_clients_whatever_it_lists() -> None:
    # Of 1000 clients that sent keys 100 are the server's. All of them in a cohort of 100 that it
    # may choose, at most 36 in one that is drawn, over three tries, except with chance 2^-40.
    assert worst_draw(1000, 100, 1000) == 100
    assert worst_draw(1000, 100, 100, freedom=3) <= 36
    rng = np.random.default_rng(1)
    worst = max(int((rng.permutation(1000)[:100] < 100).sum()) for _ in range(2000))
    assert 10 < worst < worst_draw(1000, 100, 100)


def test_the_cohort_and_the_graph_are_those_that_every_client_computes() -> None:
    context = context_of(20, draw=12)
    play = Round(context)
    play.keys()
    assert isinstance(play.state, server.CollectingShares)
    group = play.state.group
    assert len(group.adverts) == 12
    play.shares()
    vectors = vectors_of(context, 1)
    play.inputs(vectors)
    play.signatures()
    state = play.reveals()
    assert isinstance(state, Finished)
    assert set(state.survivors) == set(group.adverts)
    assert np.array_equal(state.total, plain_sum(context, vectors, state.survivors))


def test_a_client_that_was_not_drawn_deals_no_shares() -> None:
    play = Round(context_of(20, draw=12))
    play.keys()
    assert isinstance(play.state, server.CollectingShares)
    left = next(name for name in play.clients if name not in play.state.group.adverts)
    with pytest.raises(AnabranchError, match="AB-965"):
        client.share_keys(play.clients[left], play.state.nonces)


# Canaries: auditors' clients, which the server could be told the secrets of ---------------------


def test_canaries_count_as_corrupt_in_thresholds_and_noise() -> None:
    plain = context_of(20, corrupt=0.1, dropout=0.1)
    watched = context_of(20, corrupt=0.1, dropout=0.1, canaries=frozenset(names_of(3)))
    assert (plain.corrupt, watched.corrupt) == (2, 2 + 3)
    assert watched.listed(20).shape.threshold > plain.listed(20).shape.threshold
    assert watched.quorum > plain.quorum
    # Noise is divided by who certainly adds it: least survivors without all that may be corrupt.
    assert plain.honest_survivors == plain.listed(20).least - 2
    assert watched.honest_survivors == watched.listed(20).least - 5
    # The control: canaries that hide among the clients weaken every sum unseen.
    assert watched.digest != plain.digest


def test_a_canary_that_the_roster_does_not_name_openly_is_refused() -> None:
    bench = Bench(clients=12)
    bench.members.known = Known(canary=lambda name: name == bench.members.names[3])
    _, work = bench.start()
    assert work is not None
    with pytest.raises(AnabranchError, match="AB-968"):
        bench.answer(work, 0)


# Intersections: S, then S without one (7) -------------------------------------------------------


def test_control_two_sums_over_one_model_give_a_client_away() -> None:
    # A broken client keeps no record of what it opened: its keeper is set back in between. Its
    # update is the same, because training from one model with public batches is.
    bench = Bench()
    with_all = total_of(bench.run(1))
    bench.members.keepers.clear()
    bench.journal = type(bench.journal)()
    bench.gone = {Phase.UPDATE: {0}}
    without = total_of(bench.run(1))
    found = with_all.sums["delta"] - without.sums["delta"]
    alone = plain_total(bench.terms, 6, [0], 1)
    assert np.array_equal(found, alone.sums["delta"])


@pytest.mark.parametrize("round_", [1, 2])
def test_clients_open_one_sum_over_a_model(round_: int) -> None:
    bench = Bench()
    bench.run(1)
    bench.journal = type(bench.journal)()  # a coordinator that forgets what it did
    bench.gone = {Phase.UPDATE: {0}}
    _, work = bench.start(round_)
    assert work is not None
    with pytest.raises(AnabranchError, match="AB-967"):
        bench.answer(work, 1)


def test_no_two_released_sums_of_one_model_exist_whatever_is_tried() -> None:
    """Property: over attempts, dropouts and restarts each model has at most one opened sum."""
    opened: list[tuple[float, frozenset[int]]] = []
    bench = Bench()
    rng = np.random.default_rng(7)
    for step in range(12):
        round_, model = 1 + step // 3, float(step // 6)
        bench.gone = {Phase(int(rng.integers(0, 6))): {int(rng.integers(6))}}
        if step % 4 == 3:
            bench.journal = type(bench.journal)()
        try:
            made = bench.run(round_, model)
        except AnabranchError:  # a client refuses, which the driver of the tests hands on
            continue
        inside = frozenset(c for c, fate in fates_of(made).items() if fate is Fate.MERGED)
        if inside:
            opened.append((model, inside))
    by_model = {model: {inside for m, inside in opened if m == model} for model, _ in opened}
    assert by_model
    assert all(len(sets) == 1 for sets in by_model.values())


# A coordinator that was set back, or shows another history --------------------------------------


def test_control_without_a_memory_old_rounds_are_played_again() -> None:
    bench = Bench()
    for round_ in (1, 2, 3):
        bench.run(round_, float(round_))
    bench.members.keepers.clear()
    bench.journal = type(bench.journal)()
    assert set(fates_of(bench.run(2, 2.0)).values()) == {Fate.MERGED}


def test_clients_refuse_a_coordinator_that_was_restored_from_an_old_copy() -> None:
    bench = Bench()
    for round_ in (1, 2, 3):
        bench.run(round_, float(round_))
    bench.journal = type(bench.journal)()
    for round_ in (1, 2, 3):
        _, work = bench.start(round_, 9.0)
        assert work is not None
        with pytest.raises(AnabranchError, match="AB-967"):
            bench.answer(work, 0)
    assert set(fates_of(bench.run(4, 9.0)).values()) == {Fate.MERGED}


@pytest.mark.parametrize(("length", "head"), [(4, b"a"), (5, b"b")])
def test_clients_refuse_a_shorter_or_a_forked_ledger(length: int, head: bytes) -> None:
    bench = Bench()

    def ledger(entries: int, tip: bytes) -> Bench:
        told = (entries, hashlib.sha256(tip).digest())
        setup = bench.setup
        type(bench).setup = property(lambda self: replace(setup, ledger=lambda: told))  # type: ignore[method-assign]  # restored below
        return bench

    plain = Bench.setup
    try:
        ledger(5, b"a").run(1, 1.0)
        _, work = ledger(length, head).start(2, 2.0)
        assert work is not None
        with pytest.raises(AnabranchError, match="AB-967"):
            bench.answer(work, 0)
        assert set(fates_of(ledger(6, b"c").run(3, 3.0)).values()) == {Fate.MERGED}
    finally:
        Bench.setup = plain  # type: ignore[method-assign]  # as it was


# Small cohorts and missing noise (8, 9) ---------------------------------------------------------


@pytest.mark.parametrize("lost", [0.3, 0.6, 0.95])
def test_sums_of_few_are_not_opened(lost: float) -> None:
    terms = terms_of(dropout_share=0.3, minimum=12)
    clients = 20
    gone = set(range(round(lost * clients)))
    made = Bench(clients=clients, terms=terms, gone={Phase.UPDATE: gone}).run()
    opened = Fate.MERGED in fates_of(made).values()
    assert opened is (clients - len(gone) >= 14)


def test_control_a_sum_that_is_opened_with_too_few_has_too_little_noise() -> None:
    # Parts for 12 honest survivors; with 6 of them the deviation is sqrt(6 / 12) of what was
    # promised. The minimum of survivors is what keeps the promise.
    context = context_of(20, corrupt=0.1, dropout=0.3, minimum=14)
    assert context.honest_survivors == 12
    part = 1 / np.sqrt(context.honest_survivors)
    rng = np.random.default_rng(0)
    few = part * rng.normal(size=(6, 4000)).sum(axis=0)
    enough = part * rng.normal(size=(context.honest_survivors, 4000)).sum(axis=0)
    assert few.std() < 0.75 < 0.96 < enough.std()


# A malicious client: out of range, or another vector than it masked for -------------------------


def cheat(bench: Bench, shift: int, lane: int = 0) -> None:
    """The last client adds to a lane after it has masked."""
    honest = bench.answer

    def answer(work, number):  # type: ignore[no-untyped-def]  # as Bench.answer
        content = honest(work, number)
        if number != bench.clients - 1 or work.kind.value != "train":
            return content
        sent = MaskedInput.from_bytes(content)
        codec = bench.terms.codec_for("train", bench.clients)
        lanes = unpack(sent.payload, codec.length, codec.bits)
        lanes[lane] = (int(lanes[lane]) + shift) % (1 << codec.bits)
        forged = replace(sent, payload=pack(lanes, codec.bits))
        name = bench.members.names[number]
        return signed(forged, hashlib.sha256(b"member " + name.encode()).digest()).to_bytes()

    bench.answer = answer  # type: ignore[method-assign]  # the point of it


def test_an_out_of_range_vector_fails_the_sum_test_and_nobody_is_blamed() -> None:
    bench = Bench()
    cheat(bench, 1 << 31)
    made = bench.run()
    assert set(fates_of(made).values()) == {Fate.REFUSED}
    assert "AB-976" in details_of(made)
    assert bench.members.names[-1] not in details_of(made)


def test_an_inconsistent_vector_fails_the_sum_test() -> None:
    bench = Bench()
    codec = bench.terms.codec_for("train", 6)
    noise = int(keystream(bytes(31) + b"\x07", 1)[0])  # a mask that nobody takes off
    cheat(bench, noise | (1 << 30), lane=codec.length - 1)
    assert "AB-976" in details_of(bench.run())


def test_control_without_the_sum_test_the_model_takes_the_shift() -> None:
    bench = Bench()
    cheat(bench, 1 << 20)  # inside of what six honest clients could have summed up to: it passes
    total = total_of(bench.run())
    honest = plain_total(bench.terms, 6, range(6), 1)
    step = bench.terms.codec_for("train", 6).folded["delta"].quantum
    assert total.sums["delta"][0] - honest.sums["delta"][0] == (1 << 20) * step


def test_a_norm_that_clipped_updates_can_not_have_is_refused() -> None:
    shape = replace(terms_of().shapes["train"], norm_bound=0.5)
    bench = Bench(terms=terms_of(shapes={"train": shape}))
    assert "its norm is larger than clipped updates can have" in details_of(bench.run())
    assert float(np.linalg.norm(update_of(0, 1).vectors["delta"])) > 0.5


# Replays over rounds (17) -----------------------------------------------------------------------


def test_control_the_seed_of_a_share_is_the_same_in_every_round_if_nothing_binds_it() -> None:
    from anabranch.privacy.secure_aggregation.primitives import derive

    # Without the context in the derivation two rounds have one mask, and replays would open.
    assert derive(bytes(32), b"") == derive(bytes(32), b"")
    assert derive(bytes(32), context_of(6).digest) != derive(bytes(32), other().digest)


def other() -> RoundContext:
    return context_of(6, attempt=1)


def test_messages_of_another_round_are_refused_at_every_phase_and_by_every_client() -> None:
    bench = Bench()
    letters: dict[Phase, dict[int, bytes]] = {}
    made, work = bench.start(1, 1.0)
    while work is not None:
        letters[made.phase] = dict(work.letters)
        bench.ask(made, work)
        work = made.advance()
    second, work = bench.start(2, 2.0)
    # Nobody has joined the second round yet: the last request has its old answer, and no other.
    old = letters.pop(Phase.REVEALS)
    kept = bench.members.keepers[0].load()
    assert bench.members.session(0).answer(old[0]) == bench.members.session(0).answer(old[0])
    assert bench.members.keepers[0].load() == kept
    bench.ask(second, work)
    work = second.advance()
    letters[Phase.REVEALS] = old
    while work is not None:
        for phase, sent in letters.items():
            for number in (0, 3):
                before = bench.members.keepers[number].load()
                assert replayed(bench, phase, sent[number], number)[:4] == "AB-9"
                assert bench.members.keepers[number].load() is before
        bench.ask(second, work)
        work = second.advance()
    assert equal(total_of(second), plain_total(bench.terms, 6, range(6), 2))


def replayed(bench: Bench, phase: Phase, letter: bytes, number: int) -> str:
    """The code with which a client refuses a letter."""
    session = bench.members.session(number)
    with pytest.raises(AnabranchError) as refusal:  # noqa: PT012  # two ways to be asked
        if phase is Phase.UPDATE:
            session.mask(letter, update_of(number), bytes(32))
        session.answer(letter)
    return refusal.value.code


# Model inconsistency over the whole path (4) ----------------------------------------------------


def test_a_client_that_is_given_another_model_than_announced_sends_nothing() -> None:
    bench = Bench()
    made, work = bench.start()
    bench.finish(made, work, Phase.UPDATE)
    assert made._state is not None
    work = made._work(made._letters(made._state))
    told = replace(work, broadcast={"model": np.full(5, 9.0, np.float32)})
    with pytest.raises(AnabranchError, match="AB-966"):
        bench.answer(told, 0)
    bench.answer(work, 0)


def test_control_masks_that_are_not_bound_to_the_model_would_cancel() -> None:
    """With equal contexts masks cancel; two contexts that differ in the model alone never do."""
    sent = {}
    for model in (bytes(32), bytes([1]) * 32):
        context = context_of(4, 64, model=model)
        play = Round(context)
        play.keys()
        play.shares()
        zeros = {name: np.zeros(64, np.uint32) for name in context.roster}
        for name in context.roster:
            delivery = server.delivery_for(play.state, name)
            _, message = client.mask_input(play.clients[name], delivery, zeros[name])
            sent[model, name] = np.frombuffer(message.payload, np.uint32)
        play.inputs(zeros)
        play.signatures()
        state = play.reveals()
        assert isinstance(state, Finished)
        assert not state.total.any()
    mixed = [sent[bytes(32), n] for n in names_of(4)[:2]]
    mixed += [sent[bytes([1]) * 32, n] for n in names_of(4)[2:]]
    spread = np.sum(mixed, axis=0, dtype=np.uint32)
    # What is left has no structure: all 32 bits of 64 numbers are used.
    assert len(set(spread.tolist())) == 64
    assert bin(int(np.bitwise_or.reduce(spread))).count("1") == 32


def test_no_secret_of_a_member_is_in_what_it_keeps_for_good() -> None:
    bench = Bench()
    bench.run()
    kept = bench.members.keepers[0]
    assert isinstance(kept, MemoryKeeper)
    track = kept.load().tracks["run", "train"]
    assert isinstance(track.state, client.Done)
    assert identity_of(bench.members.names[0]) not in repr(kept.load()).encode()
