"""A public mask as a linear stage: sums of few coordinates stand for the whole, masked or not."""

from __future__ import annotations

import math
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from test_codec_runs import bytes_up, codes, federation, finished, plan

import anabranch as ab
from anabranch.aggregation.fold import Accumulator, FoldPlan
from anabranch.data.split import hold_out
from anabranch.errors import AnabranchError
from anabranch.plan.algebra import judge
from anabranch.plan.budget import least_bytes
from anabranch.privacy.secure_aggregation.section_codec import SectionCodec
from anabranch.randomness import generator
from anabranch.testing import StageSuite
from anabranch.updates import (
    EncodeContext,
    Pipeline,
    RandomMask,
    Section,
    Sections,
    Stage,
    Subsample,
    Update,
    Vector,
    compile_stages,
)

SECTIONS = Sections((Section.vector("delta", 800), Section.count("examples")))


class TestSubsample(StageSuite):
    def stage(self) -> Stage:
        return Subsample(fraction=0.25, length=self.dim)


class TestSubsampleWithAStep(StageSuite):
    rounding: ClassVar[float] = 2.0**-6

    def stage(self) -> Stage:
        return Subsample(fraction=0.5, length=self.dim, step=2.0**-6)


def updates(count: int) -> list[Vector]:
    rng = generator(0, "subsample")
    return [(rng.normal(size=800) * 0.02).astype(np.float32) for _ in range(count)]


def folded(pipeline: Pipeline, deltas: list[Vector], rounds: list[int]) -> Accumulator:
    fold = Accumulator(FoldPlan(pipeline.encoded(SECTIONS), capacity=len(deltas)))
    for number, (delta, round_) in enumerate(zip(deltas, rounds, strict=True)):
        context = EncodeContext(str(number), round_, generator(0, "encode", number))
        update, _ = pipeline.encode(Update({"delta": delta}, {"examples": 3.0}), {}, context)
        fold.add(pipeline.decode_one(update), str(number))
    return fold


def test_the_sum_of_the_mask_is_the_sum_times_its_part() -> None:
    pipeline, deltas = compile_stages([Subsample(fraction=0.25, length=800)]), updates(5)
    assert pipeline.encoded(SECTIONS)["delta"].length == 200
    total = pipeline.decode_sum(folded(pipeline, deltas, [7] * 5).total())
    assert total.sections == SECTIONS
    assert total.contributors == 5
    assert total.scalar("examples") == 15
    places = RandomMask(fraction=0.25).places(800, 7)
    expected = np.zeros(800)
    expected[places] = 4 * np.sum([delta[places].astype(float) for delta in deltas], axis=0)
    np.testing.assert_allclose(total.sums["delta"], expected, atol=1e-6)


def test_masks_of_several_rounds_are_not_added_up() -> None:
    pipeline = compile_stages([Subsample(fraction=0.25, length=800)])
    with pytest.raises(AnabranchError, match="AB-527"):
        pipeline.decode_sum(folded(pipeline, updates(2), [7, 8]).total())


def test_a_step_is_kept_to_and_right_on_average() -> None:
    stage, (delta,) = Subsample(fraction=1.0, step=2.0**-5, length=800), updates(1)
    pipeline = compile_stages([stage])
    draws = []
    for number in range(300):
        context = EncodeContext("a", 1, generator(0, "step", number))
        sent, _ = pipeline.encode(Update({"delta": delta}, {}), {}, context)
        whole = sent.vectors["delta"] * 32
        np.testing.assert_array_equal(whole, np.rint(whole))
        draws.append(sent.vectors["delta"].astype(float))
    off = np.abs(np.mean(draws, axis=0) - delta)
    assert off.max() <= 5 * 2.0**-5 / 2 / math.sqrt(300)
    with pytest.raises(ValueError, match="power of two"):
        Subsample(step=0.3)


def test_a_codec_behind_it_sees_few_coordinates() -> None:
    pipeline = compile_stages([Subsample(fraction=0.25, length=800), ab.updates.Zstd()])
    total = pipeline.decode_sum(folded(pipeline, updates(3), [4] * 3).total())
    plain = compile_stages([Subsample(fraction=0.25, length=800)])
    expected = plain.decode_sum(folded(plain, updates(3), [4] * 3).total())
    np.testing.assert_array_equal(total.sums["delta"], expected.sums["delta"])


def test_a_run_sends_and_folds_a_part(tmp_path: Path) -> None:
    dense = finished(tmp_path / "dense", plan([]))
    stages: list[dict[str, object]] = [{"kind": "subsample", "fraction": 0.5}]
    run = finished(tmp_path / "part", plan(stages))
    sent, whole = bytes_up(tmp_path / "part", run), bytes_up(tmp_path / "dense", dense)
    numbers = 3 * 4  # three rounds, four clients
    assert whole - sent == numbers * (4 * (401 - 201) - 8)  # eight bytes name the round
    assert run.metrics["accuracy"] == pytest.approx(dense.metrics["accuracy"], abs=0.15)


