"""What codecs send: round trips, known errors, sizes at the entropy, and no trust in bytes."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from anabranch.errors import AnabranchError
from anabranch.randomness import generator
from anabranch.updates import (
    CODECS,
    ECQ,
    EDEN,
    QSGD,
    STC,
    Codec,
    EncodeContext,
    Half,
    LowRank,
    Packed,
    RandomMask,
    Section,
    Sections,
    Sign,
    Ternary,
    TopK,
    Update,
    Vector,
    Zstd,
    compile_stages,
    zstd,
)
from anabranch.updates.packed import REFUSED, Reader, Writer, seal
from anabranch.updates.rotate import LEVELS, hadamard
from anabranch.updates.symbols import read_symbols, write_symbols
from anabranch.updates.wire import pack, unpack

ALL = tuple(codec() for codec in CODECS.values())
EACH = pytest.mark.parametrize("codec", ALL, ids=lambda codec: codec.name)

FLOATS = st.floats(-1e6, 1e6, width=32)
DELTAS = arrays(np.float32, st.integers(1, 70), elements=FLOATS)


def packed(codec: Codec, delta: Vector, draw: int = 0, client: str = "a") -> Packed:
    memory = {"rest": np.zeros_like(delta)} if codec.remembers else {}
    context = EncodeContext(client, 1, generator(0, "encode", draw, client))
    return codec.encode(Update({"delta": delta}, {}), memory, context)[0].packed["delta"]


def unpacked(codec: Codec, content: Packed) -> Vector:
    vector = codec.decode_one(Update({}, {}, {"delta": content})).vectors["delta"]
    assert vector.dtype == np.float32
    return vector.astype(np.float32, copy=False)


def back(codec: Codec, delta: Vector, draw: int = 0, client: str = "a") -> Vector:
    return unpacked(codec, packed(codec, delta, draw, client))


def heavy(count: int = 200_000) -> Vector:
    """Tails like those of a small CNN's update: one per cent holds half of the energy."""
    return (generator(1, "heavy tails").standard_t(2.2, count) * 1e-3).astype(np.float32)


def error(delta: Vector, decoded: Vector) -> float:
    """Squared error relative to the squared norm."""
    return float(((decoded - delta) ** 2).sum(dtype=float) / (delta**2).sum(dtype=float))


def test_numbers_of_codecs_are_unique() -> None:
    assert len({codec.codec for codec in ALL}) == len(ALL)


@EACH
@settings(max_examples=40, deadline=None)
@example(delta=np.eye(1, 17, dtype=np.float32)[0])  # 17 coordinates: an eighth is not whole
@given(delta=DELTAS)
def test_any_vector_decodes_to_its_length(codec: Codec, delta: Vector) -> None:
    decoded = back(codec, delta)
    assert decoded.shape == delta.shape
    assert np.isfinite(decoded).all()
    if np.isfinite(codec.contract().inflation):
        norm = float(np.linalg.norm(delta.astype(float)))
        bound = codec.contract().inflation * norm
        assert float(np.linalg.norm(decoded.astype(float))) <= bound * (1 + 1e-5) + 1e-30


@EACH
@pytest.mark.parametrize("length", [0, 1, 7, 8, 1024, 1025])
def test_odd_lengths_and_zeros(codec: Codec, length: int) -> None:
    np.testing.assert_array_equal(back(codec, np.zeros(length, np.float32)), np.zeros(length))
    assert len(back(codec, np.ones(length, np.float32))) == length


@settings(max_examples=60, deadline=None)
@given(delta=arrays(np.float32, st.integers(0, 70), elements=st.floats(width=32, allow_nan=False)))
def test_lossless_keeps_every_bit(delta: Vector) -> None:
    if np.isfinite(delta).all():
        assert back(Zstd(), delta).tobytes() == delta.tobytes()


