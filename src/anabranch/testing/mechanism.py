"""What every privacy mechanism must do: bound each client, release a private mean, repeat itself.

Subclass `MechanismContract`, return your mechanism from `mechanism`, and run pytest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import pytest

from anabranch.aggregation.fold import Accumulator, FoldPlan
from anabranch.privacy.mechanisms import Mechanism, Released, RoundNoise
from anabranch.privacy.noise import SecretStream, derived_key
from anabranch.randomness import generator
from anabranch.updates.norm import squared_norm
from anabranch.updates.sections import Sections, Update, Vector
from anabranch.updates.total import Total

__all__ = ["MechanismContract"]

_KEY = bytes(range(32))


class MechanismContract:
    """The contract of `anabranch.privacy.mechanisms.Mechanism`.

    Attributes:
        clients: updates in a sum; what the mechanism is planned for.
        multiplier: the noise that a round is planned with.
        clip: the clip norm that clients are told.
        rounding: largest norm, in clip norms, by which an encoded update may differ from the
            clipped one apart from noise of the client.
        local_noise: whether clients add noise, so that single updates cannot be compared.
    """

    clients: ClassVar[int] = 40
    multiplier: ClassVar[float] = 1.0
    clip: ClassVar[float] = 0.5
    rounding: ClassVar[float] = 2e-3
    local_noise: ClassVar[bool] = False

    def mechanism(self) -> Mechanism:
        """The mechanism under test, planned for `clients` updates of `multiplier` noise."""
        raise NotImplementedError

    def deltas(self) -> list[Vector]:
        """One update a client, some longer than the clip norm."""
        rng, dim = generator(0, "mechanism suite"), self.mechanism().dim
        scales = rng.uniform(0.2, 3.0, self.clients) * self.clip / math.sqrt(dim)
        return [(rng.normal(size=dim) * scale).astype(np.float32) for scale in scales]

    def encoded(self, delta: Vector, client: int = 0, fraction: float = 1.0) -> Update:
        """The client half, with a stream of the client's own."""
        own = SecretStream.keyed(_KEY, "client", str(client))
        return self.mechanism().encode(delta, self.clip, fraction, 1, 7, own)

    def summed(self, updates: list[Update]) -> Total:
        """The exact fold over the declared sections."""
        sections = Sections(self.mechanism().sections())
        fold = Accumulator(FoldPlan(sections, capacity=max(len(updates), 1)))
        for number, update in enumerate(updates):
            fold.add(update, f"client {number}")
        return fold.total()

    def released(self, total: Total, key: bytes = _KEY) -> Released:
        """The server half in the first round."""
        return self.mechanism().release(total, self.noise({1: key}))

    def noise(self, keys: Mapping[int, bytes]) -> RoundNoise:
        """What the server half is given in the last of these rounds."""
        clip = float(np.float32(self.clip))
        return RoundNoise(clip, self.multiplier, max(keys), keys, seed=7)

    def clipped(self, delta: Vector) -> np.ndarray:
        """What a client is allowed to contribute, in units of the update."""
        wide = delta.astype(np.float64)
        return np.asarray(wide * min(1.0, self.clip / math.sqrt(squared_norm(delta))))

    # The client half ------------------------------------------------------------------------

    def test_a_client_sends_the_declared_sections_and_nothing_else(self) -> None:
        update = self.encoded(self.deltas()[0])
        update.check(Sections(self.mechanism().sections()), "client")

    def test_whatever_the_update_is_it_is_accepted(self) -> None:
        """Not finite, huge, tiny: refusing it would tell something of the data."""
        dim = self.mechanism().dim
        for value in (np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-45, 0.0):
            delta = np.zeros(dim, np.float32)
            delta[dim // 2] = value
            total = self.summed([self.encoded(delta)])
            assert all(np.isfinite(array).all() for array in total.sums.values())
            self.summed([self.encoded(np.full(dim, value, np.float32))])

    def test_an_update_is_rounded_but_not_changed(self) -> None:
        if self.local_noise:
            pytest.skip("a single update carries noise of its own")
        for delta in self.deltas()[:8]:
            update = self.encoded(delta)
            sent = np.asarray(update.vectors["delta"], np.float64)
            assert math.sqrt(squared_norm(sent)) <= 1.0
            assert np.linalg.norm(sent * self.clip - self.clipped(delta)) <= (
                self.rounding * self.clip
            )

    def test_a_smaller_weight_moves_the_sum_less(self) -> None:
        if self.local_noise:
            pytest.skip("a single update carries noise of its own")
        delta = self.deltas()[0] * np.float32(100)
        whole, half = (self.encoded(delta, fraction=f).vectors["delta"] for f in (1.0, 0.5))
        assert np.linalg.norm(half) == pytest.approx(np.linalg.norm(whole) / 2, rel=1e-2)

    # The server half ------------------------------------------------------------------------

    def test_the_mean_is_over_the_planned_cohort(self) -> None:
        """A denominator that follows the replies would be one more release."""
        deltas = self.deltas()
        released = self.released(self.summed([self.encoded(d, i) for i, d in enumerate(deltas)]))
        wanted = sum(self.clipped(delta) for delta in deltas) / self.clients
        error = released.total.mean("delta") - wanted
        deviation = math.sqrt(squared_norm(error) / len(error))
        # The standard error of a standard deviation over d coordinates is 1 / sqrt(2 d).
        slack = 6 / math.sqrt(2 * len(error)) + self.rounding
        assert deviation == pytest.approx(released.deviation, rel=slack)
        assert released.total.contributors == self.clients

    def test_the_noise_is_what_was_promised(self) -> None:
        """Measured on a sum of zeros, not less than the multiplier says."""
        zeros = np.zeros(self.mechanism().dim, np.float32)
        total = self.summed([self.encoded(zeros, i) for i in range(self.clients)])
        mean = self.released(total).total.mean("delta")
        found = math.sqrt(squared_norm(mean) / len(mean)) * self.clients / self.clip
        assert found >= self.multiplier * (1 - 6 / math.sqrt(2 * len(mean)))
        assert self.mechanism().realised(self.clients, self.multiplier) >= self.multiplier

    def test_a_replay_has_the_same_noise_and_another_key_has_not(self) -> None:
        total = self.summed([self.encoded(d, i) for i, d in enumerate(self.deltas())])
        first, again = (self.released(total).total.sums["delta"] for _ in range(2))
        assert np.array_equal(first, again)
        other = self.released(total, derived_key(_KEY, "other")).total.sums["delta"]
        assert self.local_noise or not np.array_equal(first, other)

    def test_the_bias_is_counted(self) -> None:
        total = self.summed([self.encoded(d, i) for i, d in enumerate(self.deltas())])
        assert 0 < self.released(total).bias < 1e-8
