"""Secure aggregation from below: primitives against vectors, arithmetic against slow oracles."""

from __future__ import annotations

import ast
import hashlib
import itertools
import json
import math
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anabranch.errors import AnabranchError
from anabranch.privacy import secure_aggregation
from anabranch.privacy.secure_aggregation.fixed_point import FixedPoint
from anabranch.privacy.secure_aggregation.graph import neighbour_graph
from anabranch.privacy.secure_aggregation.packing import pack, packed_bytes, unpack
from anabranch.privacy.secure_aggregation.primitives import (
    agree,
    derive,
    new_agreement_key,
    open_sealed,
    public_agreement_key,
    require_cryptography,
    seal,
)
from anabranch.privacy.secure_aggregation.sharing import PRIME, combine, new_secret, split
from anabranch.privacy.secure_aggregation.streams import add_streams, keystream, lane_dtype
from anabranch.privacy.secure_aggregation.thresholds import choose_neighbourhood, head_count

ROOM = Path(secure_aggregation.__file__).parent
SECRET_ROOMS = [*sorted(ROOM.glob("*.py")), *sorted(ROOM.parent.glob("multiparty/*.py"))]
VECTORS = Path(__file__).parent / "vectors"
ROUND = json.loads((VECTORS / "secagg_vectors.json").read_text("utf-8"))
SHAPES = json.loads((VECTORS / "secagg_k_t.json").read_text("utf-8"))


def secret(label: str) -> bytes:
    return hashlib.sha256(label.encode()).digest()


def seed_of_pair(one: int, other: int) -> bytes:
    shared = agree(secret(f"client-{one}"), bytes.fromhex(ROUND["pub"][other]))
    return derive(shared, ROUND["info"].encode())


def test_keys_and_the_pair_seed_are_those_of_the_vectors() -> None:
    public = [public_agreement_key(secret(f"client-{i}")).hex() for i in range(5)]
    assert public == ROUND["pub"]
    assert seed_of_pair(0, 1).hex() == seed_of_pair(1, 0).hex() == ROUND["seed_0_1"]


def test_the_own_mask_is_that_of_the_vectors() -> None:
    assert keystream(secret("b-0"), 8).tolist() == ROUND["prg_b0"]


def masked(client: int) -> np.ndarray:
    vector = np.array(ROUND["x"][client], np.uint32)
    plus = [secret(f"b-{client}"), *(seed_of_pair(client, j) for j in range(client))]
    add_streams(vector, plus, [seed_of_pair(client, j) for j in range(client + 1, 5)], 32)
    return vector


def test_masked_vectors_and_the_sum_after_a_dropout_are_those_of_the_vectors() -> None:
    sent = [masked(client) for client in range(5)]
    assert [vector.tolist() for vector in sent] == ROUND["y"]
    alive = [0, 1, 2, 4]
    total = np.sum([sent[client] for client in alive], axis=0, dtype=np.uint32)
    seeds = [secret(f"b-{client}") for client in alive]
    # Clients 0 to 2 subtracted the stream they share with client 3, client 4 added it.
    add_streams(
        total,
        [seed_of_pair(3, client) for client in (0, 1, 2)],
        [*seeds, seed_of_pair(3, 4)],
        32,
    )
    assert total.tolist() == ROUND["sum_alive"]


def test_any_three_of_the_five_shares_give_the_secret() -> None:
    shares = {x: int(value, 16).to_bytes(32, "big") for x, value in ROUND["shamir"]["shares"]}
    expected = int(ROUND["shamir"]["secret"], 16).to_bytes(32, "big")
    for chosen in itertools.combinations(shares, 3):
        assert combine({x: shares[x] for x in chosen}) == expected
    assert combine({x: shares[x] for x in (1, 2)}) != expected