@settings(max_examples=60, deadline=None)
@given(delta=DELTAS)
def test_errors_stay_below_a_step(delta: Vector) -> None:
    rms = float(np.sqrt(np.mean(delta.astype(float) ** 2)))
    step = 2 * rms * (1 + 1e-5) + 1e-37
    off = np.abs(back(ECQ(coarseness=2), delta).astype(float) - delta)
    assert off.max() <= step + 1e-6 * np.abs(delta).max()
    off = np.abs(back(ECQ(coarseness=2, rounding="nearest"), delta).astype(float) - delta)
    assert off.max() <= step / 2 + 1e-6 * np.abs(delta).max()
    largest = float(np.abs(delta).max())
    off = np.abs(back(QSGD(bits=4), delta).astype(float) - delta)
    assert off.max() <= largest / 7 * (1 + 1e-5)
    off = np.abs(back(Half(), delta).astype(float) - delta)
    assert (off <= np.abs(delta) * 2.0**-11 + largest * 2.0**-39).all()


@settings(max_examples=60, deadline=None)
@given(
    symbols=arrays(
        np.int32,
        st.integers(1, 300),
        elements=st.one_of(st.integers(-3, 3), st.integers(-(2**31), 2**31 - 1)),
    )
)
def test_any_symbols_come_back(symbols: Vector) -> None:
    writer = Writer()
    write_symbols(symbols, writer)
    reader = Reader(writer.body)
    np.testing.assert_array_equal(read_symbols(reader, len(symbols)), symbols)
    reader.end()


@pytest.mark.parametrize("coarseness", [0.5, 1.0, 3.0, 6.0])
def test_sizes_are_within_one_per_cent_of_the_entropy(coarseness: float) -> None:
    delta = heavy(400_000)
    codec = ECQ(coarseness=coarseness)
    content = packed(codec, delta)
    levels = np.rint(unpacked(codec, content) / np.frombuffer(content.content[18:22], "<f4")[0])
    part = np.unique(levels, return_counts=True)[1] / len(delta)
    entropy = -(part * np.log2(part)).sum() * len(delta) / 8
    assert entropy <= len(content.content) <= 1.01 * entropy + 600  # the table and the header


@pytest.mark.parametrize(
    ("codec", "low", "high", "most_bits"),
    [
        (ECQ(coarseness=1, rounding="nearest"), 0.04, 0.09, 1.6),
        (ECQ(coarseness=4, rounding="nearest"), 0.25, 0.4, 0.32),
        (ECQ(coarseness=6), 1.0, 3.0, 0.55),
        (Ternary(), 2.0, 8.0, 0.7),
        (QSGD(bits=4), 0.1, 0.7, 2.2),
        (QSGD(bits=8), 0.0, 0.006, 5.9),
        (EDEN(bits=1), 0.45, 0.65, 1.02),
        (EDEN(bits=2), 0.11, 0.14, 2.03),
        (EDEN(bits=3), 0.03, 0.04, 3.03),
        (EDEN(bits=4), 0.008, 0.011, 4.03),
        (TopK(fraction=0.01, feedback=False), 0.3, 0.5, 0.42),
        (STC(fraction=0.01, feedback=False), 0.5, 0.75, 0.1),
        (Sign(feedback=False), 0.55, 0.85, 1.01),
        (RandomMask(fraction=0.125), 5.5, 8.5, 4.01),
        (LowRank(rank=16, feedback=False), 0.5, 0.95, 2.1),
        (Half(), 0.0, 1e-6, 16.1),
        (Zstd(), 0.0, 0.0, 32.0),
    ],
    ids=lambda value: value.name if isinstance(value, Codec) else str(value),
)
def test_errors_and_sizes_are_those_known(
    codec: Codec, low: float, high: float, most_bits: float
) -> None:
    delta = heavy()
    content = packed(codec, delta)
    assert low <= error(delta, unpacked(codec, content)) <= high
    assert 8 * len(content.content) / len(delta) <= most_bits


@pytest.mark.parametrize("codec", [ECQ(), Ternary(), QSGD(bits=2), EDEN()], ids=lambda c: c.name)
def test_errors_of_unbiased_codecs_average_out_over_clients(codec: Codec) -> None:
    delta = heavy(50_000)
    clients = [back(codec, delta, 0, str(n)) for n in range(32)]
    alone = float(np.mean([error(delta, decoded) for decoded in clients]))
    together = error(delta, np.mean(clients, axis=0, dtype=np.float64).astype(np.float32))
    assert together == pytest.approx(alone / 32, rel=0.25)


