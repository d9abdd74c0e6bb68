"""Driver and sessions: exact sums, dropouts at every phase, restarts of either end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from secagg_sums import (
    SECTIONS,
    Bench,
    Members,
    details_of,
    equal,
    fates_of,
    identity_of,
    plain_total,
    terms_of,
    total_of,
    update_of,
)

from anabranch.client.secure_keeper import FileKeeper
from anabranch.client.task import Fate
from anabranch.coordinator.runtime import Payload
from anabranch.coordinator.secure_journal import FileSumJournal
from anabranch.coordinator.secure_sum import Phase, SecureSum
from anabranch.errors import AnabranchError
from anabranch.privacy.secure_aggregation.section_codec import SectionCodec
from anabranch.updates.sections import WEIGHT, Kind, Section, Sections, Update, Weighting

EVERYBODY = frozenset(range(6))


@pytest.mark.parametrize("bits", [12, 20, 32, 64])
@pytest.mark.parametrize("hybrid", [False, True])
def test_the_sum_is_the_plain_fold_bit_for_bit(bits: int, hybrid: bool) -> None:
    bench = Bench(terms=terms_of(bits=bits, hybrid=hybrid))
    made = bench.run()
    assert equal(total_of(made), plain_total(bench.terms, 6, EVERYBODY, 1))
    assert set(fates_of(made).values()) == {Fate.MERGED}


@settings(max_examples=12, deadline=None)
@given(
    phase=st.sampled_from([p for p in Phase if p >= 0]),
    gone=st.sets(st.integers(0, 5), min_size=1, max_size=1),
    hybrid=st.booleans(),
)
def test_one_of_six_may_vanish_at_any_phase(phase: Phase, gone: set[int], hybrid: bool) -> None:
    bench = Bench(gone={phase: gone}, terms=terms_of(hybrid=hybrid))
    made = bench.run()
    inside = EVERYBODY - gone if phase <= Phase.UPDATE else EVERYBODY
    assert equal(total_of(made), plain_total(bench.terms, 6, inside, 1))
    fates = fates_of(made)
    assert {client for client, fate in fates.items() if fate is Fate.MERGED} == inside


def test_too_many_dropouts_end_the_sum_with_a_reason_and_no_number() -> None:
    made = Bench(gone={Phase.UPDATE: {0, 1, 2}}).run()
    assert set(fates_of(made).values()) == {Fate.LOST}
    assert "too few clients sent their vector" in details_of(made)


def test_before_training_a_sum_is_tried_again_with_those_who_are_there() -> None:
    # Client 5 sends keys and then vanishes: in a drawn cohort no nonce may be missing.
    terms = terms_of(draw=5, corrupt_share=0.0, dropout_share=0.1)
    bench = Bench(clients=8, terms=terms, gone={Phase.NONCES: {5}})
    made = bench.run()
    asked = [client for phase, client in bench.heard if phase is Phase.KEYS]
    assert asked == [*range(8), *(c for c in range(8) if c != 5)]
    fates = fates_of(made)
    assert sorted(f.value for f in fates.values()) == ["declined"] * 2 + ["lost"] + ["merged"] * 5
    inside = [client for client, fate in fates.items() if fate is Fate.MERGED]
    assert equal(total_of(made), plain_total(terms, 8, inside, 1)) or len(inside) == 5


def test_attempts_are_counted_and_capped() -> None:
    terms = terms_of(draw=5, attempts=1, dropout_share=0.1)
    bench = Bench(clients=9, terms=terms, gone={Phase.NONCES: {5}})
    made = bench.run()
    assert "too few clients opened their nonces" in details_of(made)
    record = bench.journal.load("train", 1)
    assert record is not None
    assert record.attempt == 0
    # A coordinator that starts again has no more tries than the plan says.
    bench.gone = {}
    assert "tried 1 times" in details_of(bench.run())
    assert set(fates_of(bench.run(2, 1.0)).values()) == {Fate.MERGED, Fate.DECLINED}


# The clients' end ------------------------------------------------------------------------------


@pytest.mark.parametrize("sealed", [False, True])
def test_clients_that_are_killed_at_every_step_go_on_from_their_disk(
    tmp_path: Path, sealed: bool
) -> None:
    bench = Bench(terms=terms_of(hybrid=sealed))

    class Fresh(Members):
        def session(self, client: int):  # type: ignore[no-untyped-def]  # as its base
            self.keepers.pop(client, None)  # nothing but the file is left of it
            return super().session(client)

    names = bench.members.names
    bench.members = Fresh(
        names,
        bench.terms,
        keeper=lambda c: FileKeeper(tmp_path / names[c], identity_of(names[c])),
    )
    assert equal(total_of(bench.run(1)), plain_total(bench.terms, 6, EVERYBODY, 1))
    assert equal(total_of(bench.run(2, 1.0)), plain_total(bench.terms, 6, EVERYBODY, 2))


def test_no_cut_of_a_stored_memory_is_read(tmp_path: Path) -> None:
    bench = Bench(clients=3, terms=terms_of(dropout_share=0.0))
    names = bench.members.names
    bench.members.keeper = lambda c: FileKeeper(tmp_path / names[c], identity_of(names[c]))
    made, work = bench.start()
    bench.finish(made, work, Phase.SIGNATURES)
    path = tmp_path / names[0] / "secure-sums"
    content = path.read_bytes()
    for size in range(0, len(content), 61):
        path.write_bytes(content[:size])
        with pytest.raises(AnabranchError, match="AB-969"):
            FileKeeper(tmp_path / names[0], identity_of(names[0])).load()
    path.write_bytes(content.replace(b"memory/2", b"memory/9"))
    with pytest.raises(AnabranchError, match="AB-969"):
        FileKeeper(tmp_path / names[0], identity_of(names[0])).load()


def test_a_client_that_lost_its_state_counts_as_dropped_and_is_back_in_the_next_round() -> None:
    bench = Bench()
    made, work = bench.start()
    bench.finish(made, work, Phase.UPDATE)
    del bench.members.keepers[2]
    work = bench_work(bench, made)
    with pytest.raises(AnabranchError, match="AB-970"):
        bench.answer(work, 2)
    bench.gone = {Phase.UPDATE: {2}}
    bench.finish(made, work)
    assert fates_of(made)[2] is Fate.LOST
    bench.gone = {}
    assert set(fates_of(bench.run(2, 1.0)).values()) == {Fate.MERGED}


def bench_work(bench: Bench, made: SecureSum):  # type: ignore[no-untyped-def]  # of the tests
    """The letters of the phase that waits, once more."""
    assert made._state is not None
    return made._work(made._letters(made._state))


def test_late_and_repeated_answers_change_nothing() -> None:
    bench = Bench(gone={Phase.UPDATE: {1}})
    made, work = bench.start()
    bench.finish(made, work, Phase.UPDATE)
    work = bench_work(bench, made)
    late = bench.answer(work, 1)
    bench.ask(made, work)
    again = Payload(0, b"anything", work.task)
    made.absorb(again)  # client 0 has answered: a repeated delivery counts once
    following = made.advance()
    made.absorb(Payload(1, late, work.task))  # comes after the phase was closed
    bench.finish(made, following)
    fates = fates_of(made)
    assert fates.pop(1) is Fate.LOST
    assert set(fates.values()) == {Fate.MERGED}
    assert equal(total_of(made), plain_total(bench.terms, 6, EVERYBODY - {1}, 1))


def test_answers_in_another_clients_name_are_refused() -> None:
    bench = Bench()
    made, work = bench.start()
    assert work is not None
    stolen = bench.answer(work, 1)
    made.absorb(Payload(0, stolen, work.task))
    bench.gone = {Phase.KEYS: {0}}
    bench.members.keepers.clear()
    bench.finish(made, work)
    assert fates_of(made)[0] is Fate.REFUSED


# The coordinator's end -------------------------------------------------------------------------


@pytest.mark.parametrize("phase", [p for p in Phase if p >= 0])
def test_a_coordinator_killed_in_any_phase_resumes_or_begins_anew(
    tmp_path: Path, phase: Phase
) -> None:
    bench = Bench(journal=FileSumJournal(tmp_path / "sums"))
    made, work = bench.start()
    bench.finish(made, work, phase)
    before = {c: k.load() for c, k in bench.members.keepers.items()}
    bench.heard.clear()
    again = bench.run()  # a new process: nothing but the journal is left
    assert equal(total_of(again), plain_total(bench.terms, 6, EVERYBODY, 1))
    asked = {heard for heard, _ in bench.heard}
    # Once clients were asked to reveal there is no other sum: the same request is made again.
    assert asked == ({Phase.REVEALS} if phase is Phase.REVEALS else set(Phase) - {Phase.HELLO})
    tracks = {c: k.load().tracks["run", "train"] for c, k in bench.members.keepers.items()}
    assert all(len(track.opened) == 1 for track in tracks.values())
    attempts = {track.attempt for track in tracks.values()}
    assert attempts == ({0} if phase is Phase.REVEALS else {1})
    assert before or phase is Phase.KEYS


def test_a_coordinator_killed_after_some_revealed_gets_the_same_shares_again(
    tmp_path: Path,
) -> None:
    bench = Bench(journal=FileSumJournal(tmp_path / "sums"))
    made, work = bench.start()
    bench.finish(made, work, Phase.REVEALS)
    work = bench_work(bench, made)
    first = [bench.answer(work, client) for client in (0, 1, 2)]
    again, repeated = bench.start()
    assert repeated is not None
    assert [bench.answer(repeated, client) for client in (0, 1, 2)] == first
    bench.finish(again, repeated)
    assert equal(total_of(again), plain_total(bench.terms, 6, EVERYBODY, 1))


def test_a_damaged_journal_is_not_guessed_from(tmp_path: Path) -> None:
    bench = Bench(journal=FileSumJournal(tmp_path / "sums"))
    bench.run()
    path = tmp_path / "sums" / "train.sum"
    content = path.read_bytes()
    for size in (0, 10, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(AnabranchError, match="AB-969"):
            bench.start()


# What clients refuse ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"plan_digest": bytes(32)},
        {"corrupt_share": 0.1},
        {"dropout_share": 0.0},
        {"bits": 31},
        {"attempts": 200},
        {"unopened": 3},
        {"hybrid": True},
        {"draw": 4},
        {"complete_below": 200},
        {"minimum": 1},
    ],
)
def test_sums_that_are_not_those_of_the_plan_are_refused(change: dict[str, object]) -> None:
    bench = Bench(clients=12)
    honest = bench.members
    bench.terms = replace(bench.terms, **change)  # type: ignore[arg-type]  # any field
    if change.get("minimum") == 1:
        honest.terms = replace(honest.terms, minimum=4)
        bench.terms = replace(bench.terms, minimum=2)
    _, work = bench.start()
    assert work is not None
    with pytest.raises(AnabranchError, match=r"AB-966|AB-951"):
        bench.answer(work, 0)


def test_a_purpose_that_the_plan_does_not_have_is_refused() -> None:
    with pytest.raises(AnabranchError, match="AB-966"):
        terms_of().codec_for("spy", 6)


# The codec -------------------------------------------------------------------------------------


def test_what_exceeds_the_bound_is_cut_and_what_is_not_finite_is_refused() -> None:
    codec = terms_of().codec_for("train", 6)
    numbers = {WEIGHT: 1.0, "examples": 1.0, "train_loss_sum": 0.0}
    update = Update({"delta": np.float32([9, -9, 1, 0, 0])}, numbers)
    total = codec.decode(codec.encode(update, "a"), 1)
    assert total.sums["delta"].tolist() == [2.0, -2.0, 1.0, 0.0, 0.0]
    for wrong in (np.nan, np.inf):
        with pytest.raises(AnabranchError, match="AB-502"):
            codec.encode(Update({"delta": np.float32([wrong, 0, 0, 0, 0])}, numbers), "a")
    for scalars in ({**numbers, WEIGHT: 51.0}, {**numbers, "examples": 0.5}):
        with pytest.raises(AnabranchError, match="AB-503"):
            codec.encode(Update({"delta": np.zeros(5, np.float32)}, scalars), "a")


@settings(max_examples=60, deadline=None)
@given(
    bits=st.integers(12, 64),
    clients=st.integers(1, 40),
    losses=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40),
)
def test_statistics_are_exact_in_every_modulus(
    bits: int, clients: int, losses: list[float]
) -> None:
    losses = losses[:clients]
    codec = SectionCodec(SECTIONS, clients, bits, 2.0, 50.0)
    modulus = 1 << bits
    total = [0] * codec.length
    for number, loss in enumerate(losses):
        update = update_of(number)
        update = Update(update.vectors, {**update.scalars, "train_loss_sum": loss})
        lanes = codec.encode(update, "a").tolist()
        total = [(one + other) % modulus for one, other in zip(total, lanes, strict=True)]
    lanes = np.array(total, np.uint64 if bits > 32 else np.uint32)
    got = codec.decode(lanes, len(losses)).scalar("train_loss_sum")
    assert got == sum(round(loss * 2**24) for loss in losses) / 2**24


def test_a_mechanisms_own_steps_are_kept_or_the_modulus_is_refused() -> None:
    fine = SectionCodec(SECTIONS, 6, 64, 2.0, 50.0, exact=True)
    assert fine.folded == replace_bounds()
    with pytest.raises(AnabranchError, match="AB-951"):
        SectionCodec(SECTIONS, 6, 20, 2.0, 50.0, exact=True)


def replace_bounds():  # type: ignore[no-untyped-def]  # sections
    delta = replace(SECTIONS["delta"], bound=2.0)
    return type(SECTIONS)((delta, *SECTIONS.items[1:]))


@settings(max_examples=40, deadline=None)
@given(bits=st.integers(12, 24), clients=st.integers(2, 30), data=st.data())
def test_residues_that_clients_make_themselves_add_up_modulo_the_modulus(
    bits: int, clients: int, data: st.DataObject
) -> None:
    """Noise from clients: vectors are residues, and no sum of them is out of range."""
    half = 1 << (bits - 1)
    delta = Section("delta", 3, Kind.VECTOR, Weighting.UNIFORM, quantum=1.0, bound=float(half))
    codec = SectionCodec(Sections((delta,)), clients, bits, np.inf, wraps=True)
    assert codec.encoding.wraps
    assert codec.length == 3
    draw = np.random.default_rng(data.draw(st.integers(0, 999)))
    residues = draw.integers(-half, half, (clients, 3))
    total = np.zeros(3, np.uint32)
    for row in residues:
        total += codec.encode(Update({"delta": row.astype(np.float32)}, {}), "a")
    total &= np.uint32((1 << bits) - 1)
    got = codec.decode(total, clients).sums["delta"]
    oracle = (residues.sum(axis=0) + half) % (1 << bits) - half
    assert got.tolist() == oracle.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.1, 0.3])
def test_sums_of_a_thousand_clients_are_exact(share: float) -> None:
    from secagg_rounds import context_of, names_of, plain_sum, run_round, vectors_of

    from anabranch.privacy.secure_aggregation import Finished

    context = context_of(1000, 50, bits=20, largest=500, corrupt=0.05, dropout=max(share, 0.1))
    names = names_of(1000)
    gone = [name for place, name in enumerate(names) if place % 10 < round(10 * share)]
    vectors = vectors_of(context, 1)
    state = run_round(context, vectors, ((), (), gone, (), ()))
    assert isinstance(state, Finished)
    alive = [name for name in names if name not in set(gone)]
    assert list(state.survivors) == alive
    assert np.array_equal(state.total, plain_sum(context, vectors, alive))