@pytest.mark.parametrize("case", SHAPES)
def test_the_graph_is_as_small_as_the_vectors_say(case: dict[str, float]) -> None:
    n = int(case["n"])
    corrupt, dropped = head_count(case["gamma"], n), head_count(case["delta"], n)
    shape = choose_neighbourhood(n, corrupt, dropped)
    assert shape.neighbours == case["k"]
    assert shape.threshold <= shape.neighbours


@pytest.mark.parametrize(("gamma", "t"), [(0.05, 19), (0.1, 26), (0.2, 43), (0.33, 72)])
def test_thresholds_for_a_thousand_clients(gamma: float, t: int) -> None:
    assert choose_neighbourhood(1000, head_count(gamma, 1000), 100).threshold == t


@settings(max_examples=50, deadline=None)
@given(clients=st.integers(2, 99), corrupt=st.floats(0, 0.4), dropped=st.floats(0, 0.4))
def test_small_cohorts_are_complete_and_safe_from_two_views(
    clients: int, corrupt: float, dropped: float
) -> None:
    bad, gone = head_count(corrupt, clients), head_count(dropped, clients)
    try:
        shape = choose_neighbourhood(clients, bad, gone)
    except AnabranchError:
        # Refused only where no threshold fits between the two demands.
        assert (clients - 1 + bad) // 2 + 1 > clients - 1 - gone
        return
    assert shape.neighbours == clients - 1
    # Corrupt neighbours give both shares, honest ones one: 2 t shares can not be collected.
    assert 2 * shape.threshold > shape.neighbours + bad
    assert shape.threshold <= clients - 1 - gone


@pytest.mark.parametrize("counts", [(1, 0, 0), (10, 10, 0), (10, 0, -1)])
def test_impossible_counts_are_refused(counts: tuple[int, int, int]) -> None:
    with pytest.raises(AnabranchError, match="AB-952"):
        choose_neighbourhood(*counts)


@settings(max_examples=50, deadline=None)
@given(value=st.integers(0, PRIME - 1), holders=st.integers(1, 12), data=st.data())
def test_a_secret_comes_back_from_any_threshold_of_shares(
    value: int, holders: int, data: st.DataObject
) -> None:
    threshold = data.draw(st.integers(1, holders))
    shares = split(value.to_bytes(32, "big"), threshold, range(1, holders + 1), os.urandom)
    chosen = data.draw(st.permutations(list(shares)))[:threshold]
    assert combine({x: shares[x] for x in chosen}) == value.to_bytes(32, "big")


@pytest.mark.parametrize(("t", "holders"), [(0, [1, 2]), (3, [1, 2]), (1, [0, 1]), (1, [1, 1])])
def test_impossible_sharings_are_refused(t: int, holders: list[int]) -> None:
    with pytest.raises(AnabranchError, match="AB-952"):
        split(bytes(32), t, holders, os.urandom)


def test_a_draw_above_the_prime_is_thrown_away() -> None:
    draws = iter([b"\xff" * 32, b"\x01" * 32])
    assert new_secret(lambda size: next(draws)) == b"\x01" * 32


@settings(max_examples=50, deadline=None)
@given(bits=st.integers(8, 64), length=st.integers(1, 70), data=st.data())
def test_packing_is_dense_and_returns(bits: int, length: int, data: st.DataObject) -> None:
    top = (1 << bits) - 1
    numbers = data.draw(st.lists(st.integers(0, top), min_size=length, max_size=length))
    content = pack(np.array(numbers, lane_dtype(bits)), bits)
    # The oracle writes one big integer.
    whole = sum(number << (bits * place) for place, number in enumerate(numbers))
    assert content == whole.to_bytes(packed_bytes(length, bits), "little")
    assert unpack(content, length, bits).tolist() == numbers


def test_packed_bytes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(AnabranchError, match="AB-954"):
        unpack(bytes(6), 3, 12)
    with pytest.raises(AnabranchError, match="AB-954"):
        unpack(bytes(4) + b"\xf0", 3, 12)


