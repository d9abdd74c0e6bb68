"""The low-rank codec: exact where the rank suffices, the best projection where it does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_codec_runs import federation, finished, plan
from test_codecs import back, error, packed

from anabranch.errors import AnabranchError
from anabranch.randomness import generator
from anabranch.testing import StageSuite
from anabranch.updates import LowRank, Stage, Vector
from anabranch.updates.halves import halves, whole
from anabranch.updates.layout import Layout, Parameter, Policy

SHAPES = ((30, 50), (50,), (8, 2, 3, 3))
LENGTH = 1500 + 50 + 144


class TestLowRank(StageSuite):
    def stage(self) -> Stage:
        return LowRank(rank=2, feedback=False)


class TestLowRankWithFeedback(StageSuite):
    def stage(self) -> Stage:
        return LowRank(rank=1)


def random(shape: tuple[int, ...], seed: int = 0) -> Vector:
    return generator(seed, "low rank").normal(size=shape).astype(np.float32)


def test_a_matrix_of_that_rank_comes_back() -> None:
    matrix = random((30, 3)) @ random((3, 50), 1)
    codec = LowRank(rank=3, shapes=((30, 50),), feedback=False)
    assert error(matrix.ravel(), back(codec, matrix.ravel())) < 1e-6


def test_the_error_is_nearly_that_of_the_best_approximation() -> None:
    """Eckart and Young: no matrix of rank r errs less than the singular values left out."""
    rng = generator(2, "low rank")
    left, _ = np.linalg.qr(rng.normal(size=(60, 60)))
    right, _ = np.linalg.qr(rng.normal(size=(80, 60)))
    values = 1.3 ** -np.arange(60.0)
    matrix = ((left * values) @ right.T).astype(np.float32)
    best = float((values[6:] ** 2).sum() / (values**2).sum())
    found = {
        n: error(
            matrix.ravel(),
            back(LowRank(rank=6, iterations=n, shapes=((60, 80),), feedback=False), matrix.ravel()),
        )
        for n in (1, 4)
    }
    assert best * 0.99 <= found[4] <= best * 1.2
    assert found[4] <= found[1] <= best * 4


def test_vectors_and_small_matrices_are_sent_as_they_are() -> None:
    delta = random((LENGTH,))
    codec = LowRank(rank=2, shapes=SHAPES, feedback=False)
    decoded = back(codec, delta)
    np.testing.assert_array_equal(decoded[1500:1550], delta[1500:1550])
    assert (decoded[:1500] != delta[:1500]).any()
    full = LowRank(rank=256, shapes=SHAPES, feedback=False)
    np.testing.assert_allclose(back(full, delta), delta, atol=2e-3)
    # Frame, the rank, two exponents and factors of both matrices in float16, the vector in float32.
    wanted = 14 + 2 + 2 * 4 + 2 * 2 * (80 + 26) + 4 * 50
    assert len(packed(codec, delta).content) == wanted == codec.least_bytes(LENGTH)


def test_the_shapes_are_those_of_the_model() -> None:
    layout = Layout.of(
        [
            Parameter("w", (4, 5)),
            Parameter("head", (3, 3), Policy.LOCAL),
            Parameter("b", (4,)),
        ]
    )
    assert LowRank().fitted(layout) == LowRank(shapes=((4, 5), (4,)))
    own = LowRank(shapes=((6, 4),))
    assert own.fitted(layout) is own
    with pytest.raises(AnabranchError, match="AB-466"):
        LowRank(shapes=((6, 5),)).fitted(layout)


def test_a_run_takes_the_shapes_of_its_model(tmp_path: Path) -> None:
    stages: list[dict[str, object]] = [{"kind": "lowrank", "rank": 1}]
    run = finished(tmp_path, plan(stages, clients={"memory": True}))
    assert run.status == "complete"
    wrong: list[dict[str, object]] = [{"kind": "lowrank", "shapes": [[3, 5]]}]
    with pytest.raises(AnabranchError, match="AB-466"):
        finished(tmp_path, plan(wrong, clients={"memory": True}))
    assert len(federation()) == 4


@pytest.mark.parametrize("size", [1e-30, 1e-6, 1.0, 1e30])
def test_halves_keep_eleven_bits_at_any_size(size: float) -> None:
    values = (random((200,)) * size).astype(np.float32)
    off = np.abs(whole(*halves(values)) - values)
    assert (off <= np.abs(values) * 2.0**-11 + np.abs(values).max() * 2.0**-39).all()


def test_tiny_and_huge_updates_keep_their_relative_error() -> None:
    matrix = random((30, 50)).ravel()
    codec = LowRank(rank=4, shapes=((30, 50),), feedback=False)
    errors = [
        error(matrix * np.float32(s), back(codec, matrix * np.float32(s))) for s in (1, 1e-12)
    ]
    assert errors[1] == pytest.approx(errors[0], rel=1e-2)