def test_a_shared_mask_drops_the_same_everywhere() -> None:
    """More clients do not help; more rounds do."""
    delta, mask = heavy(10_000), RandomMask(fraction=0.25)
    one, two = back(mask, delta, 0, "a"), back(mask, delta, 5, "b")
    np.testing.assert_array_equal(one, two)
    assert np.count_nonzero(one) == 2500
    places = mask.places(10_000, 1)
    np.testing.assert_array_equal(one[places], delta[places] * np.float32(4))
    assert len(np.intersect1d(places, mask.places(10_000, 2))) == pytest.approx(625, abs=100)
    # The places are a format: another version must not draw others.
    assert RandomMask(fraction=0.25).places(12, 1).tolist() == PLACES


PLACES = [0, 6, 8]


def test_the_scale_of_eden_keeps_the_projection() -> None:
    """<x^, x> = |x|^2 in every draw, which is what makes it unbiased."""
    delta = heavy(4096)
    for draw in range(5):
        for bits in LEVELS:
            decoded = back(EDEN(bits=bits), delta, draw)
            inner = float(decoded.astype(float) @ delta)
            assert inner == pytest.approx(float(delta.astype(float) @ delta), rel=1e-4)


def test_one_bit_eden_has_the_error_of_its_paper() -> None:
    """pi / 2 - 1 for long blocks whose energy is spread; less where one coordinate has it all."""
    delta = generator(0, "normal").normal(size=100_000).astype(np.float32)
    assert error(delta, back(EDEN(), delta)) == pytest.approx(np.pi / 2 - 1, rel=0.02)


@pytest.mark.parametrize("bits", sorted(LEVELS))
def test_levels_are_those_of_lloyd_and_max(bits: int) -> None:
    """Each level is the mean of the normal numbers nearest to it."""
    grid = np.linspace(0, 9, 900_001)
    density = np.exp(-(grid**2) / 2)
    levels = np.array(LEVELS[bits])
    nearest = np.searchsorted((levels[1:] + levels[:-1]) / 2, grid)
    for number, level in enumerate(levels):
        own = nearest == number
        assert (grid[own] * density[own]).sum() / density[own].sum() == pytest.approx(level, 1e-4)


def test_the_rotation_is_its_own_inverse() -> None:
    rows = generator(0, "rows").normal(size=(3, 64)).astype(np.float32)
    np.testing.assert_allclose(hadamard(hadamard(rows)), rows, atol=1e-6)
    matrix = np.array([[1.0]])
    for _ in range(6):
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    np.testing.assert_allclose(hadamard(rows), rows @ matrix / 8, atol=1e-5)


def test_top_k_by_hand() -> None:
    delta = np.float32([3, -5, 1, 0, 4, -4, 2, 0.5])
    kept = back(TopK(fraction=0.375, feedback=False), delta)
    assert kept.tolist() == [0, -5, 0, 0, 4, -4, 0, 0]
    ternary = back(STC(fraction=0.25, feedback=False), delta)
    assert ternary.tolist() == [0, -4.5, 0, 0, 4.5, 0, 0, 0]  # of equals the first


@pytest.mark.parametrize("codec", [TopK(fraction=0.1), STC(fraction=0.1), Sign(), LowRank(rank=1)])
def test_error_feedback_loses_nothing(codec: Codec) -> None:
    """What was sent and what is kept add up to all updates so far, whatever the codec drops."""
    rng = generator(0, "feedback")
    memory: dict[str, Vector] = {"rest": np.zeros(50, np.float32)}
    everything, sent = np.zeros(50), np.zeros(50)
    for number in range(60):
        delta = rng.normal(size=50).astype(np.float32)
        everything += delta
        context = EncodeContext("a", number, rng)
        update, kept = codec.encode(Update({"delta": delta}, {}), memory, context)
        memory = dict(kept)
        sent += unpacked(codec, update.packed["delta"])
    np.testing.assert_allclose(sent + memory["rest"], everything, atol=1e-4)