def test_under_secure_aggregation_the_part_is_what_is_masked(tmp_path: Path) -> None:
    """The model of the masked run is that of the clear one up to the modulus; bytes are few."""
    stages: list[dict[str, object]] = [{"kind": "subsample", "fraction": 0.1}]
    common: dict[str, object] = {"aggregation": {"weighting": {"kind": "uniform"}}}
    clear = finished(tmp_path / "clear", plan(stages, **common))
    masked = {
        fraction: ab.run_plan(
            plan(
                [{"kind": "subsample", "fraction": fraction}],
                secure_aggregation={"bits": 32, "bound": 1.0, "dropout_share": 0.0},
                **common,
            ),
            federation=federation(),
            store=tmp_path / f"masked-{fraction}",
        )
        for fraction in (0.1, 1.0)
    }
    np.testing.assert_allclose(masked[0.1].vector, clear.vector, atol=1e-5)
    sizes = [bytes_up(tmp_path / f"masked-{f}", run) for f, run in masked.items()]
    saved = 3 * 4 * 4 * (401 - 41)  # rounds, clients, bytes of a lane, coordinates left out
    assert sizes[1] - sizes[0] == pytest.approx(saved, abs=200)


def wide(features: int) -> ab.Federation:
    """Two classes at each of four clients, told apart by every feature a little."""
    rng = np.random.default_rng(3)
    direction = rng.normal(size=features).astype(np.float32)
    clients = {}
    for name in "abcd":
        y = np.arange(16) % 2
        x = rng.standard_normal((16, features), np.float32)
        clients[name] = (x + np.outer(2 * y - 1, direction).astype(np.float32) * 0.02, y)
    return hold_out(ab.Federation.from_arrays(clients), 0.2, 0)


def test_a_masked_run_in_a_small_modulus_sends_a_twenty_third_and_learns(tmp_path: Path) -> None:
    """The whole protocol in a simulation: keys, shares, masks; bytes of all that clients send."""
    features, federation_ = 120_000, wide(120_000)
    common: dict[str, object] = {
        "aggregation": {"weighting": {"kind": "uniform"}},
        "local": {"learning_rate": 0.01, "epochs": 2},
        "rounds": {"count": 2},
    }
    lattice = plan(
        [{"kind": "lattice", "fraction": 0.1, "bits": 12, "clients": 4, "limit": 0.05}],
        secure_aggregation={"bits": 32, "bound": 1.0, "dropout_share": 0.0},
        **common,
    )
    (refusal,) = judge(lattice).refusals
    (instead,) = [a for a in refusal.alternatives if "integers behind masks" in a.words]
    masked = ab.plan.changed(lattice, instead.changes)
    assert judge(masked).accepted
    run = ab.run_plan(masked, federation=federation_, store=tmp_path / "masked")
    assert run.status == "complete"
    dense = 4 * (features + 1) * 4 * 2  # float32, four clients, two rounds
    assert dense / bytes_up(tmp_path / "masked", run) > 23
    clear = ab.run_plan(
        ab.plan.changed(lattice, {"secure_aggregation": None}),
        federation=federation_,
        store=tmp_path / "clear",
    )
    # Their steps differ, and both are rounded by themselves; the coordinates are the same.
    away = np.linalg.norm(run.vector - clear.vector) / np.linalg.norm(clear.vector)
    assert away < 0.2


def test_masked_updates_are_more_than_twenty_three_times_smaller() -> None:
    """Lanes of the protocol for a million coordinates, a tenth of them, twelve bits each."""
    stage = Subsample(fraction=0.1, length=1_000_000)
    sections = stage.encoded(Sections((Section.vector("delta", 1_000_000),)))
    lanes = SectionCodec(sections, clients=10, bits=12, bound=0.1).length
    assert 32 * 1_000_000 / (12 * lanes) > 26


def test_what_is_wasted_under_rotation_is_said() -> None:
    noted = [note.text for note in judge(plan([{"kind": "eden"}])).notes]
    assert any("rotates" in text for text in noted)
    assert not any("rotates" in note.text for note in judge(plan([{"kind": "ecq"}])).notes)


def test_what_the_algebra_says() -> None:
    part: dict[str, object] = {"kind": "subsample"}
    assert codes(plan([part])) == []
    assert codes(plan([part, {"kind": "ecq"}])) == []
    assert codes(plan([{"kind": "clip", "max_norm": 1.0}, part])) == []
    late = plan([part], rounds={"count": 3, "late_window": 1, "deadline": 9.0})
    assert codes(late) == ["AB-467"]
    kept = plan([part, {"kind": "topk"}], clients={"memory": True})
    assert codes(kept) == ["AB-468"]
    for refused in (late, kept):
        (refusal,) = judge(refused).refusals
        for alternative in refusal.alternatives:
            assert judge(ab.plan.changed(refused, alternative.changes)).accepted
    masked = plan(
        [{"kind": "ecq"}],
        aggregation={"weighting": {"kind": "uniform"}},
        secure_aggregation={"bits": 12, "bound": 0.1},
    )
    (refusal,) = judge(masked).refusals
    assert refusal.code == "AB-972"
    (instead,) = [a for a in refusal.alternatives if "random tenth" in a.words]
    assert judge(ab.plan.changed(masked, instead.changes)).accepted
    assert least_bytes(plan([{**part, "fraction": 0.5}]), 1000) == 4 * 500 + 8
