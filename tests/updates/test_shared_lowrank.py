"""Low rank with a public basis: linear, against slow sums, and behind masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_codec_runs import bytes_up, federation, finished, plan

import anabranch as ab
from anabranch.aggregation.fold import Accumulator, FoldPlan
from anabranch.plan.algebra import judge
from anabranch.randomness import generator
from anabranch.updates import SharedLowRank
from anabranch.updates.sections import Section, Sections, Update, Vector
from anabranch.updates.stages import EncodeContext, compile_stages

SHAPES = ((6, 20), (6,), (15, 3, 2))
LENGTH = 120 + 6 + 90
SECTIONS = Sections((Section.vector("delta", LENGTH), Section.count("weight")))


def stage(**changes: object) -> SharedLowRank:
    return SharedLowRank.model_validate({"rank": 4, "shapes": SHAPES, **changes})


def sent(
    of: SharedLowRank, delta: Vector, rest: Vector | None = None, round_: int = 3
) -> tuple[Update, Vector]:
    memory = {"rest": np.zeros(LENGTH, np.float32) if rest is None else rest}
    context = EncodeContext("a", round_, generator(0, "encode", round_, "a"))
    update, kept = of.encode(Update({"delta": delta}, {"weight": 1.0}), memory, context)
    return update, np.asarray(kept.get("rest", np.zeros(LENGTH)), np.float32)


def deltas(count: int) -> list[Vector]:
    rng = np.random.default_rng(2)
    return [rng.normal(size=LENGTH).astype(np.float32) for _ in range(count)]


def slowly(of: SharedLowRank, delta: Vector, round_: int) -> np.ndarray:
    """Each matrix projected on the columns of its basis, one product after the other."""
    out, start = np.zeros(LENGTH), 0
    for number, (rows, columns, wide) in enumerate(((6, 20, True), (6, 1, None), (15, 6, False))):
        block = delta[start : start + rows * columns].astype(np.float64).reshape(rows, columns)
        result = np.zeros((rows, columns))
        if wide is None:
            result = block
        else:
            draw = generator(of.seed, "shared basis", round_, str(number)).standard_normal(
                (max(rows, columns), 4)
            )
            basis: list[np.ndarray] = []  # Gram and Schmidt
            for column in draw.T:
                for other in basis:
                    column = column - (column @ other) * other
                basis.append(column / np.sqrt(column @ column))
            for vector in basis:
                for i in range(rows):
                    for j in range(columns):
                        if wide:
                            along = sum(block[i, k] * vector[k] for k in range(columns))
                            result[i, j] += along * vector[j]
                        else:
                            along = sum(block[k, j] * vector[k] for k in range(rows))
                            result[i, j] += along * vector[i]
        out[start : start + rows * columns] = result.ravel()
        start += rows * columns
    return out


def test_it_is_the_projection_on_the_basis_of_the_round() -> None:
    of, (delta,) = stage(feedback=False), deltas(1)
    update, _ = sent(of, delta)
    lifted = of.lifted(update.vectors["delta"].astype(np.float64), LENGTH, 3)
    np.testing.assert_allclose(lifted, slowly(of, delta, 3), atol=2e-5)
    assert len(update.vectors["delta"]) == 6 * 4 + 6 + 4 * 6
    assert of.encoded(SECTIONS)["delta"].length == 54


def test_sums_of_what_is_sent_are_what_is_sent_of_the_sum() -> None:
    of, (a, b) = stage(feedback=False), deltas(2)
    separately = sent(of, a)[0].vectors["delta"] + sent(of, b)[0].vectors["delta"]
    np.testing.assert_allclose(separately, sent(of, a + b)[0].vectors["delta"], atol=1e-5)


def test_the_fold_of_many_is_their_projected_sum() -> None:
    of, many = stage(), deltas(5)
    pipeline = compile_stages([of])
    fold = Accumulator(FoldPlan(pipeline.encoded(SECTIONS), 5))
    for number, delta in enumerate(many):
        fold.add(sent(of, delta)[0], str(number))
    total = pipeline.decode_sum(fold.total())
    assert total.sections == SECTIONS
    expected = slowly(of, np.sum(many, axis=0), 3)
    np.testing.assert_allclose(total.sums["delta"], expected, atol=1e-4)


def test_what_is_left_out_is_sent_later() -> None:
    """Over rounds: all that was sent, and what is kept, is all that there was."""
    of, many = stage(), deltas(6)
    rest, through = np.zeros(LENGTH, np.float32), np.zeros(LENGTH)
    for round_, delta in enumerate(many, 1):
        update, rest = sent(of, delta, rest, round_)
        through += of.lifted(update.vectors["delta"].astype(np.float64), LENGTH, round_)
    np.testing.assert_allclose(through + rest, np.sum(many, axis=0), atol=1e-4)
    assert np.linalg.norm(rest) < 6 * np.linalg.norm(many[0])


def test_without_feedback_it_is_right_on_average_over_rounds() -> None:
    of, (delta,) = stage(feedback=False), deltas(1)
    rounds = 1500
    mean = np.zeros(LENGTH)
    for round_ in range(rounds):
        lifted = of.projected(delta, round_)
        mean += of.lifted(lifted, LENGTH, round_, scaled=True) / rounds
    # A coordinate errs by about |row| sqrt(20 / 4) a round; four standard deviations of the mean.
    assert np.abs(mean - delta).max() < 4 * 6 * np.sqrt(5) / np.sqrt(rounds)


def test_damage_and_mixtures_are_refused() -> None:
    of = stage()
    with pytest.raises(ab.AnabranchError, match="AB-502"):
        sent(of, np.full(LENGTH, np.inf, np.float32))
    pipeline = compile_stages([of])
    fold = Accumulator(FoldPlan(pipeline.encoded(SECTIONS), 2))
    for round_ in (3, 4):
        fold.add(sent(of, deltas(1)[0], round_=round_)[0], str(round_))
    with pytest.raises(ab.AnabranchError, match="AB-527"):
        pipeline.decode_sum(fold.total())
    from anabranch.updates.wire import pack, unpack

    sections = pipeline.encoded(SECTIONS)
    content = pack(sent(of, deltas(1)[0])[0], sections)
    longer = compile_stages([stage(rank=5)]).encoded(SECTIONS)
    with pytest.raises(ab.AnabranchError, match="AB-501"):
        unpack(content, longer, "a")


def test_what_the_algebra_says() -> None:
    part: dict[str, object] = {"kind": "lowrank_shared"}
    memory = {"memory": True}
    assert [r.code for r in judge(plan([part], clients={"memory": False})).refusals] == ["AB-401"]
    assert judge(plan([part], clients=memory)).accepted
    assert judge(plan([{**part, "feedback": False}])).accepted
    late = plan([part], clients=memory, rounds={"count": 3, "late_window": 1, "deadline": 9.0})
    assert [r.code for r in judge(late).refusals] == ["AB-467"]
    masked = plan(
        [part],
        clients=memory,
        aggregation={"weighting": {"kind": "uniform"}},
        secure_aggregation={"bits": 16, "bound": 1.0},
    )
    assert judge(masked).accepted


def test_behind_masks_it_gives_the_model_of_the_clear_run(tmp_path: Path) -> None:
    """Digits in the clear and masked: equal up to the modulus, in a fraction of the bytes."""
    common: dict[str, object] = {
        "model": {"name": "mlp", "parameters": {"hidden": [32]}},
        "clients": {"memory": True},
        "aggregation": {"weighting": {"kind": "uniform"}},
    }
    stages: list[dict[str, object]] = [{"kind": "lowrank_shared", "rank": 8}]
    clear = finished(tmp_path / "clear", plan(stages, **common))
    masks = {"bits": 32, "bound": 4.0, "dropout_share": 0.0}
    runs = {
        name: ab.run_plan(
            plan(of, secure_aggregation=masks, **common),
            federation=federation(),
            store=tmp_path / name,
        )
        for name, of in (("masked", stages), ("dense", []))
    }
    np.testing.assert_allclose(runs["masked"].vector, clear.vector, atol=1e-4)
    sizes = {name: bytes_up(tmp_path / name, run) for name, run in runs.items()}
    assert sizes["dense"] > 15 * sizes["masked"]
