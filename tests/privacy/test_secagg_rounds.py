"""Whole rounds: the sum is the plain integer sum bit for bit, or the round ends with a name."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from secagg_rounds import context_of, names_of, plain_sum, run_round, vectors_of

from anabranch.privacy.secure_aggregation import (
    Abandoned,
    Finished,
    FixedPoint,
    Neighbourhood,
    Outcome,
    RoundContext,
)
from anabranch.privacy.secure_aggregation.server import ServerState


def expected_outcome(
    context: RoundContext, gone: tuple[frozenset[str], ...]
) -> tuple[Outcome | None, list[str]]:
    """What must happen in a complete graph, and who is in the sum; written down by hand."""
    names = set(context.roster)
    n = len(names)
    listed = names - gone[0]
    quorum = (n + context.corrupt) // 2 + 1
    least = max(quorum, context.minimum_survivors)
    if len(listed) < least:
        return Outcome.TOO_FEW_KEYS, []
    threshold = (len(listed) - 1 + context.corrupt) // 2 + 1
    active = listed - gone[1]
    if len(active) < least or len(active) - 1 < threshold:
        return Outcome.TOO_FEW_SHARES, []
    alive = active - gone[2]
    # A survivor has one neighbour among the survivors less than a dropped client has.
    if len(alive) < least or len(alive) - 1 < threshold:
        return Outcome.TOO_FEW_INPUTS, []
    signed = alive - gone[3]
    if len(signed) < quorum:
        return Outcome.TOO_FEW_SIGNATURES, []
    replied = signed - gone[4]
    # Everybody's secret needs t answers, and nobody holds a share of its own.
    if min(len(replied - {name}) for name in active) < threshold:
        return Outcome.TOO_FEW_REVEALS, []
    return None, sorted(alive)


@settings(max_examples=60, deadline=None)
@given(clients=st.integers(2, 12), bits=st.sampled_from([16, 20, 32, 33, 64]), data=st.data())
def test_any_dropouts_give_the_plain_sum_or_a_named_end(
    clients: int, bits: int, data: st.DataObject
) -> None:
    context = context_of(clients, 5, bits=bits)
    gone = tuple(
        frozenset(data.draw(st.sets(st.sampled_from(names_of(clients)), max_size=2)))
        for _ in range(5)
    )
    vectors = vectors_of(context, data.draw(st.integers(0, 999)))
    check(context, run_round(context, vectors, gone), gone, vectors)


def check(
    context: RoundContext,
    state: ServerState,
    gone: tuple[frozenset[str], ...],
    vectors: dict[str, np.ndarray],
) -> None:
    outcome, alive = expected_outcome(context, gone)
    if outcome is not None:
        assert isinstance(state, Abandoned)
        assert state.outcome is outcome
        return
    assert isinstance(state, Finished)
    assert list(state.survivors) == alive
    assert state.blamed == ()
    assert np.array_equal(state.total, plain_sum(context, vectors, alive))


def test_one_client_of_seven_may_vanish_before_every_stage() -> None:
    context = context_of(7, 3)
    vectors = vectors_of(context, 3)
    for stage in range(5):
        gone = [frozenset[str]()] * 5
        gone[stage] = frozenset(["client-002"])
        check(context, run_round(context, vectors, tuple(gone)), tuple(gone), vectors)


def run_hundred(share: float) -> None:
    context = context_of(100, 1000, bits=20, corrupt=0.05, dropout=max(share, 0.1))
    names = names_of(100)
    gone = names[:: round(1 / share)] if share else []
    if share == 0.3:
        gone = [name for place, name in enumerate(names) if place % 10 in (1, 4, 8)]
    vectors = vectors_of(context, 1)
    state = run_round(context, vectors, ((), (), gone, (), ()))
    assert isinstance(state, Finished)
    alive = [name for name in names if name not in gone]
    assert len(alive) == round(100 * (1 - share))
    assert list(state.survivors) == alive
    assert np.array_equal(state.total, plain_sum(context, vectors, alive))


def test_a_hundred_clients_a_tenth_of_which_vanishes() -> None:
    run_hundred(0.1)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.3])
def test_a_hundred_clients(share: float) -> None:
    run_hundred(share)


@pytest.mark.parametrize("share", [0.6, 0.95])
def test_below_the_threshold_nothing_is_opened(share: float) -> None:
    context = context_of(20, 4, corrupt=0.1, dropout=0.1)
    gone = names_of(20)[: round(20 * share)]
    state = run_round(context, vectors_of(context, 1), ((), (), gone, (), ()))
    assert isinstance(state, Abandoned)
    assert state.outcome is Outcome.TOO_FEW_INPUTS
    # An abandoned round holds public facts only: no share, no vector, no partial sum.
    assert set(vars(state)) == {"context", "outcome", "detail"}


def test_a_finished_sum_decodes_to_the_sum_of_the_vectors() -> None:
    context = context_of(5, 4, bits=20)
    vectors = vectors_of(context, 2)
    state = run_round(context, vectors)
    assert isinstance(state, Finished)
    plain = sum(context.encoding.decode(vector) for vector in vectors.values())
    assert np.array_equal(context.encoding.decode(state.total), plain)


def test_a_hundred_clients_have_a_sparse_graph_unless_a_complete_one_is_asked_for() -> None:
    sparse = context_of(100, corrupt=0.05, dropout=0.1)
    assert sparse.neighbourhood(100) == Neighbourhood(36, 6)
    complete = context_of(100, corrupt=0.05, dropout=0.1, complete_below=101)
    # 2 t > 99 + 5, whoever the coordinator declares dropped.
    assert complete.neighbourhood(100) == Neighbourhood(99, 53)
    assert sparse.digest != complete.digest


def test_everything_in_a_context_is_in_its_digest() -> None:
    plain = context_of(6, 4)
    changed = [
        replace(plain, run="other"),
        replace(plain, round=8),
        replace(plain, attempt=1),
        replace(plain, model_digest=b"1" * 32),
        replace(plain, plan_digest=b"1" * 32),
        replace(plain, ledger_head=b"1" * 32),
        replace(plain, roster={**plain.roster, "more": bytes(32)}),
        replace(plain, length=5),
        replace(plain, encoding=FixedPoint(2.0, 1000.0, 32)),
        replace(plain, encoding=FixedPoint(1.0, 999.0, 32)),
        replace(plain, encoding=FixedPoint(1.0, 1000.0, 31)),
        replace(plain, corrupt_share=0.1),
        replace(plain, dropout_share=0.1),
        replace(plain, minimum_survivors=3),
        replace(plain, complete_below=101),
    ]
    assert len({context.digest for context in (plain, *changed)}) == len(changed) + 1