@settings(max_examples=50, deadline=None)
@given(bits=st.integers(8, 64), length=st.sampled_from([1, 7, 16384, 32768, 40001]))
def test_streams_are_the_plain_keystream_whatever_the_tile(bits: int, length: int) -> None:
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    seed = secret("stream")
    dtype = lane_dtype(bits)
    cipher = Cipher(algorithms.AES(seed[:16]), modes.CTR(seed[16:])).encryptor()
    plain = np.frombuffer(cipher.update(bytes(length * dtype.itemsize)), dtype)
    expected = plain & dtype.type((1 << bits) - 1)
    assert np.array_equal(keystream(seed, length, bits), expected)
    back = expected.copy()
    add_streams(back, [], [seed], bits)
    assert not back.any()


@settings(max_examples=50, deadline=None)
@given(
    bits=st.integers(8, 64),
    clients=st.integers(1, 6),
    scale=st.floats(0.5, 1e6),
    data=st.data(),
)
def test_a_sum_that_was_accepted_never_wraps(
    bits: int, clients: int, scale: float, data: st.DataObject
) -> None:
    encoding = FixedPoint(scale, 1.0, bits)
    if clients > encoding.most_clients:
        with pytest.raises(AnabranchError, match="AB-951"):
            encoding.check(clients)
        return
    encoding.check(clients)
    sign = data.draw(st.sampled_from([-1.0, 1.0, 0.3]))
    vector = np.full(3, sign)
    total = np.zeros(3, lane_dtype(bits))
    for _ in range(clients):
        total = (total + encoding.encode(vector)) & total.dtype.type((1 << bits) - 1)
    expected = clients * round(sign * scale) / scale
    assert encoding.decode(total).tolist() == [expected] * 3


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1.0001])
def test_values_that_are_not_within_the_bound_are_refused(value: float) -> None:
    with pytest.raises(AnabranchError, match="AB-964"):
        FixedPoint(100.0, 1.0, 20).encode(np.array([0.0, value]))


@pytest.mark.parametrize(
    ("scale", "bound", "bits"),
    [(0, 1, 20), (1, math.inf, 20), (1, 1, 7), (1, 1, 65), (2**52, 1, 64)],
)
def test_impossible_encodings_are_refused(scale: float, bound: float, bits: int) -> None:
    with pytest.raises(AnabranchError, match="AB-952"):
        FixedPoint(scale, bound, bits)


def test_the_graph_is_regular_symmetric_and_moves_with_the_seed() -> None:
    names = [f"c{i}" for i in range(120)]
    graph = neighbour_graph(names, 36, b"seed")
    assert {len(peers) for peers in graph.values()} == {36}
    assert all(name in graph[peer] for name, peers in graph.items() for peer in peers)
    assert graph == neighbour_graph(names[::-1], 36, b"seed")
    assert graph != neighbour_graph(names, 36, b"other")


def test_sealed_bytes_open_only_unchanged() -> None:
    key, bound = secret("key"), b"va to ny"
    sealed = seal(key, b"share", bound, os.urandom)
    assert open_sealed(key, sealed, bound) == b"share"
    assert open_sealed(key, sealed, b"ny to va") is None
    assert open_sealed(key, sealed[:-1] + bytes([sealed[-1] ^ 1]), bound) is None
    assert open_sealed(key, b"short", bound) is None


def test_agreement_keys_fit_below_the_prime() -> None:
    assert int.from_bytes(new_agreement_key(lambda size: b"\xff" * size), "big") < PRIME


def test_without_cryptography_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(AnabranchError, match="AB-950"):
        require_cryptography()


@pytest.mark.parametrize("module", SECRET_ROOMS, ids=lambda path: path.stem)
def test_no_module_of_the_room_knows_a_predictable_generator(module: Path) -> None:
    tree = ast.parse(module.read_text("utf-8"))
    imported = {
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
        )
    }
    assert not any(name.split(".")[0] in ("random", "pickle", "secrets") for name in imported)
    assert not any(name.startswith("anabranch.randomness") for name in imported)
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not attributes & {"random", "default_rng", "Generator"}
