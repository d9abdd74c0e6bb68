"""Stages pass the public suite, and the compiler fits them around the fold in the right order."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
import pytest
from pydantic import Field

from anabranch.aggregation import Accumulator, FoldPlan
from anabranch.errors import AnabranchError
from anabranch.testing import StageSuite
from anabranch.updates import (
    Clip,
    EncodeContext,
    Finest,
    Section,
    Sections,
    Stage,
    StageContract,
    Total,
    Update,
    Vector,
    compile_stages,
)

Encoded = tuple[Update, Mapping[str, Vector]]


def with_delta(update: Update, delta: Vector) -> Update:
    return Update({**update.vectors, "delta": delta.astype(np.float32)}, update.scalars)


class Lattice(Stage):
    """Stochastic rounding to multiples of a public power of two; undone on the sum."""

    name: ClassVar[str] = "lattice"
    kind: Literal["lattice"] = "lattice"
    exponent: int = Field(default=-10)

    def contract(self) -> StageContract:
        # A coordinate near zero may become one whole step.
        return StageContract(linear=True, unbiased=True, integer=True)

    def encode(
        self, update: Update, memory: Mapping[str, Vector], context: EncodeContext
    ) -> Encoded:
        scaled = update.vectors["delta"].astype(np.float64) * 2.0**-self.exponent
        coins = context.generator.random(len(scaled))
        return with_delta(update, np.floor(scaled + coins)), {}

    def decode_sum(self, total: Total) -> Total:
        sums = {**total.sums, "delta": total.sums["delta"] * 2.0**self.exponent}
        return Total(total.sections, sums, total.contributors)


class Scale(Stage):
    """A public factor; exactly linear; undone on the sum."""

    name: ClassVar[str] = "scale"
    kind: Literal["scale"] = "scale"
    exponent: int = Field(default=3)

    def contract(self) -> StageContract:
        return StageContract(linear=True, unbiased=True)

    def encode(
        self, update: Update, memory: Mapping[str, Vector], context: EncodeContext
    ) -> Encoded:
        return with_delta(update, update.vectors["delta"] * np.float32(2.0**self.exponent)), {}

    def decode_sum(self, total: Total) -> Total:
        sums = {**total.sums, "delta": total.sums["delta"] * 2.0**-self.exponent}
        return Total(total.sections, sums, total.contributors)


class Roots(Stage):
    """Signed square roots: not linear, so undone for each update."""

    name: ClassVar[str] = "roots"
    kind: Literal["roots"] = "roots"

    def contract(self) -> StageContract:
        return StageContract(linear=False, unbiased=True, finest=Finest.INDIVIDUALS)

    def encode(
        self, update: Update, memory: Mapping[str, Vector], context: EncodeContext
    ) -> Encoded:
        delta = update.vectors["delta"].astype(np.float64)
        return with_delta(update, np.sign(delta) * np.sqrt(np.abs(delta))), {}

    def decode_one(self, update: Update) -> Update:
        delta = update.vectors["delta"].astype(np.float64)
        return with_delta(update, np.sign(delta) * delta * delta)


class Remember(Stage):
    """One-bit signs with error feedback: keeps what it did not send."""

    name: ClassVar[str] = "remember"
    kind: Literal["remember"] = "remember"

    def contract(self) -> StageContract:
        return StageContract(linear=False, unbiased=False)

    def memory(self, sections: Sections) -> tuple[Section, ...]:
        return (Section.vector("rest", sections["delta"].length),)

    def encode(
        self, update: Update, memory: Mapping[str, Vector], context: EncodeContext
    ) -> Encoded:
        wanted = update.vectors["delta"].astype(np.float32) + memory["rest"]
        with np.errstate(invalid="ignore"):  # infinities become NaN; the fold refuses both
            sent = np.float32(np.abs(wanted).mean()) * np.sign(wanted)
            return with_delta(update, sent), {"rest": wanted - sent}


class TestClip(StageSuite):
    def stage(self) -> Stage:
        return Clip(max_norm=0.5)


class TestScale(StageSuite):
    recovery: ClassVar[float | None] = 2.0**-24

    def stage(self) -> Stage:
        return Scale()


class TestLattice(StageSuite):
    rounding: ClassVar[float] = 1.0
    recovery: ClassVar[float | None] = 2.0**-10

    def stage(self) -> Stage:
        return Lattice()


class TestRoots(StageSuite):
    recovery: ClassVar[float | None] = 1e-6

    def stage(self) -> Stage:
        return Roots()


class TestRemember(StageSuite):
    def stage(self) -> Stage:
        return Remember()


class Claims(Scale):
    """Scale with a contract of the test's choosing."""

    claimed_linear: bool = False

    def contract(self) -> StageContract:
        return StageContract(linear=self.claimed_linear, unbiased=True)


STAGES: tuple[Stage, ...] = (Clip(max_norm=1e3), Scale(), Lattice(), Roots())


