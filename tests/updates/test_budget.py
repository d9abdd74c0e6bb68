"""``updates.max_bytes``: coarser steps until an update fits, and refusal when nothing fits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_codec_runs import bytes_up, finished, plan
from test_codecs import heavy, unpacked

import anabranch as ab
from anabranch.coordinator.store import Store
from anabranch.plan import Plan
from anabranch.plan.budget import check_budget, least_bytes
from anabranch.randomness import generator
from anabranch.updates import (
    CODECS,
    ECQ,
    QSGD,
    STC,
    Codec,
    EncodeContext,
    LowRank,
    Packed,
    TopK,
    Update,
)
from anabranch.updates.budget import bytes_of


def within(codec: Codec, max_bytes: int | None) -> Packed:
    context = EncodeContext("a", 1, generator(0, "budget"), max_bytes)
    memory = {"rest": np.zeros(20_000, np.float32)} if codec.remembers else {}
    return codec.encode(Update({"delta": heavy(20_000)}, {}), memory, context)[0].packed["delta"]


def test_coarser_steps_until_it_fits() -> None:
    codec = ECQ(coarseness=1, coarsest=200)
    free = len(within(codec, None).content)
    assert free == len(within(ECQ(coarseness=1), None).content)
    for most in (free - 1, free // 3, free // 10):
        content = within(codec, most)
        assert most / 2 < len(content.content) <= most
        assert len(unpacked(codec, content)) == 20_000  # read by the stage of the plan


def test_the_contract_covers_the_coarsest_step() -> None:
    assert ECQ(coarseness=2, coarsest=30).contract().inflation == 31
    with pytest.raises(ValueError, match="at least coarseness"):
        ECQ(coarseness=6, coarsest=3)


LADDERS: list[Codec] = [
    ECQ(coarseness=1, coarsest=200),
    QSGD(bits=8, coarsest=2),
    TopK(fraction=0.2, coarsest=0.001, feedback=False),
    STC(fraction=0.2, coarsest=0.001),
    LowRank(rank=60, coarsest=1),
]


def fixed(codec: Codec) -> Codec:
    """The same without coarser ways."""
    return codec.replace(coarsest=None)


@pytest.mark.parametrize("codec", LADDERS, ids=lambda c: c.name)
def test_every_way_of_a_ladder_is_smaller_and_read_by_the_codec_of_the_plan(codec: Codec) -> None:
    ways = list(codec.ladder())
    frames = [within(way, None) for way in ways]
    sizes = [len(frame.content) for frame in frames]
    assert len(ways) >= 6
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < sizes[0] / 2
    for way, frame in zip(ways, frames, strict=True):
        np.testing.assert_array_equal(unpacked(codec, frame), unpacked(way, frame))
    noted = [codec.coarseness_of(frame) for frame in frames]
    assert len(set(noted)) == len(noted)
    assert min(sizes) >= codec.least_bytes(20_000)


@pytest.mark.parametrize("codec", LADDERS, ids=lambda c: c.name)
def test_the_first_way_that_fits_is_sent(codec: Codec) -> None:
    free = within(codec, None)
    assert free.content == within(fixed(codec), None).content
    last = len(within(list(codec.ladder())[-1], None).content)
    for most in (len(free.content) - 1, (len(free.content) + 2 * last) // 3):
        frame = within(codec, most)
        assert len(frame.content) <= most
        assert codec.coarseness_of(frame) != codec.coarseness_of(free)
    with pytest.raises(ab.AnabranchError, match=r"AB-524.*coarsest"):
        within(codec, codec.least_bytes(20_000) - 1)


@pytest.mark.parametrize("codec", LADDERS[1:], ids=lambda c: c.name)
def test_a_codec_without_coarser_ways_refuses_their_frames(codec: Codec) -> None:
    small = within(list(codec.ladder())[-1], None)
    with pytest.raises(ab.AnabranchError, match=r"AB-523.*than the plan says"):
        unpacked(fixed(codec), small)


def test_promises_hold_for_the_coarsest_way() -> None:
    assert QSGD(bits=6, coarsest=2).contract() == QSGD(bits=2).contract()
    many, few = LowRank(rank=60, coarsest=2), LowRank(rank=2)
    assert many.least_bytes(20_000) == few.least_bytes(20_000)


@pytest.mark.parametrize(
    ("codec", "fields"),
    [
        (QSGD, {"bits": 4, "coarsest": 5}),
        (TopK, {"fraction": 0.1, "coarsest": 0.2}),
        (STC, {"fraction": 0.1, "coarsest": 0.2}),
        (LowRank, {"rank": 8, "coarsest": 9}),
    ],
)
def test_the_coarsest_way_is_not_finer(codec: type[Codec], fields: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="coarsest must be at most"):
        codec.model_validate(fields)


def test_error_feedback_keeps_what_a_coarser_way_left_out() -> None:
    codec = TopK(fraction=0.2, coarsest=0.001)
    context = EncodeContext("a", 1, generator(0, "budget"), 2_000)
    delta = heavy(20_000)
    memory = {"rest": np.zeros(20_000, np.float32)}
    sent, kept = codec.encode(Update({"delta": delta}, {}), memory, context)
    np.testing.assert_array_equal(unpacked(codec, sent.packed["delta"]) + kept["rest"], delta)


def test_what_does_not_fit_is_not_sent() -> None:
    with pytest.raises(ab.AnabranchError, match="AB-524"):
        within(ECQ(coarseness=1, coarsest=2), 300)


@pytest.mark.parametrize("codec", [c() for c in CODECS.values()], ids=lambda c: c.name)
def test_no_frame_is_smaller_than_it_says(codec: Codec) -> None:
    assert len(within(codec, None).content) >= codec.least_bytes(20_000)


def budget(max_bytes: int, stages: list[dict[str, object]], **changes: object) -> Plan:
    return plan([], updates={"stages": stages, "max_bytes": max_bytes}, **changes)


def test_budgets_that_nothing_meets_are_refused() -> None:
    assert least_bytes(budget(1, []), 1000) == 4000
    check_budget(budget(4000, []), 1000)
    for stages in ([], [{"kind": "topk", "fraction": 0.5}], [{"kind": "eden", "bits": 4}]):
        with pytest.raises(ab.AnabranchError, match=r"AB-465.*coarsest = 64"):
            check_budget(budget(500, stages), 1000)
    check_budget(budget(500, [{"kind": "ecq"}]), 1000)
    with pytest.raises(ab.AnabranchError, match="one vector"):
        check_budget(budget(500, [{"kind": "ecq"}], algorithm={"name": "scaffold"}), 1000)


def test_a_run_keeps_to_its_budget(tmp_path: Path) -> None:
    limits = {"max_update_bytes": 800}
    of = budget(800, [{"kind": "ecq", "coarseness": 0.5, "coarsest": 64.0}], limits=limits)
    run = finished(tmp_path, of)
    assert run.status == "complete"
    assert 0 < bytes_up(tmp_path, run) <= 800 * 4 * run.rounds
    assert all(check.met for check in run.limits)


def test_a_run_that_cannot_is_told_by_client(tmp_path: Path) -> None:
    of = budget(200, [{"kind": "ecq", "coarseness": 0.5}], rounds={"count": 1, "max_failures": 0})
    run = finished(tmp_path, of)
    assert run.status == "failed"
    with Store.open(tmp_path) as store:
        assert sum(r.bytes_up for r in store.rounds(run.id)) == 0
    with pytest.raises(ab.AnabranchError, match="AB-465"):
        finished(tmp_path, budget(200, []))


def test_a_client_may_have_a_budget_of_its_own(tmp_path: Path) -> None:
    """Client "a" sends less than the others, which send less than without a budget."""
    stages: list[dict[str, object]] = [{"kind": "ecq", "coarseness": 0.5, "coarsest": 64.0}]
    own = [{"clients": "a*", "max_bytes": "0.6kB"}, {"clients": "b", "max_bytes": 10**6}]
    of = plan([], updates={"stages": stages, "max_bytes": 680, "budgets": own})
    run = finished(tmp_path, of)
    with Store.open(tmp_path) as store:
        last = list(store.rounds(run.id))[-1].client_columns
    sizes = dict(zip(last["client"], last["bytes_up"], strict=True))
    assert sizes["a"] < sizes["c"] < sizes["b"]
    assert sizes["a"] <= 600
    assert of.updates.budgets[0].max_bytes == 600


@pytest.mark.parametrize("written", ["10 apples", "MB", "-3kB", 0, 1.5])
def test_budgets_that_are_no_bytes_are_refused(written: object) -> None:
    with pytest.raises(ValueError, match="max_bytes"):
        plan([], updates={"max_bytes": written})


def test_bytes_have_units() -> None:
    read = [bytes_of(text) for text in ("10MB", "64 KiB", "1.5kb", "7", "2GiB", "12b")]
    assert read == [10_000_000, 65_536, 1_500, 7, 2**31, 12]


def test_the_smallest_budget_is_checked() -> None:
    updates = {"stages": [], "max_bytes": 10**6, "budgets": [{"clients": "p*", "max_bytes": 99}]}
    with pytest.raises(ab.AnabranchError, match=r"AB-465.*clients 'p\*' is 99"):
        check_budget(plan([], updates=updates), 1000)


def test_a_limit_that_every_update_would_miss_is_refused() -> None:
    of = plan([], limits={"max_update_bytes": 3999})
    with pytest.raises(ab.AnabranchError, match=r"AB-469.*at least 4000"):
        check_budget(of, 1000)
    check_budget(plan([], limits={"max_update_bytes": 4000}), 1000)
    check_budget(plan([{"kind": "ecq"}], limits={"max_update_bytes": 400}), 1000)
    with pytest.raises(ValueError, match=r"lower updates\.max_bytes"):
        budget(500, [{"kind": "ecq"}], limits={"max_update_bytes": 400})
