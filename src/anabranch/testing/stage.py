"""What every stage must do: each promise of its `StageContract` is put to the test."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import pytest

from anabranch.aggregation.fold import Accumulator, FoldPlan
from anabranch.errors import AnabranchError
from anabranch.randomness import generator
from anabranch.updates.norm import squared_norm
from anabranch.updates.sections import Section, Sections, Update, Vector
from anabranch.updates.stages import (
    DecodesOne,
    DecodesSum,
    EncodeContext,
    Stage,
    StageContract,
    compile_stages,
)
from anabranch.updates.total import Finest, Total
from anabranch.updates.wire import pack, unpack

__all__ = ["StageSuite"]


class StageSuite:
    """Subclass it, return your stage from `stage`, and run pytest.

    Attributes:
        dim: length of the deltas that are tried.
        rounding: largest error of one coordinate of one encoded update, in encoded units, for
            stages that are linear up to rounding (a lattice); 0 for exactly linear ones.
        recovery: largest error of a coordinate after decoding, or None when the stage does not
            promise to give each update back (clipping, sparsification).
        trials: encodings that the test of unbiasedness averages.
    """

    dim: ClassVar[int] = 24
    rounding: ClassVar[float] = 0.0
    recovery: ClassVar[float | None] = None
    trials: ClassVar[int] = 400

    def stage(self) -> Stage:
        """The stage under test."""
        raise NotImplementedError

    def contract(self) -> StageContract:
        """Its promises."""
        return self.stage().contract()

    def deltas(self, count: int) -> list[Vector]:
        """Deltas to try; override it when the stage is made for others."""
        rng = generator(0, "stage suite")
        return [rng.normal(size=self.dim).astype(np.float32) for _ in range(count)]

    def sections(self) -> Sections:
        """The type of the updates: one delta, of weight one."""
        return Sections((Section.vector("delta", self.dim),))

    def encoded_sections(self) -> Sections:
        """The type of what leaves the stage."""
        return self.stage().encoded(self.sections())

    def memory(self) -> dict[str, Vector]:
        """The stage's memory before the first round, as a pipeline names it."""
        declared = compile_stages([self.stage()]).memory(self.sections())
        return {section.name: np.zeros(section.length, np.float32) for section in declared}

    def encoded(self, delta: Vector, draw: int = 0) -> Update:
        """The client half on one delta."""
        return self._encode(delta, self.memory(), draw)[0]

    def decoded(self, *encoded: Update) -> Total:
        """The server halves and the fold between them."""
        pipeline = compile_stages([self.stage()])
        accumulator = Accumulator(FoldPlan(self.encoded_sections(), capacity=max(len(encoded), 1)))
        for number, update in enumerate(encoded):
            accumulator.add(pipeline.decode_one(update), f"client {number}")
        return pipeline.decode_sum(accumulator.total())

    def numbers(self, encoded: Update) -> Vector:
        """The numbers of an encoded update; those of packed bytes are what they decode to."""
        pipeline = compile_stages([self.stage()])
        update = pipeline.decode_one(encoded) if encoded.packed else encoded
        return update.vectors["delta"].astype(np.float32, copy=False)

    def delivered(self, encoded: Update) -> Update:
        """The update as it arrives: through the bytes of the wire."""
        return unpack(pack(encoded, self.encoded_sections()), self.encoded_sections(), "a")

    def _encode(
        self, delta: Vector, memory: Mapping[str, Vector], draw: int
    ) -> tuple[Update, Mapping[str, Vector]]:
        # Every draw is a round of its own: what is public and shared is drawn anew for each.
        context = EncodeContext("a", 1 + draw, generator(0, "encode", draw, "a"))
        return compile_stages([self.stage()]).encode(Update({"delta": delta}, {}), memory, context)

    def test_is_a_value(self) -> None:
        stage = self.stage()
        assert stage.name
        assert type(stage).model_validate(stage.model_dump()) == stage

    def test_halves_agree_with_the_contract(self) -> None:
        """A half on the sum needs linearity; one for each update sees individuals; bytes are
        turned back before the fold."""
        stage, contract = self.stage(), self.contract()
        if isinstance(stage, DecodesSum):
            assert contract.linear
        if isinstance(stage, DecodesOne):
            assert contract.finest is Finest.INDIVIDUALS
        if contract.packs:
            assert isinstance(stage, DecodesOne)
        (delta,) = self.deltas(1)
        assert bool(self.encoded(delta).packed) == contract.packs

    def test_encoding_is_pure(self) -> None:
        """It writes to nothing that it is given, and equal draws give equal bits."""
        (delta,) = self.deltas(1)
        delta.flags.writeable = False
        memory = self.memory()
        for vector in memory.values():
            vector.flags.writeable = False
        first, kept = self._encode(delta, memory, 0)
        second, kept_again = self._encode(delta, memory, 0)
        assert first.packed == second.packed
        assert self.numbers(first).tobytes() == self.numbers(second).tobytes()
        assert all(kept[name].tobytes() == kept_again[name].tobytes() for name in kept)

    def test_encoded_updates_have_the_sections(self) -> None:
        for delta in self.deltas(3):
            encoded = self.encoded(delta)
            delivered = self.delivered(encoded)
            assert delivered.packed == encoded.packed
            decoded = compile_stages([self.stage()]).decode_one(delivered)
            decoded.check(self.encoded_sections(), "a")
            assert self.numbers(delivered).tobytes() == self.numbers(encoded).tobytes()

    def test_memory_is_that_declared(self) -> None:
        wanted = {name: (v.shape, v.dtype) for name, v in self.memory().items()}
        memory: Mapping[str, Vector] = self.memory()
        for draw, delta in enumerate(self.deltas(3)):
            memory = self._encode(delta, memory, draw)[1]
            assert {name: (v.shape, v.dtype) for name, v in memory.items()} == wanted

    def test_linear_stages_are_linear(self) -> None:
        """encode(x + y) = encode(x) + encode(y), and so does the half on the sum."""
        if not self.contract().linear:
            pytest.skip("the contract does not promise it")
        x, y = self.deltas(2)
        one, two, both = (self.encoded(delta) for delta in (x, y, x + y))
        left = self.numbers(both).astype(np.float64)
        right = self.numbers(one).astype(np.float64) + self.numbers(two)
        allowed = 3 * self.rounding + 1e-6 * float(np.abs(right).max())
        assert float(np.abs(left - right).max()) <= allowed
        apart = self.decoded(one).plus(self.decoded(two)).sums["delta"]
        together = self.decoded(one, two).sums["delta"]
        assert np.allclose(together, apart, rtol=1e-6, atol=1e-6)

    def test_unbiased_stages_are_unbiased(self) -> None:
        """The mean over many draws is within five standard errors at every coordinate."""
        if not self.contract().unbiased:
            pytest.skip("the contract does not promise it")
        (delta,) = self.deltas(1)
        draws = np.stack(
            [self.decoded(self.encoded(delta, n)).sums["delta"] for n in range(self.trials)]
        )
        error = np.abs(draws.mean(axis=0) - delta)
        standard_error = draws.std(axis=0) / math.sqrt(self.trials)
        assert (error <= 5 * standard_error + 1e-6 * np.abs(delta).max()).all()

    def test_decoding_gives_the_update_back(self) -> None:
        if self.recovery is None:
            pytest.skip("the stage does not promise it")
        for draw, delta in enumerate(self.deltas(3)):
            back = self.decoded(self.encoded(delta, draw)).sums["delta"]
            assert float(np.abs(back - delta).max()) <= self.recovery

    @pytest.mark.parametrize("scale", [1e-6, 1.0, 1e3])
    def test_norms_stay_inside_the_bounds(self, scale: float) -> None:
        contract = self.contract()
        for draw, delta in enumerate(self.deltas(3)):
            large = (delta * scale).astype(np.float32)
            encoded = self.encoded(large, draw)
            assert math.sqrt(squared_norm(self.numbers(encoded))) <= contract.norm_bound
            back = math.sqrt(squared_norm(self.decoded(encoded).sums["delta"]))
            start = math.sqrt(squared_norm(large))
            # The fold rounds each coordinate to its quantum; lossy codes err by their recovery.
            error = self.sections()["delta"].quantum + (self.recovery or 0.0)
            slack = 1e-6 * start + error * math.sqrt(self.dim)
            assert back <= contract.inflation * start + slack

    def test_integer_stages_give_integers(self) -> None:
        if not self.contract().integer:
            pytest.skip("the contract does not promise it")
        for draw, delta in enumerate(self.deltas(3)):
            encoded = self.numbers(self.encoded(delta, draw))
            assert np.array_equal(encoded, np.rint(encoded))

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    def test_values_that_are_not_finite_are_not_hidden(self, bad: float) -> None:
        """They reach the fold, which refuses and names the client, or the stage refuses them."""
        (delta,) = self.deltas(1)
        delta[0] = bad
        with pytest.raises(AnabranchError):
            self.decoded(self.encoded(delta))