def test_other_sections_are_left_alone() -> None:
    update = Update({"delta": heavy(64), "control": heavy(64)}, {"weight": 2.0})
    sections = Sections((Section.vector("delta", 64), Section.vector("control", 64)))
    context = EncodeContext("a", 1, generator(0, "e"))
    pipeline = compile_stages([QSGD()])
    sent, _ = pipeline.encode(update, {}, context)
    assert sent.vectors.keys() == {"control"}
    assert sent.nbytes == len(sent.packed["delta"].content) + 4 * 64 + 8
    with pytest.raises(AnabranchError, match="AB-501"):
        sent.check(sections, "a")  # the fold takes no bytes
    arrived = unpack(pack(Update(sent.vectors, {}, sent.packed), sections), sections, "a")
    assert pipeline.decode_one(arrived).vectors.keys() == {"delta", "control"}


def code_of(codec: Codec, content: Packed) -> str:
    with pytest.raises(AnabranchError) as caught:
        unpacked(codec, content)
    return caught.value.code


@EACH
def test_frames_are_refused_by_name(codec: Codec) -> None:
    good = packed(codec, heavy(100))
    frame = bytearray(good.content)
    assert code_of(codec, Packed(100, bytes(frame[:9]))) == "AB-522"
    assert code_of(codec, Packed(100, bytes(frame[:-1]))) == "AB-522"
    assert code_of(codec, Packed(101, bytes(frame))) == "AB-521"
    other = ALL[(ALL.index(codec) + 1) % len(ALL)]
    assert code_of(other, good) == "AB-520"
    frame[1] += 1
    assert code_of(codec, Packed(100, bytes(frame))) == "AB-520"
    with pytest.raises(AnabranchError, match="AB-520"):
        codec.decode_one(Update({"delta": heavy(100)}, {}))


@EACH
def test_a_frame_cannot_ask_for_memory(codec: Codec) -> None:
    """A declared length of a billion in a small payload meets the length of the section."""
    body = packed(codec, heavy(100)).content[14:]
    huge = seal(codec.codec, codec.version, 2**40, body)
    assert code_of(codec, Packed(100, huge.content)) == "AB-521"


@EACH
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_content_decodes_or_is_refused(codec: Codec, data: st.DataObject) -> None:
    """With a valid checksum too: bytes changed, cut, added or made up never do anything else."""
    body = bytearray(packed(codec, heavy(100)).content[14:])
    kind = data.draw(st.sampled_from(["change", "cut", "add", "make up"]))
    if kind == "change":
        for _ in range(data.draw(st.integers(1, 4))):
            body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    elif kind == "cut":
        del body[data.draw(st.integers(0, len(body) - 1)) :]
    elif kind == "add":
        body += data.draw(st.binary(min_size=1, max_size=20))
    else:
        body = bytearray(data.draw(st.binary(max_size=200)))
    content = seal(codec.codec, codec.version, 100, bytes(body))
    try:
        length, code = len(unpacked(codec, content)), ""
    except AnabranchError as refusal:
        length, code = 100, refusal.code
    assert length == 100
    assert code in REFUSED | {""}


@EACH
def test_a_flipped_bit_is_found(codec: Codec) -> None:
    content = bytearray(packed(codec, heavy(100)).content)
    for place in range(10, len(content), 7):
        content[place] ^= 0x10
        assert code_of(codec, Packed(100, bytes(content))) == "AB-522"
        content[place] ^= 0x10


def test_a_small_zstd_frame_that_grows_is_refused() -> None:
    bomb = zstd.compress(bytes(1 << 24))
    for content in (bomb, bomb[:-3], zstd.compress(bytes(399)), zstd.compress(bytes(400))[:-3]):
        assert code_of(Zstd(), seal(Zstd.codec, 1, 100, content)) == "AB-523"
    # A size that is not named, so that it only shows while decompressing.
    options = {zstd.CompressionParameter.content_size_flag: 0}
    stream = zstd.compress(bytes(1 << 24), options=options)
    assert code_of(Zstd(), seal(Zstd.codec, 1, 100, stream)) == "AB-523"


def test_the_frame_is_as_documented() -> None:
    content = packed(Zstd(), np.float32([1, 2])).content
    codec, version, length, crc = struct.unpack_from("<BBQI", content)
    assert (codec, version, length) == (10, 1, 2)
    assert crc == zlib.crc32(content[:10] + content[14:])