@pytest.mark.parametrize(
    "stages", list(itertools.permutations(STAGES)), ids=lambda s: "-".join(x.name for x in s)
)
def test_every_order_is_undone_or_refused(stages: tuple[Stage, ...]) -> None:
    """Accepted orders give the sum of the updates back; the others clip what is encoded, or put
    roots, which is undone for each update, before what is undone on the sum."""
    names = [stage.name for stage in stages]
    if names[0] != "clip" or names[-1] != "roots":
        with pytest.raises(AnabranchError) as raised:
            compile_stages(stages)
        early = names.index("roots") < max(names.index("scale"), names.index("lattice"))
        true = ["AB-411"] * early + ["AB-425"] * (names[0] != "clip")
        assert raised.value.code in true
        return
    sections, pipeline = Sections((Section.vector("delta", 6),)), compile_stages(stages)
    accumulator, wanted = Accumulator(FoldPlan(sections, capacity=3)), np.zeros(6)
    for number in range(3):
        rng = np.random.default_rng(number)
        delta = rng.normal(size=6).astype(np.float32)
        context = EncodeContext(f"client {number}", 1, rng)
        encoded, kept = pipeline.encode(Update({"delta": delta}, {}), {}, context)
        assert not kept
        accumulator.add(pipeline.decode_one(encoded), "a")
        wanted += delta
    got = pipeline.decode_sum(accumulator.total()).sums["delta"]
    assert np.allclose(got, wanted, atol=3.1 * 2.0**-10)
    assert pipeline.finest is Finest.INDIVIDUALS


class Flip(Stage):
    """Turns the vector round; undone on the sum. Does not commute with `Ramp`."""

    name: ClassVar[str] = "flip"

    def contract(self) -> StageContract:
        return StageContract(linear=True, unbiased=True)

    def encode(
        self, update: Update, memory: Mapping[str, Vector], context: EncodeContext
    ) -> Encoded:
        return with_delta(update, update.vectors["delta"][::-1]), {}

    def decode_sum(self, total: Total) -> Total:
        sums = {**total.sums, "delta": total.sums["delta"][::-1]}
        return Total(total.sections, sums, total.contributors)


class Ramp(Flip):
    """Multiplies coordinate i by 2 ** i."""

    name: ClassVar[str] = "ramp"

    def encode(
        self, update: Update, memory: Mapping[str, Vector], context: EncodeContext
    ) -> Encoded:
        delta = update.vectors["delta"]
        return with_delta(update, delta * 2.0 ** np.arange(len(delta))), {}

    def decode_sum(self, total: Total) -> Total:
        delta = total.sums["delta"]
        sums = {**total.sums, "delta": delta / 2.0 ** np.arange(len(delta))}
        return Total(total.sections, sums, total.contributors)


class Move(Roots):
    """Adds one; undone for each update. Does not commute with `Roots`."""

    name: ClassVar[str] = "move"

    def encode(
        self, update: Update, memory: Mapping[str, Vector], context: EncodeContext
    ) -> Encoded:
        return with_delta(update, update.vectors["delta"] + 1), {}

    def decode_one(self, update: Update) -> Update:
        return with_delta(update, update.vectors["delta"] - 1)


@pytest.mark.parametrize(
    ("stages", "sent"),
    [
        ([Flip(), Ramp()], [16.0, 8.0, 16.0]),
        ([Ramp(), Flip()], [64.0, 8.0, 4.0]),
        ([Ramp(), Flip(), Scale(exponent=1)], [128.0, 16.0, 8.0]),
        ([Move(), Roots()], [5.0**0.5, 5.0**0.5, 17.0**0.5]),
        ([Roots(), Move()], [3.0, 3.0, 5.0]),
    ],
    ids=lambda value: "-".join(getattr(item, "name", "") for item in value),
)
def test_stages_are_undone_last_first(stages: list[Stage], sent: list[float]) -> None:
    """Pairs that do not commute: what is sent shows the order of encoding."""
    pipeline, sections = compile_stages(stages), Sections((Section.vector("delta", 3),))
    delta = np.float32([4, 4, 16])
    context = EncodeContext("a", 1, np.random.default_rng(0))
    encoded, _ = pipeline.encode(Update({"delta": delta}, {}), {}, context)
    assert np.allclose(encoded.vectors["delta"], sent)
    accumulator = Accumulator(FoldPlan(sections, capacity=1))
    accumulator.add(pipeline.decode_one(encoded), "a")
    assert np.allclose(pipeline.decode_sum(accumulator.total()).sums["delta"], delta, atol=1e-5)


def test_a_stage_twice_is_refused() -> None:
    with pytest.raises(AnabranchError, match="AB-410"):
        compile_stages([Clip(max_norm=1), Scale(), Clip(max_norm=2)])


def test_a_sum_that_cannot_be_undone_is_refused() -> None:
    with pytest.raises(AnabranchError, match="AB-424"):
        compile_stages([Claims()])
    assert compile_stages([Claims(claimed_linear=True)]).stages


def test_no_stages_do_nothing() -> None:
    pipeline = compile_stages([])
    update = Update({"delta": np.float32([1, 2])}, {})
    context = EncodeContext("a", 1, np.random.default_rng(0))
    assert pipeline.encode(update, {}, context) == (update, {})
    assert pipeline.decode_one(update) is update
    assert pipeline.finest is Finest.TOTAL


def test_memory_is_kept_under_the_name_of_its_stage() -> None:
    """What was not sent in round 1 is sent on in round 2: 3 - 2 and 1 - 2 are carried over."""
    sections = Sections((Section.vector("delta", 2),))
    pipeline = compile_stages([Remember(), Scale(exponent=0)])
    assert [s.name for s in pipeline.memory(sections)] == ["remember.rest"]
    context = EncodeContext("a", 1, np.random.default_rng(0))
    memory: dict[str, Vector] = {"remember.rest": np.zeros(2, np.float32)}
    sent, memory = pipeline.encode(Update({"delta": np.float32([3, 1])}, {}), memory, context)
    assert sent.vectors["delta"].tolist() == [2, 2]
    assert memory["remember.rest"].tolist() == [1, -1]
    sent, memory = pipeline.encode(Update({"delta": np.float32([3, 1])}, {}), memory, context)
    assert sent.vectors["delta"].tolist() == [2, 0]
    assert memory["remember.rest"].tolist() == [2, 0]
