"""The downlink: every client decodes the same bits by whatever way, in fewer bytes than float16."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from anabranch.errors import AnabranchError
from anabranch.randomness import generator
from anabranch.updates import Vector
from anabranch.updates.downlink import DeltaDownlink, Downlink, HalfDownlink
from anabranch.updates.downlink_state import DownlinkState, Held
from anabranch.updates.grid import Change, Grid, coarse_exponent, plus
from anabranch.updates.integers import LARGEST, read_integers, write_integers
from anabranch.updates.packed import Reader, Writer, seal

LENGTH = 3000
LENGTHS = {"model": LENGTH, "control": LENGTH}
EACH = pytest.mark.parametrize(
    "downlink", [HalfDownlink(), DeltaDownlink(), DeltaDownlink(window=0)], ids=repr
)


def walk(rounds: int, size: float = 1e-3) -> list[dict[str, Vector]]:
    """Broadcasts of a run that moves less and less, with two sections."""
    rng = generator(0, "downlink walk")
    model = (rng.normal(size=LENGTH) * 0.05).astype(np.float32)
    control = np.zeros(LENGTH, np.float32)
    found = [{"model": model, "control": control}]
    for number in range(1, rounds):
        step = rng.standard_t(3, LENGTH) * size / number**0.5
        model = (model + step).astype(np.float32)
        control = (control + 0.1 * rng.normal(size=LENGTH)).astype(np.float32)
        found.append({"model": model, "control": control})
    return found


def cohort(number: int, clients: int = 12) -> list[int]:
    return sorted(generator(number, "downlink cohort").choice(clients, 3, replace=False).tolist())


@EACH
def test_every_client_decodes_what_the_loop_computes_with(downlink: Downlink) -> None:
    """Clients that come every round, now and then, or for the first time; all bits alike."""
    broadcasts = walk(30)
    origin, state = broadcasts[0], downlink.start(12)
    held = {client: Held() for client in range(12)}
    for number, vectors in enumerate(broadcasts, 1):
        clients = cohort(number)
        sent = downlink.step(vectors, origin, state, number)
        frames = sent.state.frames(state.held[clients].tolist(), LENGTHS)
        for client in clients:
            content = frames[int(state.held[client])]
            held[client], decoded = downlink.receive(content, held[client], origin)
            assert decoded.keys() == vectors.keys()
            for name, vector in decoded.items():
                assert vector.dtype == np.float32
                assert vector.tobytes() == sent.vectors[name].tobytes()
        state = sent.state.received(clients, sent.state.newest.version)
        assert [h.version for h in held.values()] == state.held.tolist()


@EACH
def test_a_stored_state_goes_on_alike(downlink: Downlink) -> None:
    broadcasts = walk(20)
    origin, state, other = broadcasts[0], downlink.start(12), downlink.start(12)
    for number, vectors in enumerate(broadcasts, 1):
        sent, again = (downlink.step(vectors, origin, s, number) for s in (state, other))
        held = set(state.held.tolist())
        assert sent.state.frames(held, LENGTHS) == again.state.frames(held, LENGTHS)
        state = sent.state.received(cohort(number), sent.state.newest.version)
        other = DownlinkState.from_arrays(state.arrays(), LENGTHS)


def test_errors_do_not_add_up() -> None:
    """Every version is within half a step of the exact vector, in the last round as in the first;
    and the step is about what a round moves."""
    downlink, broadcasts = DeltaDownlink(), walk(60)
    origin, state = broadcasts[0], downlink.start(1)
    for number, vectors in enumerate(broadcasts):
        sent = downlink.step(vectors, origin, state, number + 1)
        state = sent.state
        step = 2.0 ** state.newest.point["model"].exponent
        off = np.abs(sent.vectors["model"].astype(float) - vectors["model"])
        assert off.max() <= step / 2 + 1e-8
        if number > 2:
            moved = np.std(vectors["model"] - broadcasts[number - 1]["model"])
            assert moved / 3 <= step <= moved * 3


def test_the_first_broadcast_costs_next_to_nothing() -> None:
    """Everybody holds the origin already."""
    (origin,) = walk(1)
    sent = DeltaDownlink().step(origin, origin, DeltaDownlink().start(1), 1)
    assert len(sent.state.whole) < 100
    assert all(sent.vectors[n].tobytes() == origin[n].tobytes() for n in origin)


def test_a_failed_round_costs_next_to_nothing() -> None:
    """The same model again: no coordinate leaves its place, and the step stays."""
    downlink, broadcasts = DeltaDownlink(), walk(5)
    state = downlink.start(1)
    for number, vectors in enumerate(broadcasts, 1):
        state = downlink.step(vectors, broadcasts[0], state, number).state
    again = downlink.step(broadcasts[-1], broadcasts[0], state, 6).state
    assert len(again.frames([5], LENGTHS)[5]) < 100
    assert again.newest.point["model"].exponent == state.newest.point["model"].exponent


@pytest.mark.parametrize("size", [1e-9, 1e-3, 1.0, 1e6])
def test_never_larger_than_float16(size: float) -> None:
    """At any scale, whatever a client holds, and with one coordinate far away from all others."""
    downlink = DeltaDownlink(coarseness=2.0**-10, window=4)
    broadcasts, state = walk(12, size), downlink.start(12)
    for number, vectors in enumerate(broadcasts):
        vectors["model"][7] += 1000 * size
        state = downlink.step(vectors, broadcasts[0], state, number + 1).state
        sizes = [len(frame) for frame in state.frames(range(number + 1), LENGTHS).values()]
        tables = 2 * 1024  # frequencies of both sections, which do not grow with the model
        assert max(sizes) <= 2 * 2 * LENGTH * 1.02 + tables


def test_differences_are_small_and_grow_with_the_gap() -> None:
    downlink, broadcasts = DeltaDownlink(window=40), walk(40)
    state = downlink.start(40)
    for number, vectors in enumerate(broadcasts, 1):
        state = downlink.step(vectors, broadcasts[0], state, number).state
    frames = state.frames((39, 20), LENGTHS)
    assert len(frames[39]) < len(frames[20]) < len(state.whole)
    assert 2 * 4 * LENGTH / len(frames[39]) > 6  # of float32, tables and frame included


def test_beyond_the_window_the_whole_model_is_sent() -> None:
    downlink, broadcasts = DeltaDownlink(window=3), walk(10)
    state = downlink.start(2)
    for number, vectors in enumerate(broadcasts, 1):
        state = downlink.step(vectors, broadcasts[0], state, number).state
    frames = state.frames((1, 6, 7, 9), LENGTHS)
    assert frames[1] == frames[6] == state.whole
    assert len(frames[9]) < len(frames[7]) < len(state.whole)
    assert len(state.steps) == 3
    none = DeltaDownlink(window=0).step(broadcasts[1], broadcasts[0], downlink.start(2), 1).state
    assert none.steps == ()
    assert not DeltaDownlink(window=0).remembers


def third() -> tuple[DeltaDownlink, list[dict[str, Vector]], DownlinkState]:
    """Three versions."""
    downlink, broadcasts = DeltaDownlink(), walk(3)
    state = downlink.start(1)
    for number, vectors in enumerate(broadcasts, 1):
        state = downlink.step(vectors, broadcasts[0], state, number).state
    return downlink, broadcasts, state


def test_a_difference_to_another_version_is_refused() -> None:
    downlink, broadcasts, state = third()
    frame = state.frames([2], LENGTHS)[2]
    with pytest.raises(AnabranchError, match=r"AB-526.*holds version 0"):
        downlink.receive(frame, Held(), broadcasts[0])
    _, decoded = downlink.receive(state.whole, Held(), broadcasts[0])  # the way out
    assert decoded["model"].shape == (LENGTH,)


@EACH
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_frames_are_refused_or_decoded(downlink: Downlink, data: st.DataObject) -> None:
    """A wrong checksum is found; with a right one, nothing but refusals or vectors come out."""
    broadcasts = walk(3)
    good = downlink.step(broadcasts[2], broadcasts[0], downlink.start(1), 1).state.whole
    frame = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        frame[data.draw(st.integers(14, len(frame) - 1))] ^= data.draw(st.integers(1, 255))
    if data.draw(st.booleans()):
        del frame[data.draw(st.integers(14, len(frame) - 1)) :]
    if bytes(frame) != good:
        with pytest.raises(AnabranchError, match="AB-525"):
            downlink.receive(bytes(frame), Held(), broadcasts[0])
    sealed = seal(frame[0], frame[1], 2 * LENGTH, bytes(frame[14:])).content
    try:
        _, decoded = downlink.receive(sealed, Held(), broadcasts[0])
        outcome = "decoded" if all(v.shape == (LENGTH,) for v in decoded.values()) else "wrong"
    except AnabranchError as refusal:
        outcome = refusal.code
    assert outcome in ("decoded", "AB-525", "AB-526")


def test_other_formats_and_lengths_are_refused() -> None:
    downlink, broadcasts, state = third()
    origin = broadcasts[0]
    with pytest.raises(AnabranchError, match="AB-525"):
        HalfDownlink().receive(state.whole, Held(), origin)
    newer = bytearray(state.whole)
    newer[1] += 1
    with pytest.raises(AnabranchError, match="AB-525"):
        downlink.receive(bytes(newer), Held(), origin)
    with pytest.raises(AnabranchError, match="AB-525"):
        downlink.receive(state.whole, Held(), {"model": origin["model"]})


@settings(max_examples=80, deadline=None)
@given(
    values=arrays(
        np.int32,
        st.integers(1, 200),
        elements=st.one_of(st.integers(-3, 3), st.integers(-LARGEST, LARGEST)),
    )
)
def test_any_integers_come_back(values: Vector) -> None:
    writer = Writer()
    write_integers(values, writer)
    reader = Reader(writer.body)
    np.testing.assert_array_equal(read_integers(reader, len(values)), values)
    reader.end()


@pytest.mark.parametrize("spread", [0.3, 3.0, 300.0, 20_000.0])
def test_integers_are_near_their_entropy(spread: float) -> None:
    """Of a wide normal distribution: log2(spread sqrt(2 pi e)) bits."""
    values = np.rint(generator(0, "integers").normal(size=200_000) * spread).astype(np.int32)
    writer = Writer()
    write_integers(values, writer)
    part = np.unique(values, return_counts=True)[1] / len(values)
    entropy = -(part * np.log2(part)).sum()
    if spread > 1000:  # too many different numbers to count them
        entropy = np.log2(spread * np.sqrt(2 * np.pi * np.e))
    assert 8 * len(writer.body) / len(values) <= entropy + 0.08


GRIDS = st.builds(
    Grid,
    st.integers(-12, 3),
    arrays(np.int32, 5, elements=st.integers(-(2**10), 2**10)),
)


@settings(max_examples=200, deadline=None)
@given(one=GRIDS, two=GRIDS, three=GRIDS)
def test_changes_are_exact_and_compose(one: Grid, two: Grid, three: Grid) -> None:
    first, second = Change.between(one, two), Change.between(two, three)
    for change, start, end in ((first, one, two), (plus(first, second), one, three)):
        reached = change.after(start)
        assert reached.exponent == end.exponent
        np.testing.assert_array_equal(reached.units, end.units)
    np.testing.assert_array_equal(plus(first, second).units, Change.between(one, three).units)


def test_steps_that_are_too_far_apart_break_the_chain() -> None:
    with pytest.raises(OverflowError):
        Change.between(Grid(-40, np.int32([1])), Grid(0, np.int32([1])))
    downlink = DeltaDownlink()
    origin = {"model": np.zeros(50, np.float32)}
    state = downlink.start(1)
    for number, size in enumerate((1e-20, 1.0, 2.0), 1):
        vectors = {"model": np.full(50, size, np.float32)}
        state = downlink.step(vectors, origin, state, number).state
        _, decoded = downlink.receive(state.whole, Held(), origin)
        np.testing.assert_allclose(decoded["model"], size, rtol=0.5)
    assert len(state.steps) == 1  # only the last one leads on


def test_the_step_follows_the_progress() -> None:
    origin = np.zeros(1000, np.float32)
    moved = generator(0, "step").normal(size=1000).astype(np.float32)
    at = {
        size: coarse_exponent(moved * np.float32(size), origin, Grid.zero(1000), 1.0)
        for size in (1.0, 0.25, 2.0**-10)
    }
    assert at == {1.0: 0, 0.25: -2, 2.0**-10: -10}
    before = Grid.nearest(moved, origin, -3)
    assert coarse_exponent(moved, origin, before, 1.0) == -3  # nothing left its place


def test_sizes_are_known_before_frames_are_made() -> None:
    """Exact for the whole and for the last version; for older ones an upper bound."""
    downlink = DeltaDownlink(window=3)
    rng = np.random.default_rng(4)
    origin = {"model": rng.normal(size=400).astype(np.float32)}
    state, vectors = downlink.start(6), origin
    for version in range(1, 7):
        vectors = {"model": vectors["model"] + rng.normal(0, 0.01, 400).astype(np.float32)}
        _, state = downlink.step(vectors, origin, state, version)
    versions = np.array([0, 1, 3, 4, 5], np.int64)
    frames = state.frames(versions.tolist(), {"model": 400})
    sizes = dict(zip(versions.tolist(), state.sizes(versions).tolist(), strict=True))
    assert sizes[0] == sizes[1] == len(state.whole)
    assert sizes[5] == len(frames[5]) < len(state.whole)
    for version in (3, 4):
        assert len(frames[version]) <= sizes[version] <= len(state.whole)
    assert set(state.sizes(versions, differences=False).tolist()) == {len(state.whole)}


def test_a_fleet_that_grows_holds_the_origin() -> None:
    state = DeltaDownlink().start(2).received([1], 7)
    grown = state.for_clients(4)
    assert grown.held.tolist() == [0, 7, 0, 0]
    assert grown.for_clients(3).held.tolist() == [0, 7, 0, 0]
